"""Routes attention calls of ComfyUI's models to the recording: which rows, queries and keys of a call are whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...daam_core.capture.accumulator import Accumulator
from ...daam_core.capture.attention_call import Attention
from ...daam_core.capture.buffers import BatchSlice
from ...daam_core.capture.comfyui_layouts import TokenLayout
from ...daam_core.capture.recording import Recording
from ...daam_core.errors import NothingRecorded
from ...daam_core.prompt.compose import concat, part_selection
from ...daam_core.types import Block, Grid
from .batch_rows import Conds, Row, Side

_BLOCKS: dict[str, Block] = {"input": "down", "middle": "mid", "output": "up"}


@dataclass
class Call:
    """One call of the diffusion model.

    Attributes:
        batch: rows of its batch.
        wanted: whose rows are recorded, and where in the batch they stand.
        own: the rows whose attention to itself is the whole picture's, None where there are none.
        layout: where text and picture stand in a transformer, None for a UNet.
        context: the text it was given, `[batch, columns, d]`.
        proved: the text at a layer that was last held against it.
        attentions: attention calls so far.
        texts: those that had the text among their keys.
        other: sizes of those that had not.
        in_a_row: how many of the last calls were the text's, one after the other.
    """

    batch: int
    wanted: list[tuple[Side, BatchSlice]]
    own: BatchSlice | None
    layout: TokenLayout | None = None
    context: Tensor | None = None
    proved: Tensor | None = field(default=None, init=False)
    attentions: int = field(default=0, init=False)
    texts: int = field(default=0, init=False)
    other: set[tuple[int, int]] = field(default_factory=set, init=False)
    in_a_row: int = field(default=0, init=False)


def own_slice(rows: Sequence[Row | None], slices: Sequence[BatchSlice]) -> BatchSlice | None:
    """The first rows that are the prompt on the whole picture."""
    for row, batch_slice in zip(rows, slices, strict=True):
        if row is not None and row.side == "prompt" and row.area.whole:
            return batch_slice if row.part == 0 else None
    return None


def grid_of_block(block: Mapping[str, Any]) -> Grid:
    """The resolution that ComfyUI says a block of a UNet works at."""
    shape = block.get("activations_shape") or (0, 0)
    return int(shape[-2]), int(shape[-1])


class AttentionRouter:
    """Adds attention calls to a recording.

    Args:
        recording: gets a group for each side at its first attention.
        images: pictures of the batch.
        pad: whether the model pads its text behind (transformers); a UNet's is repeated.
    """

    def __init__(self, recording: Recording, images: int, pad: bool) -> None:
        self._recording, self._images, self._pad = recording, images, pad
        self._sides: dict[Side, Accumulator] = {}

    def add_unet(self, conds: Conds, call: Call, block: Mapping[str, Any], own: bool, a: Attention) -> None:
        """One attention of a UNet: the picture's to itself where `own`, else to the text.

        `block` is what ComfyUI tells its patches: "block" (name, number), "block_index", "activations_shape".
        """
        grid = grid_of_block(block)
        places = a.queries == grid[0] * grid[1]
        if own:  # where another node merges or cuts it, it is not the whole picture's
            if places and a.q.shape[0] == call.batch and call.own is not None and a.q.shape == a.k.shape and not a.split:
                self._side("prompt", conds).add_self(grid, a.q, a.k, a.heads, a.scale, call.own)
            return
        name, number = block.get("block") or ("middle", 0)
        index = block.get("block_index", 0)
        path = f"{name}_blocks.{number}.transformer_blocks.{index}"
        _check_batch(a, call, path)
        if not places:
            raise NothingRecorded(
                f"another node changed the cross-attention of {path}: {a.queries} positions where the picture has "
                f"{grid[0]} x {grid[1]}. Record without that node"
            )
        call.texts += 1
        layer = self._recording.layer((name, number, index), path, _BLOCKS.get(name, "mid"), a.heads, a.scale)
        if a.bias is None and not a.split:
            for side, batch_slice in call.wanted:
                self._side(side, conds).add_cross(layer, grid, a.q, a.k, a.heads, a.scale, batch_slice)
            return
        for side, batch_slice in call.wanted:
            part = a.select(batch_slice.start, batch_slice.stop, 0, a.queries)
            whole = slice(0, a.keys)
            self._side(side, conds).add_joint(layer, grid, part.q, part.k, a.heads, a.scale, batch_slice, whole, part.bias)

    def add_transformer(self, conds: Conds, call: Call, options: Mapping[str, Any], a: Attention, lse: Tensor | None) -> None:
        """One attention of a transformer, if the text is among its keys.

        Args:
            options: what ComfyUI tells of it, as far as it does.
            lse: as in `attention.add_joint`, of the whole batch and all queries.
        """
        layout = call.layout
        assert layout is not None
        call.attentions += 1
        if not self._has_text(call, layout, a):
            call.other.add((a.queries, a.keys))
            call.in_a_row = 0
            return
        layout.check_host(options)
        number = call.attentions - 1
        _check_batch(a, call, f"attention {number}")
        call.in_a_row += 1
        if not layout.joint and call.in_a_row > layout.repeats:
            raise NothingRecorded(
                "another node makes the model attend to a second text beside the prompt (NAG does), and the two cannot be told "
                "apart. Record without that node"
            )
        call.texts += 1
        layer = self._recording.layer(number, f"attention.{number}", "mid", a.heads, a.scale)
        places = layout.grid[0] * layout.grid[1]
        for side, batch_slice in call.wanted:
            for frame in range(layout.frames):
                at = layout.first + frame * places
                part = a.select(batch_slice.start, batch_slice.stop, at, places)
                own_lse = None if lse is None else lse[batch_slice.start : batch_slice.stop, :, at : at + places]
                self._side(side, conds).add_joint(
                    layer, layout.grid, part.q, part.k, a.heads, a.scale, batch_slice, layout.text, part.bias, own_lse
                )

    def _has_text(self, call: Call, layout: TokenLayout, a: Attention) -> bool:
        if not layout.has_text(a.queries, a.keys):
            return False
        # As many columns of text as patches: of each block's attentions, the first is the picture's to itself.
        return layout.sizes not in layout.silent or layout.joint or call.attentions % (1 + layout.repeats) != 1

    def finish_call(self, call: Call) -> None:
        """A call of the model is over.

        Raises:
            NothingRecorded: its attentions ran, and not as many had text among their keys as there should be.
        """
        layout = call.layout
        if layout is None or not call.attentions:
            return
        if not call.texts:
            raise NothingRecorded(
                f"no attention of the model has text among its keys: by what it was given there would be {layout.sizes[0]} "
                f"queries on {layout.sizes[1]} keys, and there were {_listed(call.other)}. Another node changes how this model "
                "attends. Record without that node"
            )
        if not layout.joint and layout.sizes in layout.silent and call.attentions != (1 + layout.repeats) * layout.blocks:
            raise NothingRecorded(
                f"this text has as many columns as the picture has patches, {layout.sizes[0]}, and {call.attentions} "
                f"attentions in {layout.blocks} blocks do not tell which is which. Record at another size"
            )

    def _side(self, side: Side, conds: Conds) -> Accumulator:
        accumulator = self._sides.get(side)
        if accumulator is None:
            select = part_selection(conds.prompts[side], pad=self._pad)

            def of_images(keys: int, part: int) -> Tensor:
                return select(keys, part).expand(self._images, -1, -1)

            prompts = [concat(conds.prompts[side])] * self._images
            accumulator = self._recording.add_group(side, range(self._images), prompts, of_images).accumulator
            self._sides[side] = accumulator
        return accumulator

    def clear(self) -> None:
        """Let go of everything."""
        self._sides.clear()


def _check_batch(a: Attention, call: Call, where: str) -> None:
    if a.q.shape[0] != call.batch:
        raise NothingRecorded(
            f"another node changes the batch inside the model: {a.q.shape[0]} rows at {where}, and the model was given "
            f"{call.batch} (attention couple, regional prompts and NAG do so). Record without that node"
        )


def _listed(sizes: set[tuple[int, int]]) -> str:
    shown = [f"{n} on {keys}" for n, keys in sorted(sizes)[:4]]
    return ", ".join(shown) + (", …" if len(sizes) > 4 else "")
