"""How the text goes through a block of a joint model, for other tokens than the prompt's: one entry a family.

ConceptAttention (Helbling et al. 2025) needs what the model does to its text: the embedding, each block's modulation, its
projections, and what the text's tokens become behind the block. All of it is done here by the model's own modules, so a LoRA
on them takes part as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from .token_layout import TokenLayout

Given = Mapping[str, Any]


@dataclass(frozen=True)
class Entered:
    """Text tokens inside a block.

    Attributes:
        states: `[rows, tokens, dim]`, what the attention's projections are given.
        leave: what the tokens are behind the block, from what the attention's output projection gives; None where the block is
            the last that the text goes through.
    """

    states: Tensor
    leave: Callable[[Tensor], Tensor] | None


@dataclass(frozen=True)
class TextStream:
    """The way of the text through one family's blocks.

    Attributes:
        layers: the list of blocks that the text's tokens go through.
        embed: `embed(model, given, states, lengths)`: `[texts, columns, dim]` as encoded, `lengths` of them no padding ->
            `[texts, columns, dim]` as the first block is given text.
        enter: `enter(block, given, tokens, rows)`: text tokens `[rows, tokens, dim]` for these rows of the batch, by the
            arguments that the block was called with.
        rotation: `rotation(model, given, block_given, columns, layout)`: complex `[tokens, d / 2]`, by which the queries and
            keys of text at these columns are turned; None where they are not.
        shared: whether text and picture have the same projections.
    """

    layers: str
    embed: Callable[[Any, Given, Tensor, Sequence[int]], Tensor]
    enter: Callable[[Any, Given, Tensor, Tensor], Entered]
    rotation: Callable[[Any, Given, Given, Sequence[int], TokenLayout], Tensor | None]
    shared: bool = False


def _context_embedder(model: Any, given: Given, states: Tensor, lengths: Sequence[int]) -> Tensor:
    embedded: Tensor = model.context_embedder(states)
    return embedded


def _modulated(x: Tensor, o: Tensor, gate: Tensor, rest: Sequence[Tensor], norm: Any, mlp: Any) -> Tensor:
    """`x + gate o`, and behind it the block's MLP, modulated by (shift, scale, gate)."""
    shift, scale, gate_mlp = rest
    x = x + gate * o
    x = x + gate_mlp * mlp(norm(x) * (1 + scale) + shift)
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x


def _enter_ada_zero(block: Any, given: Given, tokens: Tensor, rows: Tensor) -> Entered:
    """Stable Diffusion 3 and Flux.1: each block makes the text's modulation of the timestep's embedding."""
    temb = given["temb"][rows]
    if getattr(block, "context_pre_only", False):
        return Entered(block.norm1_context(tokens, temb), None)
    states, gate, *rest = block.norm1_context(tokens, emb=temb)
    gate, shift, scale, gate_mlp = (part[:, None] for part in (gate, *rest))
    norm, mlp = block.norm2_context, block.ff_context
    return Entered(states, lambda o: _modulated(tokens, o, gate, (shift, scale, gate_mlp), norm, mlp))


def _enter_flux2(block: Any, given: Given, tokens: Tensor, rows: Tensor) -> Entered:
    """Flux.2: the modulation is the same in all blocks, and comes as an argument."""
    modulation = given.get("temb_mod_txt")
    if not isinstance(modulation, Tensor):
        raise UnsupportedModel("those of Flux.2 are read with diffusers 0.37 or later")
    modulation = modulation[:, None] if modulation.dim() == 2 else modulation
    # One row may serve the whole batch.
    modulation = modulation[rows] if len(modulation) > 1 else modulation
    shift, scale, gate, *rest = modulation.chunk(6, -1)
    states = block.norm1_context(tokens) * (1 + scale) + shift
    norm, mlp = block.norm2_context, block.ff_context
    return Entered(states, lambda o: _modulated(tokens, o, gate, rest, norm, mlp))


def _enter_qwen(block: Any, given: Given, tokens: Tensor, rows: Tensor) -> Entered:
    """Qwen-Image."""
    temb = given["temb"]
    temb = temb.chunk(2)[0] if getattr(block, "zero_cond_t", False) else temb
    shift, scale, gate, *rest = block.txt_mod(temb[rows])[:, None].chunk(6, -1)
    states = block.txt_norm1(tokens) * (1 + scale) + shift
    norm, mlp = block.txt_norm2, block.txt_mlp
    return Entered(states, lambda o: _modulated(tokens, o, gate, rest, norm, mlp))


def _enter_z_image(block: Any, given: Given, tokens: Tensor, rows: Tensor) -> Entered:
    """Z-Image: one stream, whose weights and modulation are the text's as well as the picture's."""
    if given.get("noise_mask") is not None:
        raise UnsupportedModel("those of Z-Image with reference pictures (Omni) are not known")
    if block.modulation:
        scale, gate, scale_mlp, gate_mlp = block.adaLN_modulation(given["adaln_input"][rows])[:, None].chunk(4, -1)
        scale, scale_mlp, gate, gate_mlp = 1 + scale, 1 + scale_mlp, gate.tanh(), gate_mlp.tanh()
    else:
        scale = gate = scale_mlp = gate_mlp = torch.ones((), dtype=tokens.dtype, device=tokens.device)

    def leave(o: Tensor) -> Tensor:
        x = tokens + gate * block.attention_norm2(o)
        behind: Tensor = x + gate_mlp * block.ffn_norm2(block.feed_forward(block.ffn_norm1(x) * scale_mlp))
        return behind

    return Entered(block.attention_norm1(tokens) * scale, leave)


