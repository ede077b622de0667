"""Layouts of ComfyUI's transformers whose picture attends to the text in an attention of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import NothingRecorded
from .comfyui_model import ModelCall, grid_of, is_built_from, patch_of, patches_of, tokens_of
from .token_layout import TokenLayout, cross


def wan(model: Any, call: ModelCall) -> TokenLayout:
    """Wan: a reference first, the video, further frames and references; text in an attention of its own.

    The embedding of a picture has keys of its own, in a call before the text's. The controls of VACE attend to the text, too,
    each in blocks of its own; what they attend to is the control's and not the video's, so it is not counted.
    """
    patches = patches_of(model, call.latent)
    given, patch = call.given, patch_of(model)
    behind = tokens_of(given.get("time_dim_concat"), patch)
    for latent in given.get("context_latents") or ():
        behind += tokens_of(latent, patch)
    ahead = 0
    reference = given.get("reference_latent")
    if is_built_from(model, "wan.model.SCAILWanModel"):
        ahead, behind = tokens_of(reference, patch), behind + tokens_of(given.get("pose_latents"), patch)
    elif is_built_from(model, "wan.model.WanModel_S2V") or is_built_from(model, "wan.model.HumoWanModel"):
        behind += tokens_of(reference, patch)
    elif getattr(model, "ref_conv", None) is not None:
        ahead = tokens_of(reference, patch)
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
    own = len(getattr(model, "blocks", ()))
    # Made for a picture and given none, a block attends to the text in place of the picture, too.
    made_for_picture = hasattr(next(iter(getattr(model, "blocks", ())), None), "cross_attn") and hasattr(
        model.blocks[0].cross_attn, "k_img"
    )
    repeats = 2 if made_for_picture and len(silent) == 1 else 1
    beside = _controls(model, given, own)
    return replace(
        layout,
        open_ended=given.get("reference_motion") is not None,
        repeats=repeats,
        counted=tuple(mine for each in beside for mine in (True, *(False,) * each) for _ in range(repeats))
        if any(beside)
        else (),
        blocks=own + sum(beside),
    )


def _controls(model: Any, given: Mapping[str, Any], blocks: int) -> list[int]:
    """How many blocks of controls (VACE) run after each of the model's own."""
    controls = given.get("vace_context")
    if controls is None or not hasattr(model, "vace_layers_mapping"):
        return [0] * blocks
    return [int(controls.shape[1]) if i in model.vace_layers_mapping else 0 for i in range(blocks)]


def cosmos(model: Any, call: ModelCall) -> TokenLayout:
    """Cosmos, Cosmos Predict 2, Anima: in each block, the video to itself and then to the text."""
    space, time = int(model.patch_spatial), int(model.patch_temporal)
    return _self_then_text(call, (time, space, space), len(model.blocks))


def ltx(model: Any, call: ModelCall) -> TokenLayout:
    """LTX-Video: in each block, the video to itself and then to the text; a token is one place of the latent."""
    return _self_then_text(call, (1, 1, 1), len(model.transformer_blocks))


def ltx_with_sound(model: Any, call: ModelCall) -> TokenLayout:
    """LTX-2: in each block, the video to itself and to the text; its sound the same; each of them to the other.

    The latent is that of the video; a voice that is given stands ahead of the sound.
    """
    shapes: Sequence[Sequence[int]] = call.given.get("latent_shapes") or ()
    voice = call.given.get("ref_audio")
    sound = int(shapes[1][2]) if len(shapes) > 1 else 0
    sound += int(voice["tokens"].shape[1]) if sound and voice is not None else 0
    patches = grid_of(call.latent, (1, 1, 1))
    n = math.prod(patches)
    if not sound:
        return ltx(model, call)
    silent = {(n, n), (sound, sound), (sound, call.columns), (n, sound), (sound, n)}
    if (n, call.columns) in silent:
        raise NothingRecorded(
            f"this video has {n} places, its sound {sound}, and the text {call.columns} columns: attentions as large as "
            "others cannot be told apart"
        )
    layout = cross(call.batch, patches, call.columns).and_without_text(*silent)
    return with_blocks(layout, len(model.transformer_blocks))


def pixart(model: Any, call: ModelCall) -> TokenLayout:
    """PixArt: in each block, the picture to itself and then to the text."""
    if any(getattr(block.attn, "sr_ratio", 1) > 1 for block in model.blocks):
        raise NothingRecorded("this PixArt has blocks that attend to fewer keys of the picture, which are not known apart")
    return _self_then_text(call, patch_of(model), len(model.blocks))


def hunyuan_dit(model: Any, call: ModelCall) -> TokenLayout:
    """HunyuanDiT: in each block, the picture to itself and then to CLIP's and T5's text."""
    return _self_then_text(call, patch_of(model), len(model.blocks))


def kandinsky5(model: Any, call: ModelCall) -> TokenLayout:
    """Kandinsky 5: the text to itself; then in each block, the picture to itself and to the text."""
    layout = _self_then_text(call, patch_of(model), 0)
    return layout.and_without_text((call.columns, call.columns))


def _self_then_text(call: ModelCall, patch: tuple[int, int, int], blocks: int) -> TokenLayout:
    """Blocks of two attentions: of the picture to itself and to the text."""
    patches = grid_of(call.latent, patch)
    n = math.prod(patches)
    return with_blocks(cross(call.batch, patches, call.columns).and_without_text((n, n)), blocks)


def with_blocks(layout: TokenLayout, blocks: int) -> TokenLayout:
    """A layout of a model that has so many blocks."""
    return replace(layout, blocks=blocks)
