"""Routes attention calls of ComfyUI's models to the recording: which rows, queries and keys of a call are whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...daam_core.attention.output import heads_beside
from ...daam_core.capture.accumulator import Accumulator
from ...daam_core.capture.attention_call import AttentionCall, comfyui_output
from ...daam_core.capture.buffers import BatchSlice
from ...daam_core.capture.comfyui_concepts import ComfyUIConcepts
from ...daam_core.capture.counted_call import add_rows, check_batch, only_layout
from ...daam_core.capture.joint_rows import add_self, add_text
from ...daam_core.capture.layer_plan import LayerPlan
from ...daam_core.capture.picture_text import output_parts
from ...daam_core.capture.recording import Recording
from ...daam_core.capture.token_layout import RowLayout, TokenLayout
from ...daam_core.errors import NothingRecorded, UnsupportedModel
from ...daam_core.prompt.compose import concat, part_selection
from ...daam_core.types import Block, Grid
from .batch_rows import Conds, Side
from .concept_router import ConceptRouter
from .model_call import Call

_KNOWN = 64
"""So many different rows are remembered with what they are."""
_KNOWN_LAYERS = 512
"""So many layers of a UNet are remembered with their plans; SDXL has 70."""
_PLAIN = {"attn_precision", "transformer_options", "_inside_attn_wrapper"}
"""What ComfyUI's UNets name in a call of their attention beside queries, keys, values and heads."""
_BLOCKS: dict[str, Block] = {"input": "down", "middle": "mid", "output": "up"}


@dataclass(frozen=True, eq=False)
class _KnownLayer:
    """One cross-attention of a UNet that was recorded before: its plans, and what has to be the same for them to be used again.

    Attributes:
        path: its name.
        grid, heads: of its queries.
        batch, wanted: of the call, see `Call`.
        plans: of each of the wanted rows.
    """

    path: str
    grid: Grid
    heads: int
    batch: int
    wanted: list[tuple[Side, BatchSlice]]
    plans: list[LayerPlan]


def grid_of_block(block: Mapping[str, Any]) -> Grid:
    """The resolution that ComfyUI says a block of a UNet works at."""
    shape = block.get("activations_shape") or (0, 0)
    return int(shape[-2]), int(shape[-1])


