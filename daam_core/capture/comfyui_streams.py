"""How ComfyUI's joint models carry their text from block to block: one entry a class of networks.

Nothing of a block is written down again: concepts' tokens go through the block's own `forward`, in place of the text (see
`block_streams`). An entry says where the text stands among its arguments, how it is embedded, and where in its positions it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from .comfyui_model import class_names


@dataclass(frozen=True)
class BlockStream:
    """The text's way through the blocks of a network.

    Attributes:
        blocks: path of the blocks that text goes through, one after the other.
        text: the argument of a block that is the text, `[batch, tokens, dim]`; or text and picture in one sequence.
        embed: `embed(model, states)`: text states `[1, columns, dim]` as encoded -> as the first block is given them.
        picture: the argument that is the picture where it is one of its own; "" where `text` is both.
        output: which of a block's outputs is the text's, where it gives out several.
        rotation: the argument that is the positions of all tokens; "" where there are none.
        embedder: the module that makes positions of ids.
        ids: `ids(model, columns, latent)`: float32 `[columns, axes]`, the ids of text columns beside a latent of this shape.
        without: arguments that concepts' tokens have none of: masks of the prompt's columns.
        positional: names of arguments that a block takes by position alone.
        whole: whether a text's embedding depends on all its columns.
    """

    blocks: str
    text: str
    embed: Callable[[Any, Tensor], Tensor]
    picture: str = ""
    output: int = 0
    rotation: str = ""
    embedder: str = ""
    ids: Callable[[Any, Sequence[int], Sequence[int]], Tensor] | None = None
    without: tuple[str, ...] = ()
    positional: tuple[str, ...] = ()
    whole: bool = False


def _flux_text(model: Any, states: Tensor) -> Tensor:
    norm = getattr(model, "txt_norm", None)
    embedded: Tensor = model.txt_in(states if norm is None else norm(states))
    return embedded


def _flux_ids(model: Any, columns: Sequence[int], latent: Sequence[int]) -> Tensor:
    """All zeros in Flux.1 and Chroma; the column along some axes in Flux.2 and LongCat-Image."""
    ids = torch.zeros(len(columns), len(model.params.axes_dim))
    ids[:, list(getattr(model.params, "txt_ids_dims", None) or ())] = torch.tensor(list(columns)).float()[:, None]
    return ids


def _sd3_text(model: Any, states: Tensor) -> Tensor:
    processor = getattr(model, "context_processor", None)
    embedded: Tensor = model.context_embedder(states if processor is None else processor(states))
    return embedded


def _qwen_text(model: Any, states: Tensor) -> Tensor:
    embedded: Tensor = model.txt_in(model.txt_norm(states))
    return embedded


def _qwen_ids(model: Any, columns: Sequence[int], latent: Sequence[int]) -> Tensor:
    """Behind the picture's, along all three axes."""
    half = model.patch_size // 2
    first = round(max((n + half) // model.patch_size // 2 for n in latent[-2:]))
    return (first + torch.tensor(list(columns)).float())[:, None].expand(-1, 3)


def _next_text(model: Any, states: Tensor) -> Tensor:
    """Through the refiners as a caption of its own, padded as the model pads one."""
    n, columns = states.shape[1], range(states.shape[1])
    if hasattr(type(model), "embed_cap"):
        (tokens,), (turned,), _ = model.embed_cap(states, offset=0, bsz=1, device=states.device, dtype=states.dtype)
    else:  # ComfyUI up to 0.3
        tokens, ids = model.cap_embedder(states), _next_ids(model, columns, ()).to(states.device)
        turned = model.rope_embedder(ids[None]).movedim(1, 2).to(states.dtype)
    for block in model.context_refiner:
        tokens = block(tokens, None, turned)
    refined: Tensor = tokens[:, :n]
    return refined


def _next_ids(model: Any, columns: Sequence[int], latent: Sequence[int]) -> Tensor:
    """The column along the first axis, from 1 on where ComfyUI pads the text."""
    ids = torch.zeros(len(columns), len(model.axes_dims))
    ids[:, 0] = torch.tensor(list(columns)).float() + hasattr(type(model), "embed_cap")
    return ids


_FLUX = BlockStream("double_blocks", "txt", _flux_text, "img", 1, "pe", "pe_embedder", _flux_ids, without=("attn_mask",))

BLOCK_STREAMS: Mapping[str, BlockStream] = {
    "flux.model.Flux": _FLUX,
    "chroma.model.Chroma": _FLUX,
    "modules.diffusionmodules.mmdit.MMDiT": BlockStream("joint_blocks", "context", _sd3_text, "x", positional=("context", "x")),
    "qwen_image.model.QwenImageTransformer2DModel": BlockStream(
        "transformer_blocks",
        "encoder_hidden_states",
        _qwen_text,
        "hidden_states",
        rotation="image_rotary_emb",
        embedder="pe_embedder",
        ids=_qwen_ids,
        without=("encoder_hidden_states_mask",),
    ),
    "lumina.model.NextDiT": BlockStream(
        "layers",
        "x",
        _next_text,
        rotation="freqs_cis",
        embedder="rope_embedder",
        ids=_next_ids,
        without=("x_mask",),
        whole=True,
    ),
}
"""By `module.Class` behind `comfy.ldm.`. Flux's single blocks are left out, as in ConceptAttention's paper."""


def block_stream_of(model: nn.Module) -> BlockStream | None:
    """How the text goes through a diffusion model that ComfyUI built; None where that is not known."""
    return next((BLOCK_STREAMS[name] for name in class_names(model) if name in BLOCK_STREAMS), None)


REFERENCES = ("timestep_zero_index", "modulation_dims_img")
"""Arguments of a block that give some tokens of the picture another time."""


def require_one_time(given: Mapping[str, Any]) -> None:
    """Raises UnsupportedModel where reference pictures stand at another time than the picture."""
    if any(given.get(name) is not None for name in REFERENCES):
        raise UnsupportedModel("reference pictures stand at another time than the picture here (index_timestep_zero)")
