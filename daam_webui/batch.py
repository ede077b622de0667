"""One batch of pictures while it is sampled: which accumulator hears which rows, in what words, and the maps at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, stack

from daam_core.capture.accumulator import Accumulator
from daam_core.capture.buffers import BatchSlice, StoreOptions
from daam_core.capture.extraction import recorded_image
from daam_core.capture.region import WHOLE, Area
from daam_core.errors import NothingRecorded
from daam_core.maps.heatmaps import HeatMaps
from daam_core.prompt.prompt import Prompt
from daam_core.types import Grid, Layer

from .batch_rows import Label, Side, runs_of, stray
from .prompt_schedule import PromptSchedule

Size = tuple[int, int]


@dataclass(frozen=True)
class ContextKey:
    """What the pictures of a group are told in one call: a part for each, the host's columns, whether they repeat."""

    parts: tuple[int, ...]
    base: int
    repeated: bool


class Group:
    """Pictures that stand side by side in the batch and share one accumulator.

    Args:
        side: prompt or negative prompt.
        images: their numbers in the batch.
        schedules: their texts.
        keep: what the accumulator keeps apart.
    """

    def __init__(self, side: Side, images: tuple[int, ...], schedules: Sequence[PromptSchedule], keep: StoreOptions) -> None:
        self.side, self.images, self.schedules = side, images, schedules
        self.accumulator = Accumulator(slice(0, len(images)), self._select, keep)
        self._contexts: list[ContextKey] = []
        self._rows = max(one.prompt.num_channels for one in schedules)

    def slices(
        self, labels: Sequence[Label | None], texts: dict[Label, str], base: int, repeated: bool, area: Area
    ) -> list[BatchSlice]:
        """Where this group stands in a call.

        Raises:
            NothingRecorded: its rows are torn apart.
        """
        if stray(labels, self.side, self.images):
            raise NothingRecorded(
                "Another extension cuts the batch into pieces while it is sampled, so nobody can say whose attention it is. "
                "Switch it off, or make one picture at a time."
            )
        found = []
        for first, groups in runs_of(labels, self.side, self.images):
            parts = tuple(
                one.part(group, texts[Label(self.side, image, group)])
                for image, group, one in zip(self.images, groups, self.schedules, strict=True)
            )
            found.append(BatchSlice(first, first + len(self.images), self._number(ContextKey(parts, base, repeated)), area))
        return found

    def _number(self, context: ContextKey) -> int:
        if context not in self._contexts:
            self._contexts.append(context)
        return self._contexts.index(context)

    def _select(self, keys: int, number: int) -> Tensor:
        context = self._contexts[number]
        each = [
            s.selection(part, context.base, keys, context.repeated)
            for s, part in zip(self.schedules, context.parts, strict=True)
        ]
        return stack([F.pad(x, (0, self._rows - x.shape[1])) for x in each])

    @property
    def prompts(self) -> list[Prompt]:
        return [one.prompt for one in self.schedules]


class Batch:
    """The pictures that are sampled together.

    Args:
        groups: accumulators and their pictures; every picture is in one group of the prompt side.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.pictures: dict[int, NDArray[np.uint8]] = {}
        self._layers: dict[tuple[str, Grid, int, float], int] = {}
        self._described: list[Layer] = []
        self._slices: list[tuple[Group, BatchSlice]] = []
        self._rows = 0
        self._area = WHOLE
        self._sigmas: list[Any] = []

    @property
    def wants_self(self) -> bool:
        """Whether self-attention is kept in the step that comes; nobody has to listen to it in the others."""
        return any(group.accumulator.keeps_self_attention for group in self.groups if group.side == "prompt")

    # -- while the model runs ---------------------------------------------------------------------------------------

    def begin_call(
        self,
        labels: Sequence[Label | None],
        texts: dict[Label, str],
        bases: dict[Side, int],
        repeated: bool,
        area: Area = WHOLE,
    ) -> None:
        """The UNet is called with these rows.

        Args:
            labels: what each row stands for.
            texts: what each label says now.
            bases: columns of the host's own conditioning on each side; a side that is missing is not sampled.
            repeated: whether a longer context repeats the conditioning, see `PromptSchedule.selection`.
            area: the part of the finished picture that is sampled; the same object in every call of a pass.
        """
        self._rows, self._area = len(labels), area
        self._slices = [
            (group, batch_slice)
            for group in self.groups
            if group.side in bases
            for batch_slice in group.slices(labels, texts, bases[group.side], repeated, area)
        ]

    def end_call(self) -> None:
        self._slices = []

    def on_attention(self, layer: Layer, grid: Grid, q: Tensor, k: Tensor, cross: bool) -> None:
        """One attention layer, see `daam_core.capture.unet_hooks.Hear`.

        Raises:
            NothingRecorded: another extension changed what the layer sees.
        """
        whole = q.shape[0] == self._rows and q.shape[1] == grid[0] * grid[1]
        # A hypernetwork gives self-attention keys of its own, so `cross` alone does not tell.
        if layer.name.endswith("attn1") or not cross:
            if whole and q.shape == k.shape and self._area.whole:  # else merged or tiled (ToMe, Hypertile)
                for group, batch_slice in self._slices:
                    if group.side == "prompt":
                        group.accumulator.add_self(grid, q, k, layer.heads, layer.scale, batch_slice)
            return
        if not self._slices:
            return
        if not whole:
            raise NothingRecorded(
                f"Another extension changed the cross-attention of {layer.name}: {q.shape[0]} rows of {q.shape[1]} places "
                f"where {self._rows} of {grid[0]} x {grid[1]} were expected. Switch it off to get heat maps."
            )
        number = self._number(layer, grid)
        for group, batch_slice in self._slices:
            group.accumulator.add_cross(number, grid, q, k, layer.heads, layer.scale, batch_slice)

    def _number(self, layer: Layer, grid: Grid) -> int:
        key = (layer.name, grid, layer.heads, layer.scale)
        if key not in self._layers:
            self._layers[key] = len(self._layers)
            self._described.append(layer)
        return self._layers[key]

    def end_step(self, sigma: Any) -> None:
        """The sampler has its prediction."""
        self._sigmas.append(sigma)
        for group in self.groups:
            group.accumulator.end_step()

    # -- the end ----------------------------------------------------------------------------------------------------

    def heat_maps(self, image: int, size: Size) -> HeatMaps:
        """The maps of one picture, on the CPU.

        Args:
            size: (height, width) of the finished picture.

        Raises:
            NothingRecorded: no step was finished, or nothing was heard.
        """
        sides = {g.side: self._side(g, image, size) for g in self.groups if image in g.images and g.accumulator.sums}
        if "prompt" not in sides:
            raise NothingRecorded(
                "Not one sampling step was heard, so there are no heat maps: the run was stopped before its first step, "
                "or something other than the checkpoint's own UNet did the work."
            )
        negative = sides.get("negative")
        return sides["prompt"].with_negative(negative) if negative is not None else sides["prompt"]

    def _side(self, group: Group, image: int, size: Size) -> HeatMaps:
        group.accumulator.release()
        times = [float(sigma.flatten()[0]) for sigma in self._sigmas]
        position = group.images.index(image)
        picture = self.pictures.get(image)
        return HeatMaps.from_run(
            recorded_image(group.accumulator, self._described, group.prompts, position, size, picture, times)
        )
