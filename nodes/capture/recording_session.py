"""One run of a sampler: what its attention calls mean, summed by the core's accumulators.

The session listens; `hook` brings it the calls. Nothing here raises into the sampler: the first error ends the recording
and becomes the sentence that the map nodes show.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...daam_core.capture.attention_call import LseCapture, attention_call
from ...daam_core.capture.buffers import BatchSlice, StoreOptions
from ...daam_core.capture.families import READS, Layout
from ...daam_core.errors import NothingRecorded, recording_failure
from ...daam_core.maps.heatmaps import HeatMaps
from .attention_router import AttentionRouter, Call, own_slice
from .batch_rows import Conds, Row, names_of

logger = logging.getLogger("daam_lens")


@dataclass(frozen=True)
class Options:
    """What a Record node was asked for; `first_step` and `last_step` count sampling steps from 0, both included."""

    keep: StoreOptions
    negative: bool = False
    first_step: int = 0
    last_step: int = 10_000


class RecordingSession:
    """Listens to one run.

    Args:
        options: what to keep.
        guider: ComfyUI's guider; its prepared conditionings are read when the first step begins.
        latent: shape `[images, c, …, h, w]` of the noise.
        layout: the transformer's layout, None for a UNet.
        scale: pixels of the picture for each latent position.

    Attributes:
        next_call: what the next attention call is, None where it is not to be heard: what ComfyUI tells a UNet's block of
            itself, and whether it is the picture's attention to itself. A transformer says nothing about its calls.
    """

    def __init__(self, options: Options, guider: Any, latent: Sequence[int], layout: Layout | None, scale: int) -> None:
        self.options, self.layout, self.failure = options, layout, ""
        self.next_call: tuple[Mapping[str, Any], bool] | None = None
        self.sampling_step = 0
        self._guider: Any = guider
        self._images, self._size = int(latent[0]), (int(latent[-2]), int(latent[-1]))
        self._scale = scale
        self._conds: Conds | None = None
        self._router = AttentionRouter(options.keep, self._images, layout)
        self._sigmas: list[Tensor] = []
        self._slices: dict[tuple[int, Row | None], BatchSlice] = {}
        self._names: dict[int, str] = {}
        self._predicted: set[str] = set()
        self._call: Call | None = None
        self._records_self = False
        self._between = True
        self._in_pieces = False

    # -- the sampler ------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        return not self.failure and self.options.first_step <= self.sampling_step <= self.options.last_step

    def begin_step(self, sigma: Tensor) -> None:
        """The sampler wants a prediction."""
        self._predicted, self._between = set(), False
        if self.live:
            self._sigmas.append(sigma)

    def end_step(self) -> None:
        """The prediction is there."""
        self._between = True
        if self.live:
            self._router.end_step()

    def begin_batch(self, lists: Sequence[Any], x: Tensor, timestep: Tensor) -> None:
        """The conditionings that are predicted next for the latent `x`; a second look at one (PAG, SAG) is another pack's."""
        known = self._guider.conds
        if self._conds is None:
            self._conds = Conds(known, self._guider.original_conds, self._size)
        names = names_of(lists, known)
        self._in_pieces |= not names  # copies of the sampler's lists, or somebody's own
        self._names = {i: name for i, name in names.items() if name not in self._predicted}
        self._predicted |= set(names.values())
        self._conds.begin(self._names.values(), known, x, timestep)

    def end_batch(self) -> None:
        self._names = {}

    def begin_model(self, x: Tensor, context: Tensor | None, options: Mapping[str, Any]) -> None:
        """The diffusion model is called with `x` `[channels, c, …, h, w]`."""
        self.end_model()
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
        slices = [self._slice_of(i, row) for i, row in enumerate(rows)]
        wanted = [(row.side, batch_slice) for row, batch_slice in zip(rows, slices, strict=True) if row is not None]
        columns = 0 if context is None else context.shape[1]
        self._call = Call(x.shape[0], wanted, own_slice(rows, slices), tuple(x.shape), columns)
        self._records_self = self._call.own is not None and self._router.keeps_self_attention
        if self.layout is not None:
            self.next_call = {}, False

    def _slice_of(self, group: int, row: Row | None) -> BatchSlice:
        """One value for the same rows of every call: accumulators look up by it what is the same in every step."""
        key = (group, row)
        if key not in self._slices:
            first = group * self._images
            self._slices[key] = BatchSlice(first, first + self._images, row.part, row.area) if row else BatchSlice(0, 0)
        return self._slices[key]

    def end_model(self) -> None:
        self._call = self.next_call = None

    def _wanted(self, row: Row | None) -> Row | None:
        return row if row is not None and (row.side == "prompt" or self.options.negative) else None

    # -- attention --------------------------------------------------------------------------------------------------

    def set_next_call(self, block: Mapping[str, Any], own: bool) -> None:
        """A UNet's transformer block says that its next attention call is cross-attention (or the picture's own)."""
        self.next_call = None
        try:
            if self._call is not None and (not own or (self._records_self and self._router.wants_self(block))):
                self.next_call = block, own
        except Exception as error:
            self.fail(error)

    def on_attention(self, args: Sequence[Any], kwargs: Mapping[str, Any], seen: LseCapture | None = None) -> None:
        """The attention call that was next_call, with the arguments of `optimized_attention`."""
        call, next_call = self._call, self.next_call
        if call is None or next_call is None or self._conds is None:
            return
        try:
            attention = attention_call(args, kwargs)
            if self.layout is not None:
                lse = None if seen is None else seen.of(attention)
                self._router.add_transformer(self._conds, call, self.layout, attention, lse)
            else:
                self.next_call = None
                self._router.add_unet(self._conds, call, *next_call, attention)
        except Exception as error:
            self.fail(error)

    # -- the end ----------------------------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """Stop listening; the sampler goes on."""
        if self.failure:
            return
        self.failure = recording_failure(error)
        self._router.clear()
        self.end_model()
        logger.warning("DAAM Lens: %s", self.failure)
        logger.debug("Where recording stopped", exc_info=error)

    def heat_maps(self) -> list[HeatMaps]:
        """The maps of every picture of the batch, on the CPU.

        Raises:
            NothingRecorded: nothing was heard; the text says why.
        """
        if self.failure:
            raise NothingRecorded(self.failure)
        size = (self._size[0] * self._scale, self._size[1] * self._scale)
        maps = None if self._conds is None else self._router.heat_maps(self._conds, size, self._sigmas)
        if maps is None:
            raise NothingRecorded(self._why_silent())
        return maps

    def _why_silent(self) -> str:
        if self._in_pieces:
            return (
                "Another node samples the picture or video piece by piece (context windows), so that nobody can say which "
                "part of it the attention belongs to. Record without that node."
            )
        return (
            f"The sampler ran, but no cross-attention was heard. DAAM Lens reads {READS}; and at least one step must lie "
            "between the first and last step that Record was told to keep."
        )

    def close(self) -> None:
        """Let go of everything that is the host's."""
        self._guider = None
        self._conds = self._call = self.next_call = None
        self._router.clear()
        self._sigmas.clear()
