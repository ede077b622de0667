"""Layouts of the transformers of diffusers: functions of a model and the arguments of its call, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, prod
from typing import Any

from torch import Tensor

from ..errors import UnsupportedModel
from .token_layout import Patches, RowLayout, TokenLayout, counted, cross, grid_patches, joint, latent_patches, ragged

Given = Mapping[str, Any]
_IDEOGRAM_PICTURE = 2
_CAPTION_MULTIPLE = 32  # Z-Image pads captions and pictures to so many tokens


def by_positions(model: Any, given: Given) -> TokenLayout:
    """Flux and models like it: text, picture, references; `img_ids` say where the picture's tokens stand."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    patches, references = grid_patches(given["img_ids"], hidden.shape[1])
    return joint(hidden.shape[0], patches, text.shape[1], text_first=True, after=references)


def flux2(model: Any, given: Given) -> TokenLayout:
    """Flux.2, and its variant that keeps the references' keys: there they stand between text and picture."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    mode, cache = given.get("kv_cache_mode"), given.get("kv_cache")
    if mode is None and cache is None:
        return by_positions(model, given)
    ids, references = given["img_ids"], int(given.get("num_ref_tokens") or 0)
    ids = ids[0] if ids.dim() == 3 else ids
    columns, tokens = text.shape[1], hidden.shape[1]
    patches, more = grid_patches(ids[references:], tokens - references)
    if more:
        raise UnsupportedModel("Flux.2 was given pictures behind its own, whose place is not known.")
    n = prod(patches)
    kept = references
    if mode == "cached":
        kept = int(getattr(cache, "num_ref_tokens", 0))
    row = RowLayout(columns, 0, range(columns))
    rows = (row,) * hidden.shape[0]
    return TokenLayout(patches, columns, {(columns + n, columns + kept + n): rows, (references, references): None})


def by_shapes(model: Any, given: Given) -> TokenLayout:
    """Qwen-Image: text, picture, references; `img_shapes` say how large the pictures are, in patches."""
    if getattr(model.config, "use_layer3d_rope", False):
        raise UnsupportedModel("Qwen-Image Layered makes several pictures at once, which cannot be told apart.")
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    first = given["img_shapes"][0]
    shapes = list(first) if isinstance(first, (list, tuple)) and not isinstance(first[0], int) else [first]
    patches = tuple(int(x) for x in shapes[0])
    references = sum(prod(shape) for shape in shapes[1:])
    if prod(patches) + references != hidden.shape[1]:
        raise UnsupportedModel(f"{hidden.shape[1]} tokens of pictures do not fit into the shapes {shapes}.")
    return joint(hidden.shape[0], (patches[0], patches[1], patches[2]), text.shape[1], text_first=True, after=references)


def sd3(model: Any, given: Given) -> TokenLayout:
    """Stable Diffusion 3: picture, text."""
    return _latent_joint(model, given, text_first=False)


def text_then_latent(model: Any, given: Given) -> TokenLayout:
    """CogView 3+ and 4: text, picture."""
    return _latent_joint(model, given, text_first=True)


def glm_image(model: Any, given: Given) -> TokenLayout:
    """GLM-Image: text, picture; keys of reference pictures may come ahead of both."""
    caches = given.get("kv_caches")
    if caches is not None:
        raise UnsupportedModel("GLM-Image with reference pictures keeps their keys, whose number is not known.")
    return _latent_joint(model, given, text_first=True)


def aura_flow(model: Any, given: Given) -> TokenLayout:
    """AuraFlow: registers, text, picture."""
    return _latent_joint(model, given, text_first=True, before=int(model.register_tokens.shape[1]))


def ernie(model: Any, given: Given) -> TokenLayout:
    """ERNIE-Image: picture, text."""
    hidden, text = given["hidden_states"], given["text_bth"]
    patches = latent_patches(hidden, model.config.patch_size)
    return joint(hidden.shape[0], patches, text.shape[1], text_first=False)


def joy_image(model: Any, given: Given) -> TokenLayout:
    """JoyImage Edit: the picture, references, text; the picture is the last item of its input and comes first inside."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    items = hidden.shape[1] if hidden.dim() == 6 else 1
    one = hidden[:, -1] if hidden.dim() == 6 else hidden
    patches = latent_patches(one, tuple(model.patch_size))
    return joint(hidden.shape[0], patches, text.shape[1], text_first=False, between=(items - 1) * prod(patches))


