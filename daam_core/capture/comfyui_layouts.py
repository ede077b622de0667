"""Layouts of the transformers that ComfyUI builds: functions of a model and what one call of it is given.

A layout is proved by counting: an attention that has another number of keys than the layout gives is not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..errors import NothingRecorded
from ..types import Grid

UNET = ("comfy.ldm.modules.diffusionmodules.openaimodel", "UNetModel")
Sizes = tuple[int, int]
"""(queries, keys) of an attention."""


@dataclass(frozen=True)
class ModelCall:
    """What a diffusion model is called with.

    Attributes:
        latent: its shape `[batch, c, (frames,) h, w]`.
        columns: of its text `[batch, columns, d]`.
        given: everything else by ComfyUI's names: "ref_latents", "clip_fea", "attention_mask", …
    """

    latent: tuple[int, ...]
    columns: int
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenLayout:
    """Where text and picture stand in the attentions of one call.

    Attributes:
        joint: whether text and picture share one attention; else the picture attends to the text in one of its own.
        frames, grid: of the picture in patches, (h, w) each.
        text: the keys that are text, one for each column.
        first: the first query that is the picture's; they follow row by row, frame by frame.
        sizes: (queries, keys) of an attention that has the text among its keys.
        silent: sizes of attentions that are known to have no text in them.
        more: whether an uncounted number of tokens may follow the picture's.
        repeats: how many attentions of one block have the text among their keys, one after the other.
        blocks: how many blocks there are, where lengths may tie and calls have to be counted; 0 is unknown.
    """

    joint: bool
    frames: int
    grid: Grid
    text: slice
    first: int
    sizes: Sizes
    silent: frozenset[Sizes] = frozenset()
    more: bool = False
    repeats: int = 1
    blocks: int = 0

    @property
    def picture(self) -> int:
        """How many patches there are."""
        return self.frames * self.grid[0] * self.grid[1]

    def has_text(self, queries: int, keys: int) -> bool:
        """Whether an attention of this size is the one that has the text among its keys.

        Raises:
            NothingRecorded: text and picture stand in it, and their number is another than the layout says.
        """
        if (queries, keys) == self.sizes or (self.more and keys == self.sizes[1] and queries >= self.sizes[0]):
            return True
        if (queries, keys) in self.silent or not self._whole(queries, keys):
            return False
        raise NothingRecorded(
            f"an attention has {queries} queries on {keys} keys, and by what the model was given it would have "
            f"{self.sizes[0]} on {self.sizes[1]}. Another node changes the tokens of this model, so that nobody can say which "
            "are words. Record without that node"
        )

    def _whole(self, queries: int, keys: int) -> bool:
        """Whether an attention of an unknown size holds what is to be read; others are somebody's own (adapters, sound)."""
        if self.joint:
            return queries == keys and queries > self.picture
        return keys == self.sizes[1] and queries > self.picture

    def check_host(self, options: Mapping[str, Any]) -> None:
        """Hold the layout against what the host itself says of a call's tokens, where it does.

        Raises:
            NothingRecorded: they differ.
        """
        given = options.get("img_slice")
        if self.joint and given is not None and tuple(given) != (self.first, self.sizes[1]):
            raise NothingRecorded(
                f"ComfyUI says that the picture's tokens are {given[0]} to {given[1]}, and by what the model was given they "
                f"would be {self.first} to {self.sizes[1]}. Another node changes the tokens of this model. Record without "
                "that node"
            )


@dataclass(frozen=True)
class ComfyUIModel:
    """The networks that ComfyUI builds for a family.

    Attributes:
        classes: `module.Class` of each behind `comfy.ldm.`; classes made from them belong to it, too.
        layout: gives the layout of one call.
    """

    classes: tuple[str, ...]
    layout: Callable[[Any, ModelCall], TokenLayout]

    def built(self, model: nn.Module) -> bool:
        """Whether a diffusion model is one of these networks."""
        return any(_is(model, name) for name in self.classes)


# -- layouts --------------------------------------------------------------------------------------------------------


