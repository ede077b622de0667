"""How text goes through a block of each joint family, written out in float64 from the weights, without the host's code.

`WAYS[family]` is (blocks, embed, enter). `embed(model, states)` makes of one text `[columns, dim]` what the first block is
given; `enter(model, block, given, row, tokens, columns, latent)` gives (q, k, v) `[heads, tokens, d]` and what becomes of the
tokens, as a function of what they read `[tokens, heads * d]` (None where the text ends there).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(module: Any, x: Tensor) -> Tensor:
    bias = None if module.bias is None else module.bias.double()
    return F.linear(x, module.weight.double(), bias)


def rms(norm: Any, x: Tensor, eps: float = 1e-6) -> Tensor:
    weight = norm.weight if hasattr(norm, "weight") else norm.scale
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()


def layer_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + eps).sqrt()


def turned(x: Tensor, ids: Tensor, axes: Sequence[int], theta: float) -> Tensor:
    """Rotary positions: pairs of `x` `[tokens, heads, d]` turned by id * theta^(-2i / d), axis by axis."""
    angles = [ids[:, a, None].double() * theta ** -(torch.arange(0, d, 2).double() / d) for a, d in enumerate(axes)]
    by = torch.polar(torch.ones(()).double(), torch.cat(angles, 1))
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * by[:, None]).flatten(-2)


def ids(columns: Sequence[int], axes: int, along: Sequence[int], first: float = 0.0) -> Tensor:
    found = torch.zeros(len(columns), axes).double()
    found[:, list(along)] = torch.tensor(list(columns)).double()[:, None] + first
    return found


def _heads(*parts: Tensor) -> list[Tensor]:
    return [x.transpose(0, 1) for x in parts]


def _stream(x: Tensor, o: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, gate_mlp: Tensor, mlp: Any) -> Tensor:
    x = x + gate * o
    return x + gate_mlp * mlp(layer_norm(x) * (1 + scale) + shift)


# -- Flux.1, Flux.2, LongCat-Image, Chroma -----------------------------------------------------------------------------


def flux_embed(model: Any, states: Tensor) -> Tensor:
    return linear(model.txt_in, states)


def flux_enter(model: Any, block: Any, given: Any, row: int, x: Tensor, columns: Sequence[int], latent: Any) -> Any:
    if hasattr(block, "txt_mod"):
        shift, scale, gate, shift2, scale2, gate2 = linear(block.txt_mod.lin, F.silu(given["vec"][row].double())).chunk(6, -1)
    else:
        first, second = given["vec"][1]
        parts = (first.shift, first.scale, first.gate, second.shift, second.scale, second.gate)
        shift, scale, gate, shift2, scale2, gate2 = (part[row if len(part) > 1 else 0].double() for part in parts)
    attn = block.txt_attn
    q, k, v = linear(attn.qkv, layer_norm(x) * (1 + scale) + shift).unflatten(-1, (3, block.num_heads, -1)).unbind(1)
    axes = model.params.axes_dim
    places = ids(columns, len(axes), getattr(model.params, "txt_ids_dims", None) or ())
    q, k = (turned(y, places, axes, model.params.theta) for y in (rms(attn.norm.query_norm, q), rms(attn.norm.key_norm, k)))

    def mlp(y: Tensor) -> Tensor:
        first = linear(block.txt_mlp[0], y)
        if first.shape[-1] == 2 * block.txt_mlp[2].weight.shape[1]:
            a, b = first.chunk(2, -1)
            return linear(block.txt_mlp[2], F.silu(a) * b)
        return linear(block.txt_mlp[2], F.gelu(first, approximate="tanh"))

    return _heads(q, k, v), lambda o: _stream(x, linear(attn.proj, o), gate, shift2, scale2, gate2, mlp)


# -- Stable Diffusion 3 -----------------------------------------------------------------------------------------------


def sd3_embed(model: Any, states: Tensor) -> Tensor:
    return linear(model.context_embedder, states)


def sd3_enter(model: Any, block: Any, given: Any, row: int, x: Tensor, columns: Sequence[int], latent: Any) -> Any:
    own = block.context_block
    shift, scale, *rest = linear(own.adaLN_modulation[1], F.silu(given["c"][row].double())).chunk(2 if own.pre_only else 6, -1)
    qkv = linear(own.attn.qkv, layer_norm(x) * (1 + scale) + shift).unflatten(-1, (3, own.attn.num_heads, -1))
    q, k, v = qkv.unbind(1)
    q, k = rms(own.attn.ln_q, q), rms(own.attn.ln_k, k)
    if own.pre_only:
        return _heads(q, k, v), None
    gate, shift2, scale2, gate2 = rest

    def mlp(y: Tensor) -> Tensor:
        return linear(own.mlp.fc2, F.gelu(linear(own.mlp.fc1, y), approximate="tanh"))

    return _heads(q, k, v), lambda o: _stream(x, linear(own.attn.proj, o), gate, shift2, scale2, gate2, mlp)


# -- Qwen-Image -------------------------------------------------------------------------------------------------------


def qwen_embed(model: Any, states: Tensor) -> Tensor:
    return linear(model.txt_in, rms(model.txt_norm, states))


def qwen_enter(model: Any, block: Any, given: Any, row: int, x: Tensor, columns: Sequence[int], latent: Any) -> Any:
    shift, scale, gate, shift2, scale2, gate2 = linear(block.txt_mod[1], F.silu(given["temb"][row].double())).chunk(6, -1)
    attn, s = block.attn, layer_norm(x) * (1 + scale) + shift
    q, k, v = (linear(m, s).unflatten(-1, (attn.heads, -1)) for m in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj))
    first = max(latent[-2:]) // 2 // 2  # half of the longer side, in patches of 2
    places = ids(columns, 3, (0, 1, 2), first)
    q, k = (turned(rms(n, y), places, [8, 12, 12], 10000) for n, y in ((attn.norm_added_q, q), (attn.norm_added_k, k)))

    def mlp(y: Tensor) -> Tensor:
        return linear(block.txt_mlp.net[2], F.gelu(linear(block.txt_mlp.net[0].proj, y), approximate="tanh"))

    return _heads(q, k, v), lambda o: _stream(x, linear(attn.to_add_out, o), gate, shift2, scale2, gate2, mlp)


# -- Lumina 2 and Z-Image ---------------------------------------------------------------------------------------------


def next_embed(model: Any, states: Tensor) -> Tensor:
    """Through the refiners, which attend to the caption and its own padding."""
    x = linear(model.cap_embedder[1], rms(model.cap_embedder[0], states, 1e-5))
    if getattr(model, "pad_tokens_multiple", None):
        missing = -len(x) % model.pad_tokens_multiple
        x = torch.cat([x, model.cap_pad_token.double().expand(missing, -1)])
    for block in model.context_refiner:
        (q, k, v), leave = next_enter(model, block, {}, 0, x, range(len(x)), ())
        o = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = leave(o.transpose(0, 1).flatten(1))
    return x[: len(states)]


def next_enter(model: Any, block: Any, given: Any, row: int, x: Tensor, columns: Sequence[int], latent: Any) -> Any:
    scale = scale2 = torch.zeros(()).double()
    gate = gate2 = torch.ones(()).double()
    if block.modulation:
        t, layers = given["adaln_input"][row].double(), list(block.adaLN_modulation)
        scale, gate, scale2, gate2 = linear(layers[-1], F.silu(t) if len(layers) == 2 else t).chunk(4, -1)
        gate, gate2 = gate.tanh(), gate2.tanh()
    attn, d = block.attention, block.attention.head_dim
    qkv = linear(attn.qkv, rms(block.attention_norm1, x, 1e-5) * (1 + scale)).unflatten(-1, (-1, d))
    q, k, v = qkv.split([attn.n_local_heads, attn.n_local_kv_heads, attn.n_local_kv_heads], 1)
    tiny = torch.finfo(torch.float32).eps
    places = ids(columns, 3, (0,), 1.0 if hasattr(type(model), "embed_cap") else 0.0)
    q, k = (turned(rms(n, y, tiny), places, model.axes_dims, 10000) for n, y in ((attn.q_norm, q), (attn.k_norm, k)))
    k, v = (y.repeat_interleave(attn.n_local_heads // attn.n_local_kv_heads, 1) for y in (k, v))

    def leave(o: Tensor) -> Tensor:
        y = x + gate * rms(block.attention_norm2, linear(attn.out, o), 1e-5)
        h = rms(block.ffn_norm1, y, 1e-5) * (1 + scale2)
        h = linear(block.feed_forward.w2, F.silu(linear(block.feed_forward.w1, h)) * linear(block.feed_forward.w3, h))
        return y + gate2 * rms(block.ffn_norm2, h, 1e-5)

    return _heads(q, k, v), leave


_FLUX = "double_blocks", flux_embed, flux_enter
_NEXT = "layers", next_embed, next_enter
WAYS: dict[str, Any] = {
    "Flux": _FLUX,
    "FluxSchnell": _FLUX,
    "Flux2": _FLUX,
    "LongCatImage": _FLUX,
    "Chroma": _FLUX,
    "SD3": ("joint_blocks", sd3_embed, sd3_enter),
    "QwenImage": ("transformer_blocks", qwen_embed, qwen_enter),
    "Lumina2": _NEXT,
    "ZImage": _NEXT,
}