def prx(model: Any, given: Given) -> TokenLayout:
    """PRX: the queries are the picture alone, the keys text and picture."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    patches, columns = latent_patches(hidden, model.config.patch_size), text.shape[1]
    row = RowLayout(0, 0, range(columns))
    return TokenLayout(patches, columns, {(prod(patches), columns + prod(patches)): (row,) * hidden.shape[0]})


def hidream(model: Any, given: Given) -> TokenLayout:
    """HiDream: picture, T5, Llama's last layer, and Llama's layer that belongs to this block.

    A picture that is not square is padded to the longest sequence.
    """
    hidden, t5, llama = (given[k] for k in ("hidden_states", "encoder_hidden_states_t5", "encoder_hidden_states_llama3"))
    if hidden.dim() != 4:
        raise UnsupportedModel("HiDream was given a picture in patches, whose width is not known.")
    patches = latent_patches(hidden, model.config.patch_size)
    columns, more = t5.shape[1], llama.shape[2]
    padded = 0 if hidden.shape[-2] == hidden.shape[-1] else int(model.max_seq) - prod(patches)
    order = [*range(columns), *range(columns, columns + more), *range(columns, columns + more)]
    return joint(hidden.shape[0], patches, order, text_first=False, between=padded, total=columns + more)


def z_image(model: Any, given: Given) -> TokenLayout:
    """Z-Image: picture and caption, each padded to a multiple of 32 tokens; in each row as long as its own are."""
    latents, captions = given["x"], given["cap_feats"]
    if isinstance(latents[0], list):
        raise UnsupportedModel("Z-Image with reference pictures (Omni) has a layout that is not known.")
    patch = (int(given["f_patch_size"]), int(given["patch_size"]), int(given["patch_size"]))
    each = {latent_patches(latent[None], patch) for latent in latents}
    if len(each) != 1:
        raise UnsupportedModel("The pictures of this batch have different sizes.")
    patches = each.pop()
    lengths = [int(caption.shape[0]) for caption in captions]
    picture = _to_multiple(prod(patches), _CAPTION_MULTIPLE)
    rows = [RowLayout(0, picture, range(length)) for length in lengths]
    size = picture + max(_to_multiple(length, _CAPTION_MULTIPLE) for length in lengths)
    return ragged(patches, max(lengths), rows, size)


def lumina2(model: Any, given: Given) -> TokenLayout:
    """Lumina 2: text without its padding, picture; in each row as long as its own text is."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    patches = latent_patches(hidden, model.config.patch_size)
    lengths = counted(given["encoder_attention_mask"])
    rows = [RowLayout(length, 0, range(length)) for length in lengths]
    return ragged(patches, text.shape[1], rows, max(lengths) + prod(patches))


def krea2(model: Any, given: Given) -> TokenLayout:
    """Krea 2: text, picture; `position_ids` of both."""
    hidden, text, positions = given["hidden_states"], given["encoder_hidden_states"], given["position_ids"]
    patches, references = grid_patches(positions[text.shape[1] :], hidden.shape[1])
    return joint(hidden.shape[0], patches, text.shape[1], text_first=True, after=references)


def ideogram4(model: Any, given: Given) -> TokenLayout:
    """Ideogram 4: text, padded on the left, and picture in one packed sequence; `indicator` says which token is what."""
    is_picture = (given["indicator"] == _IDEOGRAM_PICTURE).detach().cpu()
    batch, size = is_picture.shape
    n = int(is_picture[0].sum())
    if not bool(is_picture[:, size - n :].all()) or int(is_picture.sum()) != batch * n:
        raise UnsupportedModel("The picture's tokens are not the last of Ideogram's sequence in every row.")
    patches, more = grid_patches(given["position_ids"][0, size - n :], n)
    if more:
        raise UnsupportedModel("Ideogram was given more than one picture, whose places are not known.")
    return joint(batch, patches, size - n, text_first=True)


def hunyuan_image(model: Any, given: Given) -> TokenLayout:
    """HunyuanImage 2.1: picture, then of ByT5 and of the language model first what their masks keep, then the rest."""
    hidden, text, glyphs = (given.get(k) for k in ("hidden_states", "encoder_hidden_states", "encoder_hidden_states_2"))
    assert hidden is not None and text is not None
    patches = latent_patches(hidden, model.config.patch_size)
    if glyphs is None or model.context_embedder_2 is None:
        return joint(hidden.shape[0], patches, text.shape[1], text_first=False)
    own, other = _kept(given["encoder_attention_mask"]), _kept(given["encoder_attention_mask_2"])
    first = text.shape[1]  # the columns of ByT5 are counted behind those of the language model
    orders = [[first + i for i in o[0]] + m[0] + [first + i for i in o[1]] + m[1] for m, o in zip(own, other, strict=True)]
    rows = [RowLayout(0, prod(patches), order) for order in orders]
    columns = first + glyphs.shape[1]
    return ragged(patches, columns, rows, prod(patches) + columns)