def _embed_qwen(model: Any, given: Given, states: Tensor, lengths: Sequence[int]) -> Tensor:
    embedded: Tensor = model.txt_in(model.txt_norm(states))
    return embedded


def _embed_z_image(model: Any, given: Given, states: Tensor, lengths: Sequence[int]) -> Tensor:
    """Each text through the refiners as a caption of its own, which attends to nothing but itself."""
    embedded = model.cap_embedder(states)
    found = torch.zeros_like(embedded)
    for text, length in enumerate(lengths):
        tokens = embedded[text : text + 1, :length]
        turned = _z_image_positions(model, range(length), states.device)
        for block in model.context_refiner:
            tokens = block(tokens, None, turned[None])
        found[text, :length] = tokens[0]
    return found


def _no_rotation(model: Any, given: Given, block_given: Given, columns: Sequence[int], layout: TokenLayout) -> None:
    return None


def _flux_rotation(model: Any, given: Given, block_given: Given, columns: Sequence[int], layout: TokenLayout) -> Tensor:
    """Flux: cosine and sine of all tokens, of the text first, each twice side by side."""
    if max(columns) >= layout.columns:
        raise UnsupportedModel(
            f"a concept has {max(columns) + 1} columns of text and the prompt {layout.columns}, so its position is not known"
        )
    cos, sin = (part[list(columns)][..., ::2].float() for part in block_given["image_rotary_emb"])
    return torch.complex(cos, sin)


def _qwen_rotation(model: Any, given: Given, block_given: Given, columns: Sequence[int], layout: TokenLayout) -> Tensor:
    """Qwen-Image: the text's positions follow the picture's largest; a concept may be longer than the prompt."""
    turned = block_given["image_rotary_emb"][1]
    if max(columns) < len(turned):
        found: Tensor = turned[list(columns)]
        return found
    shapes = given["img_shapes"][0]
    first = max(max(height // 2, width // 2) for _, height, width in shapes)
    every: Tensor = model.pos_embed.pos_freqs.to(turned.device)[first:]
    if max(columns) >= len(every) or not torch.equal(every[: len(turned)], turned):
        raise UnsupportedModel("the positions that Qwen-Image gives to text are not known beyond the prompt's")
    return every[list(columns)]


def _z_image_rotation(model: Any, given: Given, block_given: Given, columns: Sequence[int], layout: TokenLayout) -> Tensor:
    turned = _z_image_positions(model, columns, block_given["freqs_cis"].device)
    rows = next(rows for rows in layout.rows.values() if rows)
    if not torch.equal(_z_image_positions(model, [0], turned.device)[0], block_given["freqs_cis"][0, rows[0].text]):
        raise UnsupportedModel("the positions that Z-Image gives to text are not known")
    return turned


def _z_image_positions(model: Any, columns: Sequence[int], device: torch.device) -> Tensor:
    """Text stands at (1 + column, 0, 0)."""
    places = torch.zeros(len(columns), 3, dtype=torch.int32)
    places[:, 0] = 1 + torch.tensor(list(columns), dtype=torch.int32)
    turned: Tensor = model.rope_embedder(places.to(device))
    return turned


TEXT_STREAMS = {
    "Stable Diffusion 3": TextStream("transformer_blocks", _context_embedder, _enter_ada_zero, _no_rotation),
    "Flux.1": TextStream("transformer_blocks", _context_embedder, _enter_ada_zero, _flux_rotation),
    "Flux.2": TextStream("transformer_blocks", _context_embedder, _enter_flux2, _flux_rotation),
    "Qwen-Image": TextStream("transformer_blocks", _embed_qwen, _enter_qwen, _qwen_rotation),
    "Z-Image": TextStream("layers", _embed_z_image, _enter_z_image, _z_image_rotation, shared=True),
}
"""By family. Flux's single blocks are left out, as in the paper: text has no weights of its own in them, and behind the double
blocks the concepts' tokens are not needed any more. Z-Image has nothing but such blocks, so there they are read: the text's
weights are the ones that both have."""


def text_projections(attn: Any, states: Tensor, shared: bool, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `[rows, tokens, heads, d]` of text tokens, behind the norms and ahead of positions."""
    prefix = ("to_q", "to_k", "to_v") if shared else ("add_q_proj", "add_k_proj", "add_v_proj")
    fused = getattr(attn, "to_qkv" if shared else "to_added_qkv", None) if getattr(attn, "fused_projections", False) else None
    parts = fused(states).chunk(3, -1) if fused is not None else [getattr(attn, name)(states) for name in prefix]
    q, k, v = (part.unflatten(-1, (-1, depth)) for part in parts)
    norms = ("norm_q", "norm_k") if shared else ("norm_added_q", "norm_added_k")
    norm_q, norm_k = (getattr(attn, name, None) for name in norms)
    return q if norm_q is None else norm_q(q), k if norm_k is None else norm_k(k), v


def turn(x: Tensor, by: Tensor | None) -> Tensor:
    """Rotary positions: pairs of `x` `[rows, tokens, heads, d]` turned by complex `[tokens, d / 2]`."""
    if by is None:
        return x
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * by[None, :, None]).flatten(-2).to(x.dtype)


def text_output(attn: Any, o: Tensor, shared: bool) -> Tensor:
    """The output projection of text."""
    projected: Tensor = attn.to_out[0](o) if shared else attn.to_add_out(o)
    return projected
