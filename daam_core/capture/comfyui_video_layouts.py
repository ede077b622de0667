"""Layouts of ComfyUI's transformers that make videos of text and video in one attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .comfyui_model import ModelCall, grid_of, patch_of, patches_of, tokens_of
from .token_layout import TokenLayout, joint


def hunyuan(model: Any, call: ModelCall) -> TokenLayout:
    """HunyuanVideo and HunyuanImage 2.1: embedding of a picture, text and ByT5's (which is first in 1.5), reference, video.

    Older ComfyUIs put reference and video first.
    """
    patches, given = patches_of(model, call.latent), call.given
    main, glyphs = range(call.main), range(call.main, call.columns)
    if getattr(model, "byt5_in", None) is None:
        glyphs = range(0)
    columns = (*glyphs, *main) if getattr(model, "cond_type_embedding", None) is not None else (*main, *glyphs)
    seen = given.get("clip_fea")
    before = 0 if seen is None else int(seen.shape[1])
    reference = tokens_of(given.get("ref_latent"), patch_of(model))
    if getattr(model.double_blocks[0], "flipped_img_txt", False):  # ComfyUI up to 0.3
        layout = joint(call.batch, patches, (*[-1] * before, *columns), text_first=False, before=reference, total=call.columns)
    else:
        layout = joint(call.batch, patches, columns, text_first=True, before=before, between=reference, total=call.columns)
    return replace(layout, ahead=reference).and_without_text((call.main, call.main))


def cogvideox(model: Any, call: ModelCall) -> TokenLayout:
    """CogVideoX: text, video."""
    patch = int(getattr(model, "patch_size_t", None) or 1), int(model.patch_size), int(model.patch_size)
    return joint(call.batch, grid_of(call.latent, patch), call.columns, text_first=True)


def mochi(model: Any, call: ModelCall) -> TokenLayout:
    """Mochi: video, and as many columns of the text as its mask keeps of the longest."""
    kept = min(call.columns, int(call.given.get("num_tokens") or 256))
    return joint(call.batch, patches_of(model, call.latent), kept, text_first=False, total=call.columns)
