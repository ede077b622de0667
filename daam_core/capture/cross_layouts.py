"""Layouts of diffusers' transformers whose picture attends to the text in an attention of its own."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, prod
from typing import Any

from torch import Tensor

from ..errors import UnsupportedModel
from .picture_layouts import Given
from .token_layout import Patches, RowLayout, TokenLayout, counted, cross, latent_patches


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


def cosmos(model: Any, given: Given) -> TokenLayout:
    """Cosmos: the video's queries on the text's keys; Cosmos 2.5 Transfer attends to a picture's keys in a call of its own."""
    text = given["encoder_hidden_states"]
    if not isinstance(text, tuple):
        return latent_cross(model, given)
    words, picture = text
    layout = latent_cross(model, {**given, "encoder_hidden_states": words})
    if picture is None:
        return layout
    ((n, columns),) = layout.rows
    if picture.shape[1] == columns:
        raise UnsupportedModel(f"{type(model).__name__} has as many keys of a picture as of text: they cannot be told apart.")
    return layout.and_without_text((n, int(picture.shape[1])))


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


def ltx2(model: Any, given: Given) -> TokenLayout:
    """LTX-2: as LTX-Video; the sound beside the video has an attention of its own."""
    return ltx(model, given)


def bria_fibo2(model: Any, given: Given) -> TokenLayout:
    """Bria Fibo 2: some layers read the text; their queries are the text's gist, the picture and references.

    Where texts of a batch have gists of different length, the gist stands behind all. The text is
    `[batch, readers, columns, …]`.
    """
    hidden, text, mask = (given.get(k) for k in ("hidden_states", "encoder_hidden_states", "encoder_attention_mask"))
    assert hidden is not None and text is not None
    patch = model.config.patch_size
    patches = latent_patches(hidden, patch)
    lengths = [text.shape[2]] * text.shape[0] if mask is None else counted(mask)
    gists = [_gist(model.config, length) for length in lengths]
    references = sum(prod(latent_patches(one, patch)) for one in given.get("context_latents") or [])
    first = max(gists) if min(gists) == max(gists) else 0
    queries = max(gists) + prod(patches) + references
    return cross(hidden.shape[0], patches, text.shape[2], first_query=first, queries=queries)


def _gist(config: Any, length: int) -> int:
    """How many tokens a text of this length is condensed into."""
    least, most, step = config.min_num_gist_tokens, config.max_num_gist_tokens, config.gist_step
    share = (length - config.gist_min_text_len) / (config.gist_max_text_len - config.gist_min_text_len)
    wanted = least + min(1.0, max(0.0, share)) * (most - least)
    return int(max(least, min(most, ceil(wanted / step) * step)))


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


def kandinsky6(model: Any, given: Given) -> TokenLayout:
    """Kandinsky 6: the video's queries on the text's keys; a reference may follow the video's frames, at time 0 again."""
    hidden, text, places = (given.get(k) for k in ("hidden_states", "encoder_hidden_states", "visual_rope_pos"))
    assert hidden is not None and text is not None
    frames, height, width = latent_patches(hidden.movedim(-1, 1), tuple(model.patch_size))
    own = frames
    if places is not None:
        times = places[0].detach().cpu().tolist()
        own = next((i for i, time in enumerate(times) if time != i), frames)
    return cross(hidden.shape[0], (own, height, width), text.shape[1], queries=frames * height * width)


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