class AttentionRouter:
    """Adds attention calls to a recording.

    Args:
        recording: gets a group for each side at its first attention.
        images: pictures of the batch.
        transformer: whether the model is one, and pads its text behind; a UNet's is repeated.
        concepts: takes what a UNet attends with, too; None where no concepts were asked for.
        block_concepts: the same for a transformer.
    """

    def __init__(
        self,
        recording: Recording,
        images: int,
        transformer: bool,
        concepts: ConceptRouter | None = None,
        block_concepts: ComfyUIConcepts | None = None,
    ) -> None:
        self._recording, self._images, self._transformer, self._concepts = recording, images, transformer, concepts
        self._block_concepts = block_concepts
        self._sides: dict[Side, Accumulator] = {}
        self._sources: dict[tuple[BatchSlice, RowLayout, int], BatchSlice] = {}
        self._known: dict[tuple[Any, Any], _KnownLayer] = {}
        self._picked: list[tuple[int, int, tuple[int, ...]]] = []  # (prompt, columns of the text, which of them are keys)

    def add_unet(self, conds: Conds, call: Call, block: Mapping[str, Any], own: bool, a: AttentionCall) -> bool:
        """One attention of a UNet: the picture's to itself where `own`, else to the text. Whether it was added.

        `block` is what ComfyUI tells its patches: "block" (name, number), "block_index", "activations_shape".
        """
        grid = grid_of_block(block)
        places = a.queries == grid[0] * grid[1]
        if own:  # where another node merges or cuts it, it is not the whole picture's
            if places and a.q.shape[0] == call.batch and call.own is not None and a.q.shape == a.k.shape and a.packed_heads:
                self._side("prompt", conds).add_self(grid, a.q, a.k, a.heads, a.scale, call.own)
                return True
            return False
        name, number = block.get("block") or ("middle", 0)
        index = block.get("block_index", 0)
        path = f"{name}_blocks.{number}.transformer_blocks.{index}"
        check_batch(a, call.batch, path)
        call.enter(path)
        if not places:
            raise NothingRecorded(
                f"another node changed the cross-attention of {path}: {a.queries} positions where the picture has "
                f"{grid[0]} x {grid[1]}. Record without that node"
            )
        layer = self._recording.layer((name, number, index), path, _BLOCKS.get(name, "mid"), a.heads, a.scale)
        call.attended = (layer, grid, a) if self._recording.keep.output else None
        if self._concepts is not None:
            prompt = [batch_slice for side, batch_slice in call.wanted if side == "prompt"]
            self._concepts.add(conds, call.context, prompt, (name, number, index), layer, grid, a)
        if a.bias is None and a.packed_heads:
            plans = [
                self._side(side, conds).add_cross(layer, grid, a.q, a.k, a.heads, a.scale, batch_slice)
                for side, batch_slice in call.wanted
            ]
            if call.attended is None and self._concepts is None and len(self._known) < _KNOWN_LAYERS:
                self._known[block.get("block"), index] = _KnownLayer(path, grid, a.heads, call.batch, call.wanted, plans)
            return True
        for side, batch_slice in call.wanted:
            part, keys = a.part(batch_slice.index, 0, a.queries, slice(0, a.keys))
            self._side(side, conds).add_joint(layer, grid, part.q, part.k, a.heads, a.scale, batch_slice, keys, part.bias)
        return True

    def add_known(
        self, call: Call, block: Mapping[str, Any], own: bool, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> bool:
        """`add_unet` by the plans of a layer that attended in the same way before, with the arguments of `optimized_attention`;
        False for any other: nothing was done.

        Raises:
            NothingRecorded: it attended in this call already.
        """
        if own or len(args) != 4 or not kwargs.keys() <= _PLAIN:
            return False
        known = self._known.get((block.get("block"), block.get("block_index", 0)))
        if known is None or known.batch != call.batch or known.wanted != call.wanted or args[3] != known.heads:
            return False
        q, k, grid = args[0], args[1], grid_of_block(block)
        if not all(plan.fits(grid, q, k) for plan in known.plans):
            return False
        call.enter(known.path)
        for plan in known.plans:
            plan.add(q, k)
        return True

    def add_unet_output(self, conds: Conds, call: Call, a: AttentionCall, layer: int, grid: Grid) -> None:
        """What the attention of a UNet to the text gave out; whatever goes wrong ends the output and not the words."""
        self._recording.or_without_outputs(self._add_unet_output, conds, call, a, layer, grid)

    def _add_unet_output(self, conds: Conds, call: Call, a: AttentionCall, layer: int, grid: Grid) -> None:
        if a.v is None or a.output is None:
            raise UnsupportedModel("an attention of this model did not give out one tensor with a row for each query")
        output, values = heads_beside(a.output), heads_beside(a.v)
        for side, batch_slice in call.wanted:
            rows = batch_slice.index
            self._side(side, conds).add_output(layer, grid, output[rows], values[rows], batch_slice)

    def add_transformer(self, conds: Conds, call: Call, options: Mapping[str, Any], a: AttentionCall) -> int | None:
        """One attention of a transformer, if the text is among its keys: its number, None where it is not. `options` is what
        ComfyUI tells of it, as far as it does."""
        layout = call.layout
        assert layout is not None
        assert call.counted is not None
        found = call.counted.take(a, options)
        if found is None:
            return None
        number, rows = found
        layer = self._recording.layer(number, f"attention.{number}", "mid", a.heads, a.scale)
        if self._block_concepts is not None:
            self._block_concepts.attention(layer, a, rows)
        for side, batch_slice in call.wanted:
            row = only_layout(rows[batch_slice.index])
            source = self._source(batch_slice, row, layout.columns)
            into = self._side(side, conds)
            add_rows(into, layer, layout, row, source, a, call.whole_video)
            if into.outputs is not None:
                self._recording.or_without_outputs(_add_output, into, layer, layout, row, source, a)
            if not (call.whole_video and batch_slice.area.whole):
                continue
            if batch_slice is call.own and into.wants_joint_self(layer):
                add_self(into, layout, row, batch_slice.index, a)
            if into.relations.wanted:
                add_text(into, layout, row, source, a)
        return number

    def _source(self, batch_slice: BatchSlice, row: RowLayout, columns: int) -> BatchSlice:
        """What the accumulator is to select by, for the columns that the text keys of a row are."""
        key = (batch_slice, row, columns)
        if key not in self._sources:
            if len(self._sources) >= _KNOWN:  # layouts are made anew where a mask is
                self._sources.clear()
            picked = batch_slice.part, columns, tuple(row.columns)
            if picked not in self._picked:
                self._picked.append(picked)
            self._sources[key] = replace(batch_slice, part=self._picked.index(picked))
        return self._sources[key]

    def finish_call(self, call: Call) -> None:
        """A call of the model is over.

        Raises:
            NothingRecorded: its attentions ran, and not as many had text among their keys as there should be.
        """
        if call.counted is not None:
            call.counted.finish()

    def _side(self, side: Side, conds: Conds) -> Accumulator:
        accumulator = self._sides.get(side)
        if accumulator is None:
            select = part_selection(conds.prompts[side], pad=self._transformer)

            def of_images(keys: int, part: int) -> Tensor:
                if not self._transformer:
                    return select(keys, part).expand(self._images, -1, -1)
                own, columns, picked = self._picked[part]
                whole = F.pad(select(columns, own), (0, 0, 0, 1))  # the last row is that of keys which are no column
                return whole[list(picked)].expand(self._images, -1, -1)

            prompts = [concat(conds.prompts[side])] * self._images
            accumulator = self._recording.add_group(side, range(self._images), prompts, of_images).accumulator
            self._sides[side] = accumulator
        return accumulator

    def clear(self) -> None:
        """Let go of everything."""
        self._sides.clear()
        self._known.clear()
        self._sources.clear()
        if self._concepts is not None:
            self._concepts.clear()


def _add_output(
    into: Accumulator, layer: int, layout: TokenLayout, row: RowLayout, source: BatchSlice, a: AttentionCall
) -> None:
    keys = slice(row.text, row.text + len(row.columns))
    picture, values = output_parts(layout, row, source.index, keys, a)
    into.add_output(layer, layout.patches[1:], picture, values, source)


def with_output(call: AttentionCall, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> AttentionCall:
    """A call with what it gave out; without, where that cannot be read: words need none of it."""
    try:
        return comfyui_output(call, args, kwargs, output)
    except Exception:  # its readers say that it is missing
        return call
