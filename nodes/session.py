"""One run of a sampler: what its attention calls mean, summed by the core's recorders.

The session listens; `hook` brings it the calls. Nothing here raises into the sampler: the first error ends the recording
and becomes the sentence that the map nodes show.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..daam_core.errors import NothingRecorded, recording_failure
from ..daam_core.heatmaps import HeatMaps
from ..daam_core.prompt_parts import joined, part_selection
from ..daam_core.recorder import Grid, Keep, Recorder, Source
from ..daam_core.run import picture_run
from ..daam_core.tap import Layer, Place
from .calls import Attention
from .conds import SIDES, Conds, Row, Side, names_of
from .layouts import Layout

logger = logging.getLogger("daam_lens")
_PLACES: dict[str, Place] = {"input": "down", "middle": "mid", "output": "up"}


@dataclass(frozen=True)
class Options:
    """What a Record node was asked for; `first_step` and `last_step` count sampling steps from 0, both included."""

    keep: Keep
    negative: bool = False
    first_step: int = 0
    last_step: int = 10_000


@dataclass(frozen=True)
class Mark:
    """The next attention call is one of a UNet: cross-attention, or the picture's own where `own`."""

    layer: str
    place: Place
    grid: Grid
    own: bool


@dataclass
class _Call:
    """One call of the diffusion model."""

    rows: list[Row | None]
    sources: list[Source]
    shape: tuple[int, ...]
    context: int
    attentions: int = 0


