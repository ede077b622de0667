"""Layouts of ComfyUI's transformers whose text and picture share one attention: functions of a model and one call of it.

A layout is proved by counting: an attention that has another number of keys than the layout gives is not read.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..errors import NothingRecorded
from .comfyui_model import ModelCall, padded, patch_of, patches_of, tokens_of
from .token_layout import Patches, RowLayout, TokenLayout, counted, joint, ragged


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
    return padded_next_dit(model, call)


def padded_next_dit(model: Any, call: ModelCall) -> TokenLayout:
    """The same where text and picture are padded, also in a host whose model has no method for it (Forge Neo)."""
    patches = patches_of(model, call.latent)
    multiple = int(getattr(model, "pad_tokens_multiple", None) or 1)
    picture = padded(patches[1] * patches[2], multiple)
    references = call.given.get("ref_latents") or ()
    captions = call.given.get("ref_contexts") or ()

    def caption(one: Any) -> int:
        return multiple if one is None else padded(int(one.shape[1]), multiple)

    ahead = sum(caption(captions[i] if i < len(captions) else None) for i in range(len(references)))
    after = sum(caption(one) for one in captions[len(references) :]) if references else 0
    words = ahead + padded(call.columns, multiple) + after
    vision = _vision_tokens(model, call, len(references), multiple)
    stream = picture + sum(padded(math.prod(patches_of(model, tuple(one.shape))[1:]), multiple) for one in references)
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
    absent = references + 1 - len(sizes)
    if getattr(model, "siglip_pad_token", None) is None:
        return sum(sizes)
    return sum(padded(n, multiple) for n in sizes) + absent * multiple


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


def krea2(model: Any, call: ModelCall) -> TokenLayout:
    """Krea 2: text, picture, references where it is told how to number them; refiners of the text before."""
    references = call.given.get("ref_latents") or ()
    if call.given.get("ref_latents_method", getattr(model, "default_ref_method", None)) is None:
        references = ()
    patch = patch_of(model)
    # Frames of a reference are pictures of a batch, of which as many are taken as there are of the picture.
    behind = sum(tokens_of(one[:, :, 0] if one.dim() == 5 else one, patch) for one in references)
    text, layers = call.columns, int(getattr(model, "txtlayers", 0))
    return text_first(model, call, behind=behind).and_without_text((text, text), (layers, layers))


def picture_places(model: Any, call: ModelCall) -> TokenLayout:
    """Ideogram 4 and Mage-Flow: text, picture, references; a token of a picture is one place of its latent."""
    grid = (1, int(call.latent[-2]), int(call.latent[-1]))
    behind = sum(tokens_of(one, (1, 1, 1)) for one in call.given.get("ref_latents") or ())
    return joint(call.batch, grid, call.columns, text_first=True, after=behind)


def lens(model: Any, call: ModelCall) -> TokenLayout:
    """Lens: picture, text; a token of the picture is one place of its latent."""
    return joint(call.batch, (1, int(call.latent[-2]), int(call.latent[-1])), call.columns, text_first=False)


def picture_first(model: Any, call: ModelCall) -> TokenLayout:
    """ERNIE-Image and JoyImage: picture, references, text."""
    references = sum(tokens_of(one, patch_of(model)) for one in call.given.get("ref_latents") or ())
    return joint(call.batch, patches_of(model, call.latent), call.columns, text_first=False, between=references)


def omnigen2(model: Any, call: ModelCall) -> TokenLayout:
    """OmniGen2 and Boogu: text, references, picture; refiners of each alone before, and of the pictures beside them."""
    patches, patch = patches_of(model, call.latent), patch_of(model)
    references = sum(tokens_of(one, patch) for one in call.given.get("ref_latents") or ())
    alone = (call.columns, references, math.prod(patches), references + math.prod(patches))
    layout = joint(call.batch, patches, call.columns, text_first=True, between=references)
    return layout.and_without_text(*((n, n) for n in alone))


def pixeldit(model: Any, call: ModelCall) -> TokenLayout:
    """PixelDiT and PiD: of the text as many columns as the model takes, picture; then the picture alone."""
    patches, own = patches_of(model, call.latent), min(call.columns, int(model.txt_max_length))
    n = math.prod(patches)
    return joint(call.batch, patches, own, text_first=True, total=call.columns).and_without_text((n, n))


def hidream(model: Any, call: ModelCall) -> TokenLayout:
    """HiDream I1: picture, T5, Llama's last layer, and Llama's layer that belongs to the block."""
    if call.given.get("image_cond") is not None:
        raise NothingRecorded("HiDream with a picture to edit puts it beside its own in every row of tokens, which is not read")
    llama = range(call.main, call.columns)
    order = (*range(call.main), *llama, *llama)
    return joint(call.batch, patches_of(model, call.latent), order, text_first=False, total=call.columns)