def hunyuan_video(model: Any, given: Given) -> TokenLayout:
    """HunyuanVideo: video, text."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    p, t = model.config.patch_size, model.config.patch_size_t
    return joint(hidden.shape[0], latent_patches(hidden, (t, p, p)), text.shape[1], text_first=False)


def hunyuan_video15(model: Any, given: Given) -> TokenLayout:
    """HunyuanVideo 1.5: video, then of picture embedding, ByT5 and the language model first what is kept, then the rest."""
    hidden, text, glyphs, seen = (
        given[k] for k in ("hidden_states", "encoder_hidden_states", "encoder_hidden_states_2", "image_embeds")
    )
    p, t = model.config.patch_size, model.config.patch_size_t
    patches = latent_patches(hidden, (t, p, p))
    own, other = _kept(given["encoder_attention_mask"]), _kept(given["encoder_attention_mask_2"])
    first, vision = text.shape[1], [-1] * seen.shape[1]
    shown = bool((seen != 0).any())
    orders = []
    for m, o in zip(own, other, strict=True):
        valid, rest = [first + i for i in o[0]] + m[0], [first + i for i in o[1]] + m[1]
        orders.append(vision + valid + rest if shown else valid + vision + rest)
    rows = [RowLayout(0, prod(patches), order) for order in orders]
    columns = first + glyphs.shape[1]
    return ragged(patches, columns, rows, prod(patches) + len(vision) + columns)


def cog_video(model: Any, given: Given) -> TokenLayout:
    """CogVideoX: text, video; its latent is `[batch, frames, c, h, w]`."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    p, t = model.config.patch_size, getattr(model.config, "patch_size_t", None) or 1
    patches = latent_patches(hidden, (t, p, p), frames=hidden.shape[1])
    return joint(hidden.shape[0], patches, text.shape[1], text_first=True)


def mochi(model: Any, given: Given) -> TokenLayout:
    """Mochi: video, and of the text what its mask keeps; an attention call for each row of the batch."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    patches = latent_patches(hidden, (1, model.config.patch_size, model.config.patch_size))
    n = prod(patches)
    rows = [RowLayout(0, n, kept) for kept, _ in _kept(given["encoder_attention_mask"])]
    sizes = {(n + len(row.columns),) * 2: tuple(rows) for row in rows}
    return TokenLayout(patches, text.shape[1], sizes, rows_apart=True)


def latent_cross(model: Any, given: Given) -> TokenLayout:
    """PixArt, Sana, Allegro, Cosmos and their like: the picture's queries on the text's keys."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    if isinstance(text, tuple):
        raise UnsupportedModel(f"{type(model).__name__} was given a picture beside its text, which is not read.")
    config = model.config
    patch = config.patch_size
    if isinstance(patch, int) and hidden.dim() == 5:
        patch = (getattr(config, "patch_size_t", None) or 1, patch, patch)
    patches = latent_patches(hidden, patch)
    return cross(hidden.shape[0], patches, text.shape[-2])


def wan(model: Any, given: Given) -> TokenLayout:
    """Wan and models like it: the video's queries on the text's keys; a picture's keys come in their own call, or ahead."""
    return _beside_picture(model, given, latent_cross(model, given))


def wan_animate(model: Any, given: Given) -> TokenLayout:
    """Wan Animate: as Wan, with the frames of its reference ahead of the video's, of which the pose has one each."""
    hidden, pose = given["hidden_states"], given.get("pose_hidden_states")
    whole = latent_cross(model, given)
    frames, height, width = whole.patches
    ahead = frames - (frames if pose is None else int(pose.shape[2]))
    if pose is not None and ahead < 0:
        raise UnsupportedModel(f"Wan Animate was given {pose.shape[2]} frames of a pose for {frames} of a video.")
    patches = (frames - ahead, height, width)
    text, n = whole.columns, frames * height * width
    layout = cross(hidden.shape[0], patches, text, first_query=ahead * height * width, queries=n)
    return _beside_picture(model, given, layout)


