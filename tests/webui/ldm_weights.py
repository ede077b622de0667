"""Random weights under the names of Stable Diffusion's own checkpoints, of any width: what a WebUI loads, in seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a Stable Diffusion 1: UNet channels and levels, text encoder, autoencoder channels.

    Attributes:
        depths: transformer blocks at each level; none is one at each.
        linear: projections around them are linear layers, as in 2 and XL.
        vector: width of XL's numbers for original size, crop and target size; 0 is no XL.
    """

    channels: int = 32
    levels: tuple[int, ...] = (1, 2)
    depths: tuple[int, ...] = ()
    linear: bool = False
    vector: int = 0
    blocks: int = 1
    context: int = 64
    text_layers: int = 2
    vocabulary: int = 1000
    vae: tuple[int, ...] = (32, 32, 32, 32)
    vae_blocks: int = 1


def checkpoint(sizes: Sizes, seed: int = 0) -> dict[str, Tensor]:
    """float32 weights of UNet, autoencoder and text encoder; nothing in them is zero, so attention shows in the picture."""
    return random_weights(_named_shapes(sizes), seed)


def random_weights(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """float32 weights of these names and shapes."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _values(name, shape, generator) for name, shape in shapes.items()}


def _named_shapes(sizes: Sizes) -> Shapes:
    shapes = {f"model.diffusion_model.{k}": v for k, v in unet_shapes(sizes).items()}
    shapes |= {f"first_stage_model.{k}": v for k, v in vae_shapes(sizes.vae, sizes.vae_blocks).items()}
    return shapes | {f"cond_stage_model.transformer.text_model.{k}": v for k, v in clip_shapes(sizes).items()}


def strided_checkpoint(sizes: Sizes, seed: int = 0) -> dict[str, Tensor]:
    """As `checkpoint`, of any size, see `strided_weights`."""
    return strided_weights(_named_shapes(sizes), seed)


def strided_weights(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """As `random_weights`: every weight is a view over a small bank of numbers, so a file stays small."""
    generator = torch.Generator().manual_seed(seed)
    banks: dict[float, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if len(shape) < 2:
            weights[name] = _values(name, shape, generator)
            continue
        row = max(1, math.prod(shape[1:]))
        scale = _scale(name, shape)
        if scale not in banks:
            banks[scale] = torch.randn(2**20, generator=generator) * scale
        # Rows overlap, one starting a little behind the other; the last one still ends inside the bank.
        step = max(1, min(row, (2**20 - row) // shape[0]))
        inner = [math.prod(shape[i + 1 :]) for i in range(1, len(shape))]
        weights[name] = torch.as_strided(banks[scale], shape, (step, *inner))
    return weights


def _values(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if len(shape) < 2:
        # Biases above 0: A1111 divides by the mean of the encoded prompt, which is 0 behind a plain layer norm.
        return torch.ones(shape) if name.endswith("weight") else torch.rand(shape, generator=generator) / 5
    return torch.randn(shape, generator=generator) * _scale(name, shape)


def _scale(name: str, shape: tuple[int, ...]) -> float:
    scale = 1.0 if "embedding" in name else 1.6 * max(1, math.prod(shape[1:])) ** -0.5
    if name.endswith("out.2.weight"):
        return scale / 4  # a random model with guidance must not run away from step to step
    # Sharp attention: a flat one would make every heat map alike.
    return scale * 3 if ".to_q." in name or ".to_k." in name else scale


def unet_shapes(s: Sizes) -> Shapes:
    """Names and shapes of the UNet."""
    ch, emb = s.channels, 4 * s.channels
    depths = s.depths or (1,) * len(s.levels)
    shapes = {**_linear("time_embed.0", emb, ch), **_linear("time_embed.2", emb, emb), **_conv("input_blocks.0.0", ch, 4)}
    if s.vector:
        shapes |= {**_linear("label_emb.0.0", emb, s.vector), **_linear("label_emb.0.2", emb, emb)}
    widths, width, number = [ch], ch, 1
    for level, factor in enumerate(s.levels):
        for _ in range(s.blocks):
            shapes |= _res(f"input_blocks.{number}.0", width, ch * factor, emb)
            width = ch * factor
            shapes |= _transformer(f"input_blocks.{number}.1", width, s, depths[level])
            widths.append(width)
            number += 1
        if level < len(s.levels) - 1:
            shapes |= _conv(f"input_blocks.{number}.0.op", width, width)
            widths.append(width)
            number += 1
    shapes |= _res("middle_block.0", width, width, emb)
    shapes |= _transformer("middle_block.1", width, s, depths[-1])
    shapes |= _res("middle_block.2", width, width, emb)
    number = 0
    for level, factor in reversed(list(enumerate(s.levels))):
        for block in range(s.blocks + 1):
            shapes |= _res(f"output_blocks.{number}.0", width + widths.pop(), ch * factor, emb)
            width = ch * factor
            shapes |= _transformer(f"output_blocks.{number}.1", width, s, depths[level])
            if level and block == s.blocks:
                shapes |= _conv(f"output_blocks.{number}.2.conv", width, width)
            number += 1
    return {**shapes, **_norm("out.0", width), **_conv("out.2", 4, width)}


def vae_shapes(widths: Sequence[int], blocks: int) -> Shapes:
    """Names and shapes of the autoencoder; as many levels as there are widths."""
    shapes: Shapes = {**_conv("quant_conv", 8, 8, 1), **_conv("post_quant_conv", 4, 4, 1)}
    shapes |= {f"encoder.{k}": v for k, v in _encoder(widths, blocks)}
    shapes |= {f"decoder.{k}": v for k, v in _decoder(widths, blocks)}
    return shapes


def _encoder(widths: Sequence[int], blocks: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _conv("conv_in", widths[0], 3).items()
    width = widths[0]
    for level, own in enumerate(widths):
        for block in range(blocks):
            yield from _vae_block(f"down.{level}.block.{block}", width, own).items()
            width = own
        if level < len(widths) - 1:
            yield from _conv(f"down.{level}.downsample.conv", width, width).items()
    yield from _vae_mid(width).items()
    yield from {**_norm("norm_out", width), **_conv("conv_out", 8, width)}.items()


def _decoder(widths: Sequence[int], blocks: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = widths[-1]
    yield from _conv("conv_in", width, 4).items()
    yield from _vae_mid(width).items()
    for level, own in reversed(list(enumerate(widths))):
        for block in range(blocks + 1):
            yield from _vae_block(f"up.{level}.block.{block}", width, own).items()
            width = own
        if level:
            yield from _conv(f"up.{level}.upsample.conv", width, width).items()
    yield from {**_norm("norm_out", width), **_conv("conv_out", 3, width)}.items()


def clip_shapes(s: Sizes) -> Shapes:
    """Names and shapes of the text encoder, feed-forward four times as wide."""
    d = s.context
    shapes: Shapes = {
        "embeddings.token_embedding.weight": (s.vocabulary, d),
        "embeddings.position_embedding.weight": (77, d),
        **_norm("final_layer_norm", d),
    }
    for layer in range(s.text_layers):
        at = f"encoder.layers.{layer}"
        for part in "qkv":
            shapes |= _linear(f"{at}.self_attn.{part}_proj", d, d)
        shapes |= _linear(f"{at}.self_attn.out_proj", d, d)
        shapes |= {**_norm(f"{at}.layer_norm1", d), **_norm(f"{at}.layer_norm2", d)}
        shapes |= {**_linear(f"{at}.mlp.fc1", 4 * d, d), **_linear(f"{at}.mlp.fc2", d, 4 * d)}
    return shapes


# -- parts -----------------------------------------------------------------------------------------------------------


def _linear(name: str, out: int, into: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (out, into), **({f"{name}.bias": (out,)} if bias else {})}


def _conv(name: str, out: int, into: int, side: int = 3) -> Shapes:
    return {f"{name}.weight": (out, into, side, side), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _res(name: str, into: int, out: int, emb: int) -> Shapes:
    shapes = {**_norm(f"{name}.in_layers.0", into), **_conv(f"{name}.in_layers.2", out, into)}
    shapes |= {**_linear(f"{name}.emb_layers.1", out, emb), **_norm(f"{name}.out_layers.0", out)}
    shapes |= _conv(f"{name}.out_layers.3", out, out)
    return shapes if into == out else {**shapes, **_conv(f"{name}.skip_connection", out, into, 1)}


def _transformer(name: str, width: int, s: Sizes, depth: int) -> Shapes:
    if not depth:
        return {}
    shapes = _norm(f"{name}.norm", width)
    for part in ("proj_in", "proj_out"):
        shapes |= _linear(f"{name}.{part}", width, width) if s.linear else _conv(f"{name}.{part}", width, width, 1)
    for number in range(depth):
        shapes |= _transformer_block(f"{name}.transformer_blocks.{number}", width, s.context)
    return shapes


def _transformer_block(name: str, width: int, context: int) -> Shapes:
    shapes: Shapes = {}
    for attention, keys in (("attn1", width), ("attn2", context)):
        shapes |= _linear(f"{name}.{attention}.to_q", width, width, bias=False)
        shapes |= _linear(f"{name}.{attention}.to_k", width, keys, bias=False)
        shapes |= _linear(f"{name}.{attention}.to_v", width, keys, bias=False)
        shapes |= _linear(f"{name}.{attention}.to_out.0", width, width)
    for number in (1, 2, 3):
        shapes |= _norm(f"{name}.norm{number}", width)
    return {**shapes, **_linear(f"{name}.ff.net.0.proj", 8 * width, width), **_linear(f"{name}.ff.net.2", width, 4 * width)}


def _vae_block(name: str, into: int, out: int) -> Shapes:
    shapes = {**_norm(f"{name}.norm1", into), **_conv(f"{name}.conv1", out, into)}
    shapes |= {**_norm(f"{name}.norm2", out), **_conv(f"{name}.conv2", out, out)}
    return shapes if into == out else {**shapes, **_conv(f"{name}.nin_shortcut", out, into, 1)}


def _vae_mid(width: int) -> Shapes:
    shapes = {**_vae_block("mid.block_1", width, width), **_vae_block("mid.block_2", width, width)}
    shapes |= _norm("mid.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= _conv(f"mid.attn_1.{part}", width, width, 1)
    return shapes
