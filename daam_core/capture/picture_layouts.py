"""Layouts of diffusers' transformers with text and picture in one sequence, from a model and the arguments of its call."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod
from typing import Any

from torch import Tensor

from ..errors import UnsupportedModel
from .token_layout import RowLayout, TokenLayout, counted, grid_patches, joint, latent_patches, ragged

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


def flux3(model: Any, given: Given) -> TokenLayout:
    """Flux.3: text, picture, and the references, which are an argument of their own."""
    hidden, text, references = (given.get(k) for k in ("hidden_states", "encoder_hidden_states", "image_cond_hidden_states"))
    assert hidden is not None and text is not None
    places = given["img_ids"].detach().float().cpu().clone()
    steps = places[:, 1:3] - places[0, 1:3]
    # The positions advance by a half.
    places[:, 1:3] = steps / (steps[steps > 0].min() if bool((steps > 0).any()) else 1.0)
    patches, more = grid_patches(places, hidden.shape[1])
    after = more + (0 if references is None else references.shape[1])
    return joint(hidden.shape[0], patches, text.shape[1], text_first=True, after=after)


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


def qwen_image21(model: Any, given: Given) -> TokenLayout:
    """Qwen-Image 2.1: text with the references at their places inside it, then the picture.

    What comes before the picture attends in pieces, of which none holds the picture; from the second step on it may come from
    a cache. A place of a reference stands for four of its tokens.
    """
    text, shapes, places = given["encoder_hidden_states"], given["img_shapes"][0], given["img_mask"][0].tolist()
    patches = tuple(int(x) for x in shapes[-1])
    n, columns = prod(patches), text.shape[1]
    order = [column for i, seen in enumerate(places[:columns]) for column in ([-1] * 4 if seen else [i])]
    if len(order) != columns - sum(places[:columns]) + sum(prod(shape) for shape in shapes[:-1]):
        raise UnsupportedModel(f"{sum(places[:columns])} places of references do not fit into the shapes {shapes[:-1]}.")
    rows = (RowLayout(0, 0, order),) * text.shape[0]
    sizes: dict[tuple[int, int], tuple[RowLayout, ...] | None] = {}
    for start, stop in _pieces(places[:columns], shapes[:-1]):
        sizes[stop - start, stop] = None
    sizes[n, len(order) + n] = rows
    return TokenLayout((patches[0], patches[1], patches[2]), columns, sizes)


def _pieces(places: list[bool], shapes: Any) -> list[tuple[int, int]]:
    """Where each run of text and each reference begins and ends, in tokens."""
    ends, at, references = [0], 0, iter([prod(shape) for shape in shapes])
    inside = 0
    for seen in places:
        if seen and inside == 0:
            inside = next(references)
            ends.append(at)
        at += 4 if seen else 1
        inside -= 4 if seen else 0
        if seen and inside == 0:
            ends.append(at)
    ends.append(at)
    return [(start, stop) for start, stop in zip(ends, ends[1:], strict=False) if stop > start]


def nucleus(model: Any, given: Given) -> TokenLayout:
    """Nucleus: the queries are the picture alone, the keys picture and text."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    layout = by_shapes(model, given)
    n, columns = prod(layout.patches), text.shape[1]
    row = RowLayout(0, n, range(columns))
    return TokenLayout(layout.patches, columns, {(n, n + columns): (row,) * hidden.shape[0]})


def sd3(model: Any, given: Given) -> TokenLayout:
    """Stable Diffusion 3: picture, text."""
    return latent_joint(model, given, text_first=False)


def text_then_latent(model: Any, given: Given) -> TokenLayout:
    """CogView 3+ and 4: text, picture."""
    return latent_joint(model, given, text_first=True)


def glm_image(model: Any, given: Given) -> TokenLayout | None:
    """GLM-Image: text, picture. Reference pictures are shown ahead of the first step, each in a call without text, and their
    keys stand ahead of both from then on; the negative prompt's calls do without."""
    layout, caches = latent_joint(model, given, text_first=True), given.get("kv_caches")
    mode = None if caches is None else caches[0].mode
    if mode == "write":
        return None
    kept = {keys.shape[1] for keys in caches[0].k_caches} if caches is not None and mode == "read" else set()
    if not kept:
        return layout
    if len(kept) > 1:
        raise UnsupportedModel("GLM-Image was given references of different sizes for several pictures: paint them one by one.")
    columns, (ahead,) = layout.columns, kept
    (size, _), *_ = layout.rows
    row = RowLayout(columns, ahead, range(columns))
    return TokenLayout(layout.patches, columns, {(size, ahead + size): (row,) * layout.batch})


def aura_flow(model: Any, given: Given) -> TokenLayout:
    """AuraFlow: registers, text, picture."""
    return latent_joint(model, given, text_first=True, before=int(model.register_tokens.shape[1]))


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


def joy_image_plus(model: Any, given: Given) -> TokenLayout:
    """JoyImage Edit Plus: the picture, references of any size, padding, text; `shape_list` says how large they are."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    each = {tuple(int(x) for x in shapes[0]) for shapes in given["shape_list"]}
    if len(each) != 1:
        raise UnsupportedModel("The pictures of this batch have different sizes.")
    frames, height, width = each.pop()
    between = hidden.shape[1] - frames * height * width
    return joint(hidden.shape[0], (frames, height, width), text.shape[1], text_first=False, between=between)


def omnigen(model: Any, given: Given) -> TokenLayout:
    """OmniGen: text, padded on the left, with references inside it; the time; picture."""
    hidden, text = given["hidden_states"], given["input_ids"]
    if text is None:
        raise UnsupportedModel("OmniGen was given no text.")
    patches, columns = latent_patches(hidden, model.config.patch_size), text.shape[1]
    rows = []
    for index in range(hidden.shape[0]):
        order = list(range(columns))
        for first, last in given["input_image_sizes"].get(index, ()):
            order[first:last] = [-1] * (last - first)
        rows.append(RowLayout(columns + 1, 0, order))
    return ragged(patches, columns, rows, columns + 1 + prod(patches))


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
    own, other = kept_columns(given["encoder_attention_mask"]), kept_columns(given["encoder_attention_mask_2"])
    first = text.shape[1]  # the columns of ByT5 are counted behind those of the language model
    orders = [[first + i for i in o[0]] + m[0] + [first + i for i in o[1]] + m[1] for m, o in zip(own, other, strict=True)]
    rows = [RowLayout(0, prod(patches), order) for order in orders]
    columns = first + glyphs.shape[1]
    return ragged(patches, columns, rows, prod(patches) + columns)


def latent_joint(model: Any, given: Given, text_first: bool, before: int = 0) -> TokenLayout:
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    patches = latent_patches(hidden, model.config.patch_size)
    return joint(hidden.shape[0], patches, text.shape[1], text_first=text_first, before=before)


def _to_multiple(n: int, multiple: int) -> int:
    return ceil(n / multiple) * multiple


def kept_columns(mask: Tensor) -> list[tuple[list[int], list[int]]]:
    """For each row of a mask `[batch, columns]`: the columns that it keeps, and those that it does not."""
    rows = mask.detach().bool().cpu().tolist()
    return [([i for i, on in enumerate(row) if on], [i for i, on in enumerate(row) if not on]) for row in rows]