def _beside_picture(model: Any, given: Given, layout: TokenLayout) -> TokenLayout:
    """The same where the text stands beside the embedding of a picture."""
    seen = given.get("encoder_hidden_states_image")
    if seen is None:
        return layout
    (((n, columns), rows),) = layout.rows.items()
    assert rows is not None
    # First and last frame come as two rows, which become one.
    added = int(seen.shape[1]) * (2 if getattr(model.config, "pos_embed_seq_len", None) else 1)
    if getattr(model.config, "added_kv_proj_dim", None) is None:
        return replace(layout, rows={(n, added + columns): tuple(replace(row, text=added) for row in rows)})
    if added == columns:
        raise UnsupportedModel(f"{type(model).__name__} has as many keys of a picture as of text: they cannot be told apart.")
    return replace(layout, rows={(n, columns): rows, (n, added): None})


def helios(model: Any, given: Given) -> TokenLayout:
    """Helios: only the frames that are being made attend to the text."""
    return latent_cross(model, given)


def frames_first(model: Any, given: Given) -> TokenLayout:
    """AnyFlow: as Wan, its latent is `[batch, frames, c, h, w]`."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    if given.get("encoder_hidden_states_image") is not None:
        raise UnsupportedModel(f"{type(model).__name__} was given a picture beside its text, which is not read.")
    patches = latent_patches(hidden, tuple(model.config.patch_size), frames=hidden.shape[1])
    return cross(hidden.shape[0], patches, text.shape[1])


def latte(model: Any, given: Given) -> TokenLayout:
    """Latte: the frames are rows of the batch where the picture attends to the text."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    frames, height, width = latent_patches(hidden, (1, model.config.patch_size, model.config.patch_size))
    row = RowLayout(0, 0, range(text.shape[1]))
    sizes = {(height * width, text.shape[1]): (row,) * hidden.shape[0]}
    return TokenLayout((frames, height, width), text.shape[1], sizes, frames_apart=True)


def ltx(model: Any, given: Given) -> TokenLayout:
    """LTX-Video: the video's queries on the text's keys; the numbers of its patches are arguments of their own."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    sizes = tuple(given.get(name) for name in ("num_frames", "height", "width"))
    if any(size is None for size in sizes):
        patches = _coordinate_patches(given["video_coords"], hidden.shape[1])
    else:
        patches = (int(sizes[0]), int(sizes[1]), int(sizes[2]))  # type: ignore[arg-type]
    if prod(patches) > hidden.shape[1]:
        raise UnsupportedModel(f"{hidden.shape[1]} tokens do not hold a video of {patches} patches.")
    return cross(hidden.shape[0], patches, text.shape[-2], queries=hidden.shape[1])


def hunyuan_dit(model: Any, given: Given) -> TokenLayout:
    """HunyuanDiT: the picture's queries on the keys of CLIP and T5."""
    hidden, clip, t5 = (given[k] for k in ("hidden_states", "encoder_hidden_states", "encoder_hidden_states_t5"))
    patches = latent_patches(hidden, model.config.patch_size)
    return cross(hidden.shape[0], patches, clip.shape[1] + t5.shape[1])


def kandinsky5(model: Any, given: Given) -> TokenLayout:
    """Kandinsky 5: the picture's queries on the text's keys; its latent is `[batch, frames, h, w, c]`."""
    if (given.get("sparse_params") or {}).get("to_fractal"):
        raise UnsupportedModel("Kandinsky 5 with sparse attention reorders the video's tokens, which is not read.")
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    patches = latent_patches(hidden.movedim(-1, 1), tuple(model.config.patch_size))
    return cross(hidden.shape[0], patches, text.shape[1])


def _latent_joint(model: Any, given: Given, text_first: bool, before: int = 0) -> TokenLayout:
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    patches = latent_patches(hidden, model.config.patch_size)
    return joint(hidden.shape[0], patches, text.shape[1], text_first=text_first, before=before)


def _to_multiple(n: int, multiple: int) -> int:
    return ceil(n / multiple) * multiple


def _kept(mask: Tensor) -> list[tuple[list[int], list[int]]]:
    """For each row of a mask `[batch, columns]`: the columns that it keeps, and those that it does not."""
    rows = mask.detach().bool().cpu().tolist()
    return [([i for i, on in enumerate(row) if on], [i for i, on in enumerate(row) if not on]) for row in rows]


def _coordinate_patches(coordinates: Tensor | None, tokens: int) -> Patches:
    """Patches of a video from the coordinates `[batch, 3, tokens, …]` of its tokens."""
    if coordinates is None:
        raise UnsupportedModel("The model was not told how large its video is.")
    places = coordinates[0].detach().cpu().reshape(3, coordinates.shape[2], -1)[..., 0]
    sizes = [len(axis.unique()) for axis in places]
    patches = (sizes[0], sizes[1], sizes[2])
    if prod(patches) != tokens:
        raise UnsupportedModel(f"{tokens} tokens do not stand on a grid of {patches}: frames were added to this video.")
    return patches