class Session:
    """Listens to one run.

    Args:
        options: what to keep.
        guider: ComfyUI's guider; its prepared conditionings are read when the first step begins.
        latent: shape `[images, c, …, h, w]` of the noise.
        layout: the transformer's layout, None for a UNet.
        scale: pixels of the picture for each latent position.
    """

    def __init__(self, options: Options, guider: Any, latent: Sequence[int], layout: Layout | None, scale: int) -> None:
        self.options, self.layout, self.failure = options, layout, ""
        self.sampling_step = 0
        self._guider: Any = guider
        self._images, self._size = int(latent[0]), (int(latent[-2]), int(latent[-1]))
        self._scale = scale
        self._conds: Conds | None = None
        self._recorders: dict[Side, Recorder] = {}
        self._layers: dict[str, int] = {}
        self._described: list[Layer] = []
        self._sigmas: list[Tensor] = []
        self._sources: dict[tuple[int, Row | None], Source] = {}
        self._names: dict[int, str] = {}
        self._heard: set[str] = set()
        self._call: _Call | None = None
        self._mark: Mark | None = None
        self._between = True
        self._in_pieces = False

    # -- the sampler ------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        return not self.failure and self.options.first_step <= self.sampling_step <= self.options.last_step

    def begin_step(self, sigma: Tensor) -> None:
        """The sampler wants a prediction."""
        self._heard, self._between = set(), False
        if self.live:
            self._sigmas.append(sigma)

    def end_step(self) -> None:
        """The prediction is there."""
        self._between = True
        if self.live:
            for recorder in self._recorders.values():
                recorder.end_step()

    def begin_batch(self, lists: Sequence[Any]) -> None:
        """The conditionings that are predicted next; a second look at one of them (PAG, SAG) is another pack's."""
        known = self._guider.conds
        if self._conds is None:
            self._conds = Conds(known, self._guider.original_conds, self._size)
        names = names_of(lists, known)
        self._in_pieces |= not names  # copies of the sampler's lists, or somebody's own
        self._names = {i: name for i, name in names.items() if name not in self._heard}
        self._heard |= set(names.values())

    def end_batch(self) -> None:
        self._names = {}

    def begin_model(self, x: Tensor, context: Tensor | None, options: Mapping[str, Any]) -> None:
        """The diffusion model is called with `x` `[rows, c, …, h, w]`."""
        self._mark = None
        self._call = None
        indices, uuids = options.get("cond_or_uncond") or [], options.get("uuids") or []
        if not self.live or self._between or self._conds is None or len(indices) != len(uuids) or not self._names:
            return
        rows = [self._wanted(row) for row in self._conds.rows(self._names, indices, uuids)]
        if not any(rows):
            return
        if x.shape[0] != len(rows) * self._images:
            raise NothingRecorded(
                "Another node cuts the picture into parts or batches while it is sampled, "
                "so that nobody can say which part of it the attention belongs to. Record without that node."
            )
        sources = [self._source(i, row) for i, row in enumerate(rows)]
        self._call = _Call(rows, sources, tuple(x.shape), 0 if context is None else context.shape[1])

    def _source(self, group: int, row: Row | None) -> Source:
        """One value for the same rows of every call: recorders look up by it what is the same in every step."""
        key = (group, row)
        if key not in self._sources:
            first = group * self._images
            self._sources[key] = Source(first, first + self._images, row.part, row.area) if row else Source(0, 0)
        return self._sources[key]

    def end_model(self) -> None:
        self._call = None
        self._mark = None

    def _wanted(self, row: Row | None) -> Row | None:
        return row if row is not None and (row.side == "prompt" or self.options.negative) else None

    # -- attention --------------------------------------------------------------------------------------------------

    def mark(self, extra: Mapping[str, Any], own: bool) -> None:
        """A UNet's transformer block says that its next attention call is cross-attention (or the picture's own)."""
        if self._call is None:
            return
        name, number = extra.get("block") or ("middle", 0)
        depth = extra.get("block_index", 0)
        shape = extra.get("activations_shape") or (0, 0)
        grid = (int(shape[-2]), int(shape[-1]))
        if own and not self._wants_self(grid):
            return
        layer = f"{name}_blocks.{number}.transformer_blocks.{depth}"
        self._mark = Mark(layer, _PLACES.get(name, "mid"), grid, own)

    def _wants_self(self, grid: tuple[int, int]) -> bool:
        recorder = self._recorders.get("prompt")
        return recorder is None or recorder.wants_self(grid)

    @property
    def wants(self) -> bool:
        """Whether the next attention call may be one to hear."""
        return self._call is not None and (self._mark is not None or self.layout is not None)

    def hear(self, attention: Attention, lse: Tensor | None = None) -> None:
        """One attention call."""
        call, mark, self._mark = self._call, self._mark, None
        if call is None or not self.live:
            return
        if mark is not None:
            self._hear_unet(call, mark, attention)
        elif self.layout is not None:
            self._hear_transformer(call, self.layout, attention, lse)

    def _hear_unet(self, call: _Call, mark: Mark, a: Attention) -> None:
        if mark.own and (a.q.shape != a.k.shape or a.queries != mark.grid[0] * mark.grid[1] or a.split):
            return  # merged or cut by another node: not the whole picture's own attention
        if a.q.shape[0] != len(call.rows) * self._images or a.queries != mark.grid[0] * mark.grid[1]:
            if mark.own:
                return
            raise NothingRecorded(
                f"Another node changed the cross-attention of {mark.layer}: {a.queries} positions where the picture has "
                f"{mark.grid[0]} x {mark.grid[1]}. Record without that node."
            )
        if mark.own:
            first = next((i for i, row in enumerate(call.rows) if row and row.side == "prompt" and row.area.whole), None)
            if first is not None and call.rows[first].part == 0:  # type: ignore[union-attr]
                self._side("prompt").add_self(mark.grid, a.q, a.k, a.heads, a.scale, call.sources[first])
            return
        layer = self._layer(mark.layer, mark.place, a)
        for row, source in zip(call.rows, call.sources, strict=True):
            if row is None:
                continue
            if a.bias is None and not a.split:
                self._side(row.side).add_cross(layer, mark.grid, a.q, a.k, a.heads, a.scale, source)
            else:
                part = a.rows(source.start, source.stop, 0, a.queries)
                whole = slice(0, a.keys)
                self._side(row.side).add_joint(layer, mark.grid, part.q, part.k, a.heads, a.scale, source, whole, part.bias)

    def _hear_transformer(self, call: _Call, layout: Layout, a: Attention, lse: Tensor | None) -> None:
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
        if a.q.shape[0] != len(call.rows) * self._images:
            raise NothingRecorded("Another node changed the batch inside the model. Record without that node.")
        layer = self._layer(f"attention.{call.attentions - 1}", "mid", a)
        for row, source in zip(call.rows, call.sources, strict=True):
            if row is None:
                continue
            for frame in range(frames):
                at = first + frame * grid[0] * grid[1]
                part = a.rows(source.start, source.stop, at, grid[0] * grid[1])
                own_lse = None if lse is None else lse[source.start : source.stop, :, at : at + grid[0] * grid[1]]
                self._side(row.side).add_joint(
                    layer, grid, part.q, part.k, a.heads, a.scale, source, slice(0, text), part.bias, own_lse
                )

    def _layer(self, name: str, place: Place, a: Attention) -> int:
        if name not in self._layers:
            self._layers[name] = len(self._layers)
            self._described.append(Layer(name, place, a.heads, a.scale))
        return self._layers[name]

    def _side(self, side: Side) -> Recorder:
        if side not in self._recorders:
            assert self._conds is not None
            select = part_selection(self._conds.prompts[side], pad=self.layout is not None)

            def of_images(keys: int, part: int) -> Tensor:
                return select(keys, part).expand(self._images, -1, -1)

            self._recorders[side] = Recorder(slice(0, self._images), of_images, self.options.keep)
        return self._recorders[side]

    # -- the end ----------------------------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """Stop listening; the sampler goes on."""
        if self.failure:
            return
        self.failure = recording_failure(error)
        self._recorders.clear()
        self._call = self._mark = None
        logger.warning("DAAM Lens: %s", self.failure)
        logger.debug("Where recording stopped", exc_info=error)

    def heat_maps(self) -> list[HeatMaps]:
        """The maps of every picture of the batch, on the CPU.

        Raises:
            NothingRecorded: nothing was heard; the text says why.
        """
        if self.failure:
            raise NothingRecorded(self.failure)
        if not self._recorders or self._conds is None:
            raise NothingRecorded(self._why_silent())
        for recorder in self._recorders.values():
            recorder.release()
        sides = {side: self._pictures(side) for side in SIDES if side in self._recorders}
        prompts = sides.get("prompt") or sides["negative"]
        negatives = sides.get("negative")
        return [m.with_negative(negatives[i]) if negatives else m for i, m in enumerate(prompts)]

    def _why_silent(self) -> str:
        if self._in_pieces:
            return (
                "Another node samples the picture or video piece by piece (context windows), so that nobody can say which "
                "part of it the attention belongs to. Record without that node."
            )
        return (
            "The sampler ran, but no cross-attention was heard. DAAM Lens reads Stable Diffusion 1, 2, XL and 3, Flux, "
            "Chroma, Qwen-Image, Lumina 2, Z-Image and Wan; and at least one step must lie between the first and last "
            "step that Record was told to keep."
        )

    def _pictures(self, side: Side) -> list[HeatMaps]:
        assert self._conds is not None
        prompt = joined(self._conds.prompts[side])
        times = torch.stack([s.flatten()[0] for s in self._sigmas]).tolist()
        size = (self._size[0] * self._scale, self._size[1] * self._scale)
        return [
            HeatMaps.from_run(
                picture_run(self._recorders[side], self._described, [prompt] * self._images, i, size, None, times)
            )
            for i in range(self._images)
        ]

    def close(self) -> None:
        """Let go of everything that is the host's."""
        self._guider = None
        self._conds = self._call = None
        self._recorders.clear()
        self._sigmas.clear()