def text_first(model: Any, call: ModelCall, before: int = 0, behind: int = 0) -> TokenLayout:
    """Tokens that are neither, text, picture, and more behind it, in one sequence."""
    frames, grid = grid_of(model, call.latent)
    picture = frames * grid[0] * grid[1]
    first = before + call.columns
    n = first + picture + behind
    text = slice(before, first)
    # Some blocks have a second attention of the picture alone (Stable Diffusion 3.5 medium).
    return TokenLayout(True, frames, grid, text, first, (n, n), frozenset({(picture, picture)}))


def with_references(model: Any, call: ModelCall) -> TokenLayout:
    """Flux, Flux.2, Chroma, Qwen-Image: text, picture, reference pictures."""
    return text_first(model, call, behind=_reference_tokens(model, call))


def auraflow(model: Any, call: ModelCall) -> TokenLayout:
    """Registers, text, picture."""
    return text_first(model, call, before=int(model.register_tokens.shape[1]))


def _reference_tokens(model: Any, call: ModelCall) -> int:
    total = 0
    for reference in call.given.get("ref_latents") or ():
        frames, grid = grid_of(model, tuple(reference.shape))
        total += frames * grid[0] * grid[1]
    return total


def next_dit(model: Any, call: ModelCall) -> TokenLayout:
    """Lumina 2 and Z-Image: captions of references, text, [a vision model's tokens], references, picture.

    Text, each reference and the picture are padded to a multiple. Refiners of text and picture alone come before.
    """
    frames, grid = grid_of(model, call.latent)
    picture = grid[0] * grid[1]
    if not hasattr(type(model), "embed_cap"):
        return _trimmed(model, call, grid)
    multiple = int(getattr(model, "pad_tokens_multiple", None) or 1)
    references = call.given.get("ref_latents") or ()
    captions = call.given.get("ref_contexts") or ()

    def caption(one: Any) -> int:
        return multiple if one is None else _padded(int(one.shape[1]), multiple)

    ahead = sum(caption(captions[i] if i < len(captions) else None) for i in range(len(references)))
    after = sum(caption(one) for one in captions[len(references) :]) if references else 0
    words = ahead + _padded(call.columns, multiple) + after
    vision = _vision_tokens(model, call, len(references), multiple)
    pictures = [math.prod(grid_of(model, tuple(one.shape))[1]) for one in references]
    stream = sum(_padded(n, multiple) for n in pictures) + _padded(picture, multiple)
    first = words + vision + stream - _padded(picture, multiple)
    n = words + vision + stream
    silent = frozenset({(words, words), (stream, stream), (vision, vision)})
    return TokenLayout(True, frames, grid, slice(ahead, ahead + call.columns), first, (n, n), silent)


def _vision_tokens(model: Any, call: ModelCall, references: int, multiple: int) -> int:
    """Tokens that a vision model makes of the references (Z-Image Omni)."""
    if not references or getattr(model, "siglip_embedder", None) is None:
        return 0
    features = call.given.get("siglip_feats") or ()
    sizes = [math.prod(one.shape[1:3]) for one in features[:references]]
    padded = getattr(model, "siglip_pad_token", None) is not None
    absent = references + 1 - len(sizes)
    return sum(_padded(n, multiple) for n in sizes) + absent * multiple if padded else sum(sizes)


def _trimmed(model: Any, call: ModelCall, grid: Grid) -> TokenLayout:
    """Lumina 2 before ComfyUI padded its text: the padding of the text is left out."""
    mask = call.given.get("attention_mask")
    lengths = {int(call.given.get("num_tokens") or call.columns)}
    if isinstance(mask, Tensor):
        lengths = {int(n) for n in mask.detach().bool().sum(-1).tolist()}
    if len(lengths) > 1:
        raise NothingRecorded(
            "the prompts of one batch have different lengths, and this ComfyUI puts them at different places. Queue them one "
            "by one, or use a newer ComfyUI"
        )
    (columns,), picture = lengths, grid[0] * grid[1]
    n = columns + picture
    silent = frozenset({(call.columns, call.columns), (picture, picture)})
    return TokenLayout(True, 1, grid, slice(0, columns), columns, (n, n), silent)


