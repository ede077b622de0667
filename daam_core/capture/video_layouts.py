"""Layouts of diffusers' transformers with text and video in one sequence, from a model and the arguments of its call."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from .picture_layouts import Given, kept_columns
from .token_layout import Patches, RowLayout, TokenLayout, joint, latent_patches, ragged


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
    own, other = kept_columns(given["encoder_attention_mask"]), kept_columns(given["encoder_attention_mask_2"])
    first, vision = text.shape[1], [-1] * seen.shape[1]
    shown = bool((seen != 0).any())
    orders = []
    for m, o in zip(own, other, strict=True):
        valid, rest = [first + i for i in o[0]] + m[0], [first + i for i in o[1]] + m[1]
        orders.append(vision + valid + rest if shown else valid + vision + rest)
    rows = [RowLayout(0, prod(patches), order) for order in orders]
    columns = first + glyphs.shape[1]
    return ragged(patches, columns, rows, prod(patches) + len(vision) + columns)


def framepack(model: Any, given: Given) -> TokenLayout:
    """HunyuanVideo Framepack: frames of before in three sizes, video, picture embedding, text; one text alone is cut to what
    its mask keeps."""
    hidden, text, seen = (given[k] for k in ("hidden_states", "encoder_hidden_states", "image_embeds"))
    p, t = model.config.patch_size, model.config.patch_size_t
    patches = latent_patches(hidden, (t, p, p))
    before = 0
    for name, patch in (("clean", (1, 2, 2)), ("history_2x", (2, 4, 4)), ("history_4x", (4, 8, 8))):
        latent, places = given.get(f"latents_{name}"), given.get(f"indices_latents_{name}")
        if latent is not None and places is not None:
            before += prod(ceil(n / p) for n, p in zip(latent.shape[2:], patch, strict=True))
    n, columns = prod(patches), text.shape[1]
    shown = columns if text.shape[0] > 1 else int(given["encoder_attention_mask"].sum())
    row = RowLayout(before, before + n + seen.shape[1], range(shown))
    size = before + n + seen.shape[1] + shown
    return TokenLayout(patches, columns, {(size, size): (row,) * hidden.shape[0]})


def motif_video(model: Any, given: Given) -> TokenLayout:
    """Motif Video: video, picture embedding, text; and an attention to the text alone; and one of the video to itself."""
    hidden, text, seen = given["hidden_states"], given["encoder_hidden_states"], given.get("image_embeds")
    p, t = model.config.patch_size, model.config.patch_size_t
    patches, columns = latent_patches(hidden, (t, p, p)), text.shape[1]
    n, more = prod(patches), 0 if seen is None else seen.shape[1]
    rows = (RowLayout(0, n + more, range(columns)),) * hidden.shape[0]
    size = n + more + columns
    sizes: dict[tuple[int, int], tuple[RowLayout, ...] | None] = {(size, size): rows}
    config = model.config
    if config.enable_text_cross_attention_dual or config.enable_text_cross_attention_single:
        sizes[n, columns] = (RowLayout(0, 0, range(columns)),) * hidden.shape[0]
    if model.num_decoder_layers and 2 * n == size:
        raise UnsupportedModel("Motif Video has as many tokens of video as of text: they cannot be told apart.")
    if model.num_decoder_layers:
        sizes[2 * n, 2 * n] = None
    return TokenLayout(patches, columns, sizes)


def easy_animate(model: Any, given: Given) -> TokenLayout:
    """EasyAnimate: text of both encoders, video; its frames are not put together."""
    hidden, text = given["hidden_states"], given["encoder_hidden_states"]
    t5: Tensor | None = given.get("encoder_hidden_states_t5")
    patches = latent_patches(hidden, (1, model.config.patch_size, model.config.patch_size))
    columns = text.shape[1] + (0 if t5 is None else t5.shape[1])
    return joint(hidden.shape[0], patches, columns, text_first=True)


def minimax_h3(model: Any, given: Given) -> TokenLayout:
    """MiniMax-H3: text, references, sound and video in one sequence, which say where they stand; the video is the last."""
    text, places = given["encoder_hidden_states"], given["position_ids"].detach().cpu()
    columns, tokens = given["text_indices"].tolist(), given["video_indices"].tolist()
    first = len(places)
    while tokens and tokens[-1] == first - 1:
        first = tokens.pop()
    if columns != list(range(columns[0], columns[0] + len(columns))):
        raise UnsupportedModel("The tokens of MiniMax-H3's text do not stand one after the other.")
    row = RowLayout(first, columns[0], range(len(columns)))
    return TokenLayout(_video_patches(places[first:]), len(columns), {(len(places),) * 2: (row,) * text.shape[0]})


def cosmos3(model: Any, given: Given) -> TokenLayout:
    """Cosmos 3: the video's queries, with those of sound and actions behind them, on the keys of text and video; and an
    attention of the text to itself. Every text is a call of its own."""
    text, whole, shapes = int(given["und_len"]), int(given["sequence_length"]), given["vision_token_shapes"]
    places = given["vision_sequence_indexes"].detach().cpu()
    columns = given["text_indexes"].detach().cpu()
    if len(shapes) != 1 or not torch.equal(columns, torch.arange(text)):
        raise UnsupportedModel(f"Cosmos 3 was given {len(shapes)} videos and {len(columns)} of {text} places of text.")
    patches = (int(shapes[0][0]), int(shapes[0][1]), int(shapes[0][2]))
    first = int(places[0])
    if first < text or not torch.equal(places, torch.arange(first, first + prod(patches))):
        raise UnsupportedModel("The tokens of Cosmos 3's video do not stand one after the other behind its text.")
    row = RowLayout(first - text, 0, range(text))
    return TokenLayout(patches, text, {(text, text): None, (whole - text, whole): (row,)})


def _video_patches(places: Tensor) -> Patches:
    """(frames, height, width) of tokens `[tokens, 3]` whose places in time, height and width are known."""
    each = int((places[:, 0] == places[-1, 0]).sum())
    frame = places[-each:]
    height, width = (len(frame[:, axis].unique()) for axis in (1, 2))
    if each == 0 or height * width != each or len(places) % each:
        raise UnsupportedModel(f"{len(places)} tokens are no frames of {height} x {width} patches.")
    return len(places) // each, height, width


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
    rows = [RowLayout(0, n, kept) for kept, _ in kept_columns(given["encoder_attention_mask"])]
    sizes = {(n + len(row.columns),) * 2: tuple(rows) for row in rows}
    return TokenLayout(patches, text.shape[1], sizes, rows_apart=True)
