"""How the joint models of Forge and its kin carry their text from block to block: ComfyUI's blocks under other names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .comfyui_streams import BLOCK_STREAMS, BlockStream
from .forge_families import FORGE_FAMILIES, ROOM


def _flux_ids(model: Any, columns: Sequence[int], latent: Sequence[int]) -> Tensor:
    """All zeros in Flux.1 and Chroma; the column along the last axis in Flux.2."""
    ids = torch.zeros(len(columns), len(model.pe_embedder.axes_dim))
    ids[:, list(getattr(model, "txt_ids_dims", None) or ())] = torch.tensor(list(columns)).float()[:, None]
    return ids


def _next_ids(model: Any, columns: Sequence[int], latent: Sequence[int]) -> Tensor:
    """The column along the first axis, from 1 on."""
    ids = torch.zeros(len(columns), len(model.axes_dims))
    ids[:, 0] = torch.tensor(list(columns)).float() + 1
    return ids


def _next_text(model: Any, states: Tensor) -> Tensor:
    """Through the refiners as a caption of its own, padded as the model pads one."""
    tokens = model.cap_embedder(states)
    missing = -tokens.shape[1] % int(getattr(model, "pad_tokens_multiple", None) or 1)
    if missing:
        tokens = torch.cat([tokens, model.cap_pad_token.to(tokens).expand(len(tokens), missing, -1)], 1)
    ids = _next_ids(model, range(tokens.shape[1]), ()).to(states.device)
    turned = model.rope_embedder(ids[None]).movedim(1, 2).to(states.dtype)
    for block in model.context_refiner:
        tokens = block(tokens, None, turned)
    refined: Tensor = tokens[:, : states.shape[1]]
    return refined


_FLUX = replace(BLOCK_STREAMS["flux.model.Flux"], ids=_flux_ids)

FORGE_STREAMS: Mapping[str, BlockStream] = {
    "flux.IntegratedFluxTransformer2DModel": _FLUX,
    "chroma.IntegratedChromaTransformer2DModel": _FLUX,
    "qwen.QwenImageTransformer2DModel": BLOCK_STREAMS["qwen_image.model.QwenImageTransformer2DModel"],
    "lumina.NextDiT": replace(BLOCK_STREAMS["lumina.model.NextDiT"], embed=_next_text, ids=_next_ids),
}
"""By `module.Class` behind `backend.nn.`."""

FORGE_CONCEPT_FAMILIES = tuple(
    name for name, known in FORGE_FAMILIES.items() if any(one in FORGE_STREAMS for one in known.classes)
)
"""Families whose transformers concepts are read from in these hosts, beside UNets."""


def forge_stream_of(model: nn.Module) -> BlockStream | None:
    """How the text goes through a diffusion model that one of the hosts built; None where that is not known."""
    kind = type(model)
    return FORGE_STREAMS.get(f"{kind.__module__}.{kind.__name__}".removeprefix(ROOM))


def forge_concepts_refusal(model: nn.Module) -> str:
    """Why concepts are not read from a transformer of these hosts; empty where they are."""
    if forge_stream_of(model) is not None:
        return ""
    return (
        f"of this model, {type(model).__name__}, they are not read in this host; they are of Stable Diffusion 1, 2 and XL, and "
        f"of {', '.join(FORGE_CONCEPT_FAMILIES)}"
    )