def wan(model: Any, call: ModelCall) -> TokenLayout:
    """Wan: a reference first, the video, further frames and references; text in an attention of its own.

    The embedding of a picture has keys of its own, in a call before the text's.
    """
    frames, grid = grid_of(model, call.latent)
    picture = frames * grid[0] * grid[1]
    given, patch = call.given, patch_of(model)
    behind = _tokens(given.get("time_dim_concat"), patch)
    for latent in given.get("context_latents") or ():
        behind += _tokens(latent, patch)
    ahead = 0
    reference = given.get("reference_latent")
    if _is(model, "wan.model.SCAILWanModel"):
        ahead, behind = _tokens(reference, patch), behind + _tokens(given.get("pose_latents"), patch)
    elif _is(model, "wan.model.WanModel_S2V") or _is(model, "wan.model.HumoWanModel"):
        behind += _tokens(reference, patch)
    elif getattr(model, "ref_conv", None) is not None:
        ahead = _tokens(reference, patch)
    n = ahead + picture + behind
    silent = {(n, n)}
    for name in ("clip_fea", "clip_fea_ref"):
        if given.get(name) is not None:
            silent.add((n, int(given[name].shape[-2])))
    if (n, call.columns) in silent - {(n, n)}:
        raise NothingRecorded(
            f"this model attends to {call.columns} columns of text and to as many of a picture, which cannot be told apart"
        )
    blocks = len(getattr(model, "blocks", ())) + len(getattr(model, "vace_blocks", None) or ())
    more = given.get("reference_motion") is not None
    # Made for a picture and given none, a block attends to the text in place of the picture, too.
    made_for_picture = hasattr(next(iter(getattr(model, "blocks", ())), None), "cross_attn") and hasattr(
        model.blocks[0].cross_attn, "k_img"
    )
    repeats = 2 if made_for_picture and len(silent) == 1 else 1
    text = slice(0, call.columns)
    return TokenLayout(False, frames, grid, text, ahead, (n, call.columns), frozenset(silent), more, repeats, blocks)


def is_unet(model: nn.Module) -> bool:
    """Whether a diffusion model is ComfyUI's own UNet: module and class, since other families use its class names."""
    return any((base.__module__, base.__name__) == UNET for base in _classes(model))


def grid_of(model: Any, latent: Sequence[int]) -> tuple[int, Grid]:
    """(frames, (h, w)) of a latent `[batch, c, (frames,) h, w]` in patches; an edge that is no whole patch is padded."""
    frames = latent[2] if len(latent) == 5 else 1
    t, h, w = (math.ceil(n / p) for n, p in zip((frames, *latent[-2:]), patch_of(model), strict=True))
    return t, (h, w)


def patch_of(model: Any) -> tuple[int, int, int]:
    """(frames, height, width) of a patch in latent positions."""
    size = getattr(model, "patch_size", None) or 2
    if isinstance(size, int):
        return 1, size, size
    sizes = tuple(int(n) for n in size)
    return (1, *sizes) if len(sizes) == 2 else (sizes[0], sizes[1], sizes[2])


def _is(model: nn.Module, name: str) -> bool:
    return any(f"{base.__module__}.{base.__name__}" == f"comfy.ldm.{name}" for base in _classes(model))


def _classes(model: nn.Module) -> tuple[type, ...]:
    """The classes of a model, also of one that torch.compile has wrapped."""
    return type(getattr(model, "_orig_mod", model)).__mro__


def _tokens(latent: Tensor | None, patch: Sequence[int]) -> int:
    """Patches of a latent `[batch, c, (frames,) h, w]`, 0 for none."""
    if latent is None:
        return 0
    shape = tuple(latent.shape)
    frames = shape[2] if len(shape) == 5 else 1
    return math.prod(math.ceil(n / p) for n, p in zip((frames, *shape[-2:]), patch, strict=True))


def _padded(n: int, multiple: int) -> int:
    return math.ceil(n / multiple) * multiple
