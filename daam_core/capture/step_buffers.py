"""What is kept of a step until it ends, and the sums that it goes into then."""

from __future__ import annotations

import torch
from torch import Tensor

from ..maps.frames import Frames
from ..types import Grid
from .buffers import GridSums, StepBuffer, StoreOptions
from .region import Area


class StepBuffers:
    """The buffers of one side, made when their layers first attend.

    Args:
        images: pictures of the side.
        keep: what to keep apart.

    Attributes:
        sums: of all finished steps, by resolution and area.
        buffers: of the present step, by resolution, or by layer where layers are kept apart, and area.
        grids: (h, w) of the layers that attended, by their numbers.
        heads: where heads are kept apart, their sums `[images * heads, n, channels]`, by layer, resolution and area.
    """

    def __init__(self, images: int, keep: StoreOptions) -> None:
        self._images, self._keep = images, keep
        self.sums: dict[tuple[Grid, Area], GridSums] = {}
        self.buffers: dict[tuple[Grid | int, Area], StepBuffer] = {}
        self.grids: dict[int, Grid] = {}
        self.heads: dict[tuple[int, Grid, Area], Tensor] = {}

    def buffer(
        self, layer: int, grid: Grid, area: Area, selection: Tensor, steps: int, frames: Frames | None = None
    ) -> StepBuffer:
        """Where a layer's attention of the present step goes.

        Args:
            selection: `[images, keys, channels]`.
            steps: how many steps are over.
            frames: of a video, those that are kept apart.
        """
        self.grids.setdefault(layer, area.canvas(grid))
        key: tuple[Grid | int, Area] = (layer if self._keep.layers else grid, area)
        if key not in self.buffers:
            kept = 1 if frames is None else len(frames)
            shape = (self._images, kept * grid[0] * grid[1], selection.shape[-1])
            if (grid, area) not in self.sums:
                sums = torch.zeros(2, *shape, device=selection.device)
                self.sums[grid, area] = GridSums(grid, area, sums, frames=frames)
            now = torch.zeros(shape, device=selection.device)
            own = torch.zeros_like(now) if self._keep.layers and not self._keep.steps else None
            buffer = StepBuffer(grid, area, layer if self._keep.layers else None, now, self.sums[grid, area], own)
            if self._keep.steps:  # a prompt that comes in late was not there before
                buffer.steps = [_over_frames(now[..., 1:-2], frames).half()] * steps
            self.buffers[key] = buffer
        return self.buffers[key]

    def per_head(self, layer: int, heads: int, grid: Grid, area: Area, selection: Tensor) -> Tensor:
        """The running sums of a layer's heads apart, `[images * heads, n, channels]`."""
        key = layer, grid, area
        if key not in self.heads:
            shape = self._images * heads, grid[0] * grid[1], selection.shape[-1]
            self.heads[key] = torch.zeros(shape, device=selection.device)
        return self.heads[key]

    def end_step(self, number: int) -> None:
        """Step `number` (from 1) is over: fold it into the sums."""
        for buffer in self.buffers.values():
            buffer.into.num_terms, buffer.step_terms = buffer.into.num_terms + buffer.step_terms, 0
            if buffer.total is not None:
                buffer.total += buffer.now
            if self._keep.steps:
                # Channels 1..-2 are the words: the detail of start, end and padding would cost a fifth more memory.
                buffer.steps.append(_over_frames(buffer.now[..., 1:-2], buffer.into.frames).half())
        dirty = [buffer for buffer in self.buffers.values() if buffer.dirty]
        # Where layers are kept apart, several buffers go into the same sums, which one launch must not do.
        for buffers in filter(None, [[buffer] for buffer in dirty] if self._keep.layers else [dirty]):
            now = [buffer.now for buffer in buffers]
            torch._foreach_add_([buffer.into.total for buffer in buffers], now)
            torch._foreach_add_([buffer.into.time_weighted for buffer in buffers], now, alpha=number**2)
            torch._foreach_zero_(now)
        for buffer in dirty:
            buffer.dirty = False

    def release(self) -> None:
        """Give back what only a running sampler needs."""
        for buffer in self.buffers.values():
            buffer.now = buffer.now.new_empty(0)


def _over_frames(maps: Tensor, frames: Frames | None) -> Tensor:
    """`[images, frames * n, channels]` summed over the frames, `[images, n, channels]`."""
    return maps if frames is None else maps.unflatten(1, (len(frames), -1)).sum(1)
