"""Layouts of the transformers that ComfyUI builds: functions of a model and what one call of it is given.

A layout is proved by counting: an attention that has another number of keys than the layout gives is not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from ..errors import NothingRecorded
from .token_layout import Patches, RowLayout, TokenLayout, counted, cross, joint, ragged

UNET = ("comfy.ldm.modules.diffusionmodules.openaimodel", "UNetModel")


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

    @property
    def batch(self) -> int:
        return self.latent[0]


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
    patches = patches_of(model, call.latent)
    picture = math.prod(patches)
    layout = joint(call.batch, patches, call.columns, text_first=True, before=before, after=behind)
    # Some blocks have a second attention of the picture alone (Stable Diffusion 3.5 medium).
    return layout.and_without_text((picture, picture))


def with_references(model: Any, call: ModelCall) -> TokenLayout:
    """Flux, Flux.2, Chroma, Qwen-Image: text, picture, reference pictures."""
    return text_first(model, call, behind=_reference_tokens(model, call))


def auraflow(model: Any, call: ModelCall) -> TokenLayout:
    """Registers, text, picture."""
    return text_first(model, call, before=int(model.register_tokens.shape[1]))


def _reference_tokens(model: Any, call: ModelCall) -> int:
    references = call.given.get("ref_latents") or ()
    return sum(math.prod(patches_of(model, tuple(reference.shape))) for reference in references)


def next_dit(model: Any, call: ModelCall) -> TokenLayout:
    """Lumina 2 and Z-Image: captions of references, text, [a vision model's tokens], references, picture.

    Text, each reference and the picture are padded to a multiple. Refiners of text and picture alone come before.
    """
    patches = patches_of(model, call.latent)
    if not hasattr(type(model), "embed_cap"):
        return _trimmed(patches, call)
    multiple = int(getattr(model, "pad_tokens_multiple", None) or 1)
    picture = _padded(patches[1] * patches[2], multiple)
    references = call.given.get("ref_latents") or ()
    captions = call.given.get("ref_contexts") or ()

    def caption(one: Any) -> int:
        return multiple if one is None else _padded(int(one.shape[1]), multiple)

    ahead = sum(caption(captions[i] if i < len(captions) else None) for i in range(len(references)))
    after = sum(caption(one) for one in captions[len(references) :]) if references else 0
    words = ahead + _padded(call.columns, multiple) + after
    vision = _vision_tokens(model, call, len(references), multiple)
    stream = picture + sum(_padded(math.prod(patches_of(model, tuple(one.shape))[1:]), multiple) for one in references)
    n = words + vision + stream
    row = RowLayout(n - picture, ahead, range(call.columns))
    layout = ragged(patches, call.columns, (row,) * call.batch, n)
    return layout.and_without_text((words, words), (stream, stream), (vision, vision))


def _vision_tokens(model: Any, call: ModelCall, references: int, multiple: int) -> int:
    """Tokens that a vision model makes of the references (Z-Image Omni)."""
    if not references or getattr(model, "siglip_embedder", None) is None:
        return 0
    features = call.given.get("siglip_feats") or ()
    sizes = [math.prod(one.shape[1:3]) for one in features[:references]]
    padded = getattr(model, "siglip_pad_token", None) is not None
    absent = references + 1 - len(sizes)
    return sum(_padded(n, multiple) for n in sizes) + absent * multiple if padded else sum(sizes)


def _trimmed(patches: Patches, call: ModelCall) -> TokenLayout:
    """Lumina 2 before ComfyUI padded its text: the padding of the text is left out, so that each row has its own places."""
    mask = call.given.get("attention_mask")
    lengths = [int(call.given.get("num_tokens") or call.columns)] * call.batch
    if isinstance(mask, Tensor):
        lengths = counted(mask)
    picture = math.prod(patches)
    rows = [RowLayout(length, 0, range(length)) for length in lengths]
    layout = ragged(patches, call.columns, rows, max(lengths) + picture)
    return layout.and_without_text((call.columns, call.columns), (picture, picture))


def wan(model: Any, call: ModelCall) -> TokenLayout:
    """Wan: a reference first, the video, further frames and references; text in an attention of its own.

    The embedding of a picture has keys of its own, in a call before the text's.
    """
    patches = patches_of(model, call.latent)
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
    n = ahead + math.prod(patches) + behind
    silent = {(n, n)}
    for name in ("clip_fea", "clip_fea_ref"):
        if given.get(name) is not None:
            silent.add((n, int(given[name].shape[-2])))
    if (n, call.columns) in silent - {(n, n)}:
        raise NothingRecorded(
            f"this model attends to {call.columns} columns of text and to as many of a picture, which cannot be told apart"
        )
    layout = cross(call.batch, patches, call.columns, first_query=ahead, queries=n).and_without_text(*silent)
    blocks = len(getattr(model, "blocks", ())) + len(getattr(model, "vace_blocks", None) or ())
    # Made for a picture and given none, a block attends to the text in place of the picture, too.
    made_for_picture = hasattr(next(iter(getattr(model, "blocks", ())), None), "cross_attn") and hasattr(
        model.blocks[0].cross_attn, "k_img"
    )
    repeats = 2 if made_for_picture and len(silent) == 1 else 1
    return replace(layout, open_ended=given.get("reference_motion") is not None, repeats=repeats, blocks=blocks)


def is_unet(model: nn.Module) -> bool:
    """Whether a diffusion model is ComfyUI's own UNet: module and class, since other families use its class names."""
    return any((base.__module__, base.__name__) == UNET for base in _classes(model))


def patches_of(model: Any, latent: Sequence[int]) -> Patches:
    """Patches of a latent `[batch, c, (frames,) h, w]`; an edge that is no whole patch is padded."""
    frames = latent[2] if len(latent) == 5 else 1
    t, h, w = (math.ceil(n / p) for n, p in zip((frames, *latent[-2:]), patch_of(model), strict=True))
    return t, h, w


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
