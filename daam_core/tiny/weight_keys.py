"""Names and shapes of weights in other programs' layouts: LDM (single-file checkpoints) and TAESD.

Pure functions from one state dict to another; tensors are neither copied nor changed unless said so.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F

State = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def unet_to_ldm(state: Mapping[str, torch.Tensor], levels: int, layers: int) -> State:
    """diffusers' UNet2DConditionModel -> LDM's UNetModel, for cross-attention at every level.

    `levels` is the number of resolutions, `layers` the resnets of a down block.
    """
    return {_unet_name(name, levels, layers): tensor for name, tensor in state.items()}


def _unet_name(name: str, levels: int, layers: int) -> str:
    for ours, theirs in _OUTER.items():
        if name.startswith(ours + "."):
            return theirs + name[len(ours) :]
    parts = name.split(".")
    if parts[0] == "mid_block":
        kind, number, rest = parts[1], int(parts[2]), parts[3:]
        place = "middle_block." + ("1" if kind == "attentions" else str(2 * number))
    else:
        level, kind, number, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
        if parts[0] == "down_blocks":
            first = 1 + level * (layers + 1)
            if kind == "downsamplers":
                return f"input_blocks.{first + layers}.0.op.{rest[-1]}"
            place = f"input_blocks.{first + number}.{int(kind == 'attentions')}"
        else:
            first = level * (layers + 1)
            if kind == "upsamplers":
                return f"output_blocks.{first + layers}.2.conv.{rest[-1]}"
            place = f"output_blocks.{first + number}.{int(kind == 'attentions')}"
    if kind == "resnets":
        rest = [_RESNET[rest[0]], *rest[1:]]
    return ".".join([place, *rest])


def text_to_ldm(state: Mapping[str, torch.Tensor]) -> State:
    """transformers' CLIPTextModel -> names under `transformer.text_model.`, whichever version wrote it."""
    return {f"transformer.text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in state.items()}


def widen(tensor: torch.Tensor, name: str, width: int, inner: bool) -> torch.Tensor:
    """Pad a convolution to `width` channels with zeros.

    Exact: the added channels are zero, ReLU keeps them so, and there is no norm that would look at them. `inner`
    tells whether output channels are padded as well (not for the last convolution).
    """
    outputs = width - tensor.shape[0] if inner else 0
    if name.endswith("bias"):
        return F.pad(tensor, (0, outputs))
    inputs = width - tensor.shape[1] if tensor.shape[1] > 4 else 0  # 3 and 4 are pictures and latents
    return F.pad(tensor, (0, 0, 0, 0, 0, inputs, 0, outputs))


def taesd_parts(state: Mapping[str, torch.Tensor], width: int = 64) -> tuple[State, State]:
    """diffusers' AutoencoderTiny -> (TAESD encoder, TAESD decoder), widened to `width` channels."""
    encoder = {k.removeprefix("encoder.layers."): t for k, t in state.items() if k.startswith("encoder.")}
    decoder = {k.removeprefix("decoder.layers."): t for k, t in state.items() if k.startswith("decoder.")}
    wide_encoder = {k: widen(t, k, width, _number(k) != _last(encoder)) for k, t in encoder.items()}
    # TAESD's decoder counts its soft clamp as layer 0; diffusers keeps that outside of the list.
    wide_decoder = {_shifted(k): widen(t, k, width, _number(k) != _last(decoder)) for k, t in decoder.items()}
    return wide_encoder, wide_decoder


def _number(name: str) -> int:
    return int(name.split(".")[0])


def _last(state: State) -> int:
    return max(_number(name) for name in state)


def _shifted(name: str) -> str:
    number, rest = name.split(".", 1)
    return f"{int(number) + 1}.{rest}"


def reindex(embedding: torch.Tensor, ours: Mapping[str, int], theirs: Mapping[str, int]) -> torch.Tensor:
    """Token embedding [our tokens, C] -> [their tokens, C]: equal tokens keep their vector.

    Tokens that only they have get the mean vector of our pieces of words, which the text encoder learnt to pass over.
    """
    pieces = [row for token, row in ours.items() if not token.startswith("<|")]
    table = embedding[pieces].mean(0).repeat(max(theirs.values()) + 1, 1)
    for token, row in theirs.items():
        if token in ours:
            table[row] = embedding[ours[token]]
    return table
