"""Attention of a UNet that paints one picture in several views, each a window of it: a panorama.

The windows of a step overlap, and the picture is the mean of what was painted in each. So are the maps: at every place the
mean over the views that have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import BadArgument, UnsupportedModel
from ..types import Grid, Side
from .buffers import BatchSlice
from .recording import Group
from .region import Area
from .unet_forward import UNetInputs, same_time
from .unet_recording import UNetRecording

MOST_VIEWS = 256
"""Each view has sums of its own: at 64 x 64 latents and 20 words about a megabyte."""


@dataclass(frozen=True, eq=False)
class View(Area):
    """One window of a picture whose latents have the size `total`; `rows` and `columns` are the latents that it shows.

    Attributes:
        columns: go on at the left edge where a round panorama was cut open.
        covered: float `[H, W]`, how many views show each of the latents.
    """

    total: Grid = (1, 1)
    rows: range = range(1)
    columns: range = range(1)
    covered: Tensor | None = None

    @property
    def whole(self) -> bool:
        return False

    def canvas(self, grid: Grid) -> Grid:
        """The grid of the whole picture at the density of `grid` in the window.

        Raises:
            UnsupportedModel: the windows do not begin and end between two of its positions.
        """
        window = len(self.rows), len(self.columns)
        factors = [size // positions for size, positions in zip(window, grid, strict=True)]
        ends = (*window, *self.total, self.rows.start, self.columns.start)
        if 0 in factors or any(end % factors[axis % 2] for axis, end in enumerate(ends)):
            raise UnsupportedModel(
                f"the picture is painted in views of {window[1]} x {window[0]} latents at ({self.columns.start}, "
                f"{self.rows.start}) of {self.total[1]} x {self.total[0]}, where a layer has {grid[1]} x {grid[0]} positions: "
                "they do not fall on each other. Choose a height and width that are multiples of 64"
            )
        return self.total[0] // factors[0], self.total[1] // factors[1]

    def put(self, maps: Tensor, picture: int = 0) -> Tensor:
        """Maps `[..., h, w]` of the window -> their share of the mean, `[..., H, W]` of the whole picture, 0 elsewhere;
        alike for every picture."""
        h, w = maps.shape[-2:]
        height, width = self.canvas((h, w))
        step_y, step_x = len(self.rows) // h, len(self.columns) // w
        y = torch.arange(h) + self.rows.start // step_y
        x = (torch.arange(w) + self.columns.start // step_x) % width
        assert self.covered is not None
        placed = maps.new_zeros(*maps.shape[:-2], height, width)
        placed[..., y[:, None], x] = maps / self.covered[::step_y, ::step_x][y[:, None], x].to(maps)
        return placed


def views_of(windows: Sequence[tuple[int, int, int, int]], total: Grid) -> tuple[View, ...]:
    """The views of a picture whose latents have the size `total`, from (top, bottom, left, right) of each window.

    Raises:
        UnsupportedModel: they are too many, or one shows a place of the picture twice.
    """
    if len(windows) > MOST_VIEWS:
        raise UnsupportedModel(
            f"the picture is painted in {len(windows)} views, and at most {MOST_VIEWS} are read: paint a smaller one"
        )
    height, width = total
    covered = torch.zeros(total)
    cut = []
    for top, bottom, left, right in windows:
        # What reaches over the right edge goes on at the left one where the panorama is round; else it is cut off.
        rows, columns = range(top, min(bottom, height)), range(left, right)
        if left == 0 and right > width:
            columns = range(left, width)
        if len(columns) > width or not rows or left >= width:
            raise UnsupportedModel("one view of the picture shows places of it twice: paint a wider one")
        covered[rows.start : rows.stop, torch.tensor(columns) % width] += 1
        cut.append((rows, columns))
    return tuple(
        View(counted=number == 0, total=total, rows=rows, columns=columns, covered=covered)
        for number, (rows, columns) in enumerate(cut)
    )


class ViewRecording(UNetRecording):
    """One call of a pipeline that may paint in views; `begin_views` tells of them, else it is as any other call."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._views: tuple[View, ...] = ()
        self._at_once, self._next = 1, 0
        self._shown: Tensor | None = None
        self._view_slices: dict[tuple[object, ...], BatchSlice] = {}

    def begin_views(self, views: tuple[View, ...], at_once: int) -> None:
        """The pipeline has cut its picture; `at_once` views at most are rows of one forward of the UNet."""
        if len(views) < 2:
            return
        if self.recording.keep.heads:
            raise BadArgument("Heads are kept apart of whole pictures, not of one that is painted in several views.")
        self._views, self._at_once, self.area = views, max(1, at_once), views[0]
        self.recording.fail_concepts(UnsupportedModel("of a picture in several views they are not read"))
        if self._outputs is not None:
            self.recording.fail_outputs(UnsupportedModel("of a picture in several views it is not read"))

    def end_step(self, timestep: Any = None) -> None:
        """The scheduler is asked for each view; a step is over when all views were painted."""
        if self._views and self._next < len(self._views):
            return
        self._next = 0
        super().end_step(timestep)

    def begin_forward(self, inputs: UNetInputs) -> bool:
        if not self._views:
            return super().begin_forward(inputs)
        if self._next and not same_time(inputs.timestep, self._time):
            raise UnsupportedModel(f"of {len(self._views)} views {self._next} were painted in a step, and then the next began")
        if self._next >= len(self._views):
            raise UnsupportedModel(f"more than the {len(self._views)} views of the picture were painted in one step")
        taken, self._pending = self._pending, []  # by the other views of this step
        begun = super().begin_forward(inputs)
        self._pending = list(dict.fromkeys([*taken, *self._pending]))
        self._next += min(self._at_once, len(self._views) - self._next)
        return begun

    def _note_latents(self, inputs: UNetInputs, places: list[tuple[Group, BatchSlice]]) -> None:
        if not self._views:  # else they are proved view by view, see `_require_same_latents`
            super()._note_latents(inputs, places)

    def _places(self, inputs: UNetInputs) -> list[tuple[Group, BatchSlice]]:
        if not self._views:
            return super()._places(inputs)
        views = self._views[self._next : self._next + self._at_once]
        sample, context = inputs.sample, inputs.context
        window = len(views[0].rows), len(views[0].columns)
        whole = context is not None and context.dim() == 3 and len(context) == len(sample) and len(sample) % len(views) == 0
        if not whole or sample.shape[-2:] != window:
            raise UnsupportedModel(
                f"the UNet was given latents of shape {tuple(sample.shape)}, where {len(views)} views of "
                f"{window[1]} x {window[0]} are read"
            )
        assert context is not None
        each = len(context) // len(views)
        own = context[:each]
        if len(views) > 1 and not torch.equal(own.repeat(len(views), 1, 1), context):
            raise UnsupportedModel("the views of one picture were given different texts, so there is no map of its prompt")
        blocks = self._texts.rows(own)
        pictures = max((rows.stop - rows.start for rows in blocks.values()), default=each)
        if pictures != each and pictures > 1:
            raise UnsupportedModel(
                f"with guidance, {pictures} panoramas at once are given each other's texts by the pipeline: paint one at a time"
            )
        self._require_same_latents(sample, views, each // pictures, pictures)
        self.latent_size = views[0].total
        places = []
        for (side, part), rows in blocks.items():
            if side in self._sides:
                group = self._groups.get((side, part)) or self._start(side, part, inputs, own)
                for number, view in enumerate(views):
                    places.append((group, self._slice(side, part, rows, number * each, view)))
        return places

    def _slice(self, side: Side, part: int, rows: slice, first: int, view: View) -> BatchSlice:
        key = (side, part, rows.start, rows.stop, first, view)
        if key not in self._view_slices:
            self._view_slices[key] = BatchSlice(first + rows.start, first + rows.stop, area=view)
        return self._view_slices[key]

    def _require_same_latents(self, sample: Tensor, views: Sequence[View], texts: int, pictures: int) -> None:
        """In the first step: where views overlap they were cut from the same latents, so they are at these places.

        Args:
            sample: `[views * pictures * texts, c, h, w]`, one row for each text behind each other.

        Raises:
            UnsupportedModel: they are not.
        """
        if self.recording.num_steps:
            self._shown = None
            return
        if self._shown is None:
            self._shown = sample.new_full((pictures, sample.shape[1], *views[0].total), torch.nan)
        for view, rows in zip(views, sample.chunk(len(views)), strict=True):
            y = torch.tensor(view.rows, device=sample.device)[:, None]
            x = torch.tensor(view.columns, device=sample.device) % view.total[1]
            before, now = self._shown[..., y, x], rows[::texts]
            if not bool(((before == now) | before.isnan()).all()):
                raise UnsupportedModel(
                    "the views of the picture were not cut from the same latents, so their places are not known"
                )
            self._shown[..., y, x] = now
