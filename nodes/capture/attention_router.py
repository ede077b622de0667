"""What one run has heard so far: accumulators for the prompt and the negative prompt, and the layers that spoke.

Here an attention call becomes a share of Eq. 6: which of its rows, queries and keys are whose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...daam_core.capture.accumulator import Accumulator
from ...daam_core.capture.attention_call import Attention
from ...daam_core.capture.buffers import BatchSlice, StoreOptions
from ...daam_core.capture.extraction import recorded_image
from ...daam_core.capture.families import Layout
from ...daam_core.errors import NothingRecorded
from ...daam_core.maps.heatmaps import HeatMaps
from ...daam_core.prompt.compose import concat, part_selection
from ...daam_core.types import Block, Grid, Layer
from .batch_rows import SIDES, Conds, Row, Side

_BLOCKS: dict[str, Block] = {"input": "down", "middle": "mid", "output": "up"}


@dataclass
class Call:
    """One call of the diffusion model.

    Attributes:
        batch: rows of its batch.
        wanted: whose rows are heard, and where in the batch they stand.
        own: the rows whose attention to itself is the whole picture's, None where there are none.
        shape: of its latent, `[batch, c, …, h, w]`.
        context: columns of its text, 0 where it has none.
        attentions: attention calls so far (transformers say nothing about theirs).
    """

    batch: int
    wanted: list[tuple[Side, BatchSlice]]
    own: BatchSlice | None
    shape: tuple[int, ...]
    context: int
    attentions: int = field(default=0, init=False)


def own_slice(rows: Sequence[Row | None], slices: Sequence[BatchSlice]) -> BatchSlice | None:
    """The first rows that are the prompt on the whole picture."""
    for row, batch_slice in zip(rows, slices, strict=True):
        if row is not None and row.side == "prompt" and row.area.whole:
            return batch_slice if row.part == 0 else None
    return None


def _grid(block: Mapping[str, Any]) -> Grid:
    """The resolution that ComfyUI says a block works at."""
    shape = block.get("activations_shape") or (0, 0)
    return int(shape[-2]), int(shape[-1])


class AttentionRouter:
    """AttentionRouter what attention calls say.

    Args:
        keep: what to keep apart.
        images: pictures of the batch.
        layout: the transformer's layout, None for a UNet.
    """

    def __init__(self, keep: StoreOptions, images: int, layout: Layout | None) -> None:
        self._keep, self._images, self._layout = keep, images, layout
        self._accumulators: dict[Side, Accumulator] = {}
        self._layers: dict[Any, int] = {}
        self._described: list[Layer] = []

    @property
    def keeps_self_attention(self) -> bool:
        """Whether the picture's attention to itself is kept in this step."""
        accumulator = self._accumulators.get("prompt")
        return self._keep.self_attention if accumulator is None else accumulator.keeps_self_attention

    def wants_self(self, block: Mapping[str, Any]) -> bool:
        """The same of the layer of `block`."""
        accumulator = self._accumulators.get("prompt")
        return self._keep.self_attention if accumulator is None else accumulator.wants_self(_grid(block))

    def end_step(self) -> None:
        """A step is over."""
        for accumulator in self._accumulators.values():
            accumulator.end_step()

    def add_unet(self, conds: Conds, call: Call, block: Mapping[str, Any], own: bool, a: Attention) -> None:
        """One attention of a UNet: the picture's to itself where `own`, else to the text.

        `block` is what ComfyUI tells its patches: "block" (name, number), "block_index", "activations_shape".
        """
        grid = _grid(block)
        fits = a.q.shape[0] == call.batch and a.q.shape[-2] == grid[0] * grid[1]
        if own:  # where another node merges or cuts it, it is not the whole picture's
            if fits and call.own is not None and a.q.shape == a.k.shape and not a.split:
                self._side("prompt", conds).add_self(grid, a.q, a.k, a.heads, a.scale, call.own)
            return
        key = (block.get("block"), block.get("block_index", 0))
        layer = self._layers.get(key)
        if layer is None:
            layer = self._unet_layer(key, a)
        if not fits:
            raise NothingRecorded(
                f"Another node changed the cross-attention of {self._described[layer].name}: {a.queries} positions where the "
                f"picture has {grid[0]} x {grid[1]}. Record without that node."
            )
        if a.bias is None and not a.split:
            for side, batch_slice in call.wanted:
                self._side(side, conds).add_cross(layer, grid, a.q, a.k, a.heads, a.scale, batch_slice)
            return
        for side, batch_slice in call.wanted:
            part = a.select(batch_slice.start, batch_slice.stop, 0, a.queries)
            whole = slice(0, a.keys)
            self._side(side, conds).add_joint(layer, grid, part.q, part.k, a.heads, a.scale, batch_slice, whole, part.bias)

    def add_transformer(self, conds: Conds, call: Call, layout: Layout, a: Attention, lse: Tensor | None) -> None:
        """One attention of a transformer; `lse` as in `attention.add_joint`, of the whole batch and all queries."""
        frames, grid = layout.grid(call.shape)
        picture = frames * grid[0] * grid[1]
        call.attentions += 1
        if layout.joint:
            if a.queries != a.keys or a.keys <= picture or call.attentions <= layout.refiners:
                return  # text or picture alone
            text, first = layout.text(call.context, a.keys, picture)
        else:
            own = a.queries == a.keys and (a.keys != call.context or call.attentions % 2 == 1)
            if own or a.keys != call.context or a.queries < picture:
                return
            text, first = a.keys, 0
        if a.q.shape[0] != call.batch:
            raise NothingRecorded("Another node changed the batch inside the model. Record without that node.")
        number = call.attentions - 1
        layer = self._layers.get(number)
        if layer is None:
            layer = self._new_layer(number, f"attention.{number}", "mid", a)
        places = grid[0] * grid[1]
        for side, batch_slice in call.wanted:
            for frame in range(frames):
                at = first + frame * places
                part = a.select(batch_slice.start, batch_slice.stop, at, places)
                own_lse = None if lse is None else lse[batch_slice.start : batch_slice.stop, :, at : at + places]
                self._side(side, conds).add_joint(
                    layer, grid, part.q, part.k, a.heads, a.scale, batch_slice, slice(0, text), part.bias, own_lse
                )

    def _unet_layer(self, key: tuple[Any, Any], a: Attention) -> int:
        name, number = key[0] or ("middle", 0)
        return self._new_layer(key, f"{name}_blocks.{number}.transformer_blocks.{key[1]}", _BLOCKS.get(name, "mid"), a)

    def _new_layer(self, key: Any, name: str, block: Block, a: Attention) -> int:
        self._layers[key] = len(self._described)
        self._described.append(Layer(name, block, a.heads, a.scale))
        return self._layers[key]

    def _side(self, side: Side, conds: Conds) -> Accumulator:
        accumulator = self._accumulators.get(side)
        if accumulator is None:
            select = part_selection(conds.prompts[side], pad=self._layout is not None)

            def of_images(keys: int, part: int) -> Tensor:
                return select(keys, part).expand(self._images, -1, -1)

            accumulator = self._accumulators[side] = Accumulator(slice(0, self._images), of_images, self._keep)
        return accumulator

    def clear(self) -> None:
        """Let go of everything."""
        self._accumulators.clear()

    def heat_maps(self, conds: Conds, size: Grid, sigmas: Sequence[Tensor]) -> list[HeatMaps] | None:
        """The maps of every picture of the batch, of (height, width) `size`, on the CPU; None if nothing was heard."""
        if not self._accumulators:
            return None
        for accumulator in self._accumulators.values():
            accumulator.release()
        times = torch.stack([s.flatten()[0] for s in sigmas]).tolist()
        sides = {side: self._pictures(side, conds, size, times) for side in SIDES if side in self._accumulators}
        prompts = sides.get("prompt") or sides["negative"]
        negatives = sides.get("negative")
        return [m.with_negative(negatives[i]) if negatives else m for i, m in enumerate(prompts)]

    def _pictures(self, side: Side, conds: Conds, size: Grid, times: list[float]) -> list[HeatMaps]:
        prompts = [concat(conds.prompts[side])] * self._images
        return [
            HeatMaps({"prompt": recorded_image(self._accumulators[side], self._described, prompts, i, times)}, size)
            for i in range(self._images)
        ]
