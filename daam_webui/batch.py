"""One batch of pictures while it is sampled: which rows are whose, in what words, and the maps at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, stack

from daam_core.capture.buffers import BatchSlice, StoreOptions
from daam_core.capture.concept_texts import ConceptTexts
from daam_core.capture.recording import Recording
from daam_core.capture.region import Area
from daam_core.capture.unet_hooks import UNetAttentionHooks
from daam_core.errors import NothingRecorded
from daam_core.maps.heatmaps import HeatMaps
from daam_core.prompt.prompt import Prompt
from daam_core.types import Grid, Layer, Size

from .batch_rows import Label, Side, runs_of, stray
from .concepts import BatchConcepts
from .context_proof import ContextProof
from .prompt_schedule import PromptSchedule
from .sampling_step import SamplingStep

NO_STEP = (
    "Not one sampling step was recorded, so there are no heat maps: the run was stopped before its first step, "
    "or something other than the checkpoint's own UNet did the work."
)
PIECES = (
    "Another extension cuts the batch into pieces while it is sampled, so nobody can say whose attention it is. Switch it off, "
    "or make one picture at a time."
)
SWITCH_OFF = "Switch it off to get heat maps."
_KNOWN = 64
"""So many different rows are remembered with what they are."""


@dataclass(frozen=True)
class ContextKey:
    """What the pictures of a group are told in one call: a part for each, the host's columns, whether they repeat; and in a
    transformer, how many columns the model is given and which of them its keys are (-1 is none)."""

    parts: tuple[int, ...]
    base: int
    repeated: bool
    columns: int = 0
    picked: tuple[int, ...] = ()


@dataclass(frozen=True)
class Call:
    """One call of the UNet, as it was begun.

    Attributes:
        rows: of its batch.
        area: the part of the finished picture that is sampled; the same object in every call of a pass.
        context: the text that the model was given, `[rows, columns, width]`, where it is known.
        slices: the rows of each group.
        layers: cross-attention layers that have been asked.
    """

    rows: int
    area: Area
    context: Tensor | None
    slices: tuple[tuple[PictureGroup, BatchSlice], ...]
    layers: set[str]


class PictureGroup:
    """Pictures that stand side by side in the batch and share one accumulator.

    Args:
        recording: what they are recorded in.
        side: prompt or negative prompt.
        images: their numbers in the batch.
        schedules: their texts.
    """

    def __init__(self, recording: Recording, side: Side, images: tuple[int, ...], schedules: Sequence[PromptSchedule]) -> None:
        self.side, self.images, self.schedules = side, images, schedules
        self._contexts: list[ContextKey] = []
        self._picked: dict[tuple[BatchSlice, int, tuple[int, ...]], BatchSlice] = {}
        self._rows = max(one.prompt.num_channels for one in schedules)
        self.accumulator = recording.add_group(side, images, [one.prompt for one in schedules], self._select).accumulator

    def slices(self, labels: Sequence[Label | None], step: SamplingStep, repeated: bool) -> list[BatchSlice]:
        """Where this group stands in a call.

        Raises:
            NothingRecorded: its rows are torn apart, or the host gave the model another number of columns than its words take.
        """
        if stray(labels, self.side, self.images):
            raise NothingRecorded(PIECES)
        found = []
        base = step.columns[self.side]
        for first, groups in runs_of(labels, self.side, self.images):
            parts = tuple(
                one.part(group, step.texts[Label(self.side, image, group)])
                for image, group, one in zip(self.images, groups, self.schedules, strict=True)
            )
            key = ContextKey(parts, base, repeated)
            found.append(BatchSlice(first, first + len(self.images), self._number(key), step.area))
        return found

    def columns(self, step: SamplingStep) -> int:
        """Columns of the longest text that is told now."""
        return max(
            one.lengths[one.part(label.group, step.texts[label])]
            for image, one in zip(self.images, self.schedules, strict=True)
            for label in step.rows
            if (label.side, label.image) == (self.side, image)
        )

    def prompts_of(self, where: BatchSlice) -> list[Prompt]:
        """What each picture is told in a slice, as it is read alone."""
        parts = self._contexts[where.part].parts
        return [one.parts[part] for one, part in zip(self.schedules, parts, strict=True)]

    def picked(self, where: BatchSlice, columns: int, picked: tuple[int, ...]) -> BatchSlice:
        """The same rows, for keys that are these columns of a context of `columns` columns; the same value for the same."""
        key = where, columns, picked
        if key not in self._picked:
            if len(self._picked) >= _KNOWN:
                self._picked.clear()
            context = replace(self._contexts[where.part], columns=columns, picked=picked)
            self._picked[key] = replace(where, part=self._number(context))
        return self._picked[key]

    def _number(self, context: ContextKey) -> int:
        if context not in self._contexts:
            self._contexts.append(context)
        return self._contexts.index(context)

    def _select(self, keys: int, number: int) -> Tensor:
        context = self._contexts[number]
        each = [
            s.selection(part, context.base, context.columns or keys, context.repeated)
            for s, part in zip(self.schedules, context.parts, strict=True)
        ]
        whole = stack([F.pad(x, (0, self._rows - x.shape[1])) for x in each])
        # The last row is that of keys which are no column.
        return F.pad(whole, (0, 0, 0, 1))[:, list(context.picked)] if context.columns else whole


class Batch:
    """The pictures that are sampled together.

    Args:
        keep: what their recording keeps apart.
        groups: side, pictures and texts of each group; every picture is in one group of the prompt side.
        concepts: what is looked for beside the words, encoded, or why it is not; None where nothing is.
        parts: how many AND parts each picture's prompt has.

    Attributes:
        num_images: how many there are.
        pictures: those that are finished, uint8 `[H, W, 3]`, by number.
    """

    def __init__(
        self,
        keep: StoreOptions,
        groups: Sequence[tuple[Side, tuple[int, ...], Sequence[PromptSchedule]]],
        concepts: ConceptTexts | Exception | None = None,
        parts: Sequence[int] = (1,),
    ) -> None:
        self.recording = Recording(keep)
        self.groups = [PictureGroup(self.recording, *group) for group in groups]
        self.pictures: dict[int, NDArray[np.uint8]] = {}
        self.num_images = 1 + max(image for side, images, _ in groups for image in images if side == "prompt")
        self.proof = ContextProof()
        self.concepts = None if concepts is None else BatchConcepts(self.recording, concepts, parts)
        self._call: Call | None = None

    @property
    def wants_self(self) -> bool:
        """Whether self-attention is kept in the step that comes; nobody has to listen to it in the others."""
        return self.recording.keeps_self_attention

    @property
    def call(self) -> Call | None:
        """The call of the model that is being made, None where nothing of it is recorded."""
        return self._call

    # -- while the model runs ---------------------------------------------------------------------------------------

    def begin_step(self, step: SamplingStep) -> None:
        """Prove that the host encoded the words that were read.

        Raises:
            NothingRecorded: the conditioning has other columns than the words.
        """
        for side, columns in step.columns.items():
            words = [group.columns(step) for group in self.groups if group.side == side]
            if words and columns != max(words):
                raise NothingRecorded(
                    f"Another extension changed the text of the {'prompt' if side == 'prompt' else 'negative prompt'}: the "
                    f"model is given {columns} columns where its words take {max(words)}. {SWITCH_OFF}"
                )

    def begin_call(
        self,
        labels: Sequence[Label | None],
        step: SamplingStep,
        size: Grid,
        context: Tensor | None,
        repeated: bool,
        hooks: UNetAttentionHooks | None = None,
    ) -> None:
        """The UNet is called.

        Args:
            labels: what each row of its batch stands for.
            step: what is sampled.
            size: (h, w) of the latent that it is given.
            context: the text that it is given, `[rows, columns, width]`.
            repeated: whether a longer context repeats the conditioning, see `PromptSchedule.selection`.
            hooks: on the UNet.

        Raises:
            NothingRecorded: another extension works on tiles or gives other texts.
        """
        self._call = None
        if size != step.size:
            raise NothingRecorded(
                f"Another extension paints the picture in tiles or at another size: the model is given {size[1]} x {size[0]} "
                f"latent positions where the sampler works on {step.size[1]} x {step.size[0]} (Tiled Diffusion, "
                f"MultiDiffusion and their like do). {SWITCH_OFF}"
            )
        groups = [group for group in self.groups if group.side in step.conditioning]
        slices = tuple((group, one) for group in groups for one in group.slices(labels, step, repeated))
        for group, one in slices:
            if context is not None:
                rows = [step.rows[label] for label in labels[one.start : one.stop] if label is not None]
                self.proof.require(context[one.start : one.stop], step.conditioning[group.side][rows])
        if not self.recording.num_steps:
            self.proof.check()  # what is wrong from the first call on costs no memory
        self._call = Call(len(labels), step.area, context, slices, set())
        if self.concepts is not None and hooks is not None:
            for group, one in slices:
                if group.side == "prompt":
                    self.concepts.begin_call(group.prompts_of(one), context, hooks)

    def end_call(self) -> None:
        self._call = None
        if self.concepts is not None:
            self.concepts.end_call()

    def on_context(self, context: Tensor) -> None:
        """What a cross-attention layer is about to make its keys of.

        Raises:
            NothingRecorded: it is shorter than what the model was given; or it has other numbers (told at the end).
        """
        given = self._call.context if self._call else None
        if given is None or not self._call or not self._call.slices:
            return
        if context.shape[0] == given.shape[0] and context.shape[1] < given.shape[1]:
            raise NothingRecorded(
                f"Another extension gives a part of the text to a part of the picture: a layer sees {context.shape[1]} columns "
                f"of the {given.shape[1]} that the model is given (Regional Prompter's Attention mode does). {SWITCH_OFF}"
            )
        if context.shape[0] == given.shape[0]:  # else the layer's queries tell
            self.proof.require(context, given)

    def on_attention(self, layer: Layer, index: int, grid: Grid, q: Tensor, k: Tensor, cross: bool) -> None:
        """One attention layer, see `daam_core.capture.unet_forward.AttentionReceiver`; `index` is its number in the hooks.

        Raises:
            NothingRecorded: another extension changed what the layer sees.
        """
        call = self._call
        if call is None:
            return
        whole = q.shape[0] == call.rows and q.shape[1] == grid[0] * grid[1]
        # A hypernetwork gives self-attention keys of its own, so `cross` alone does not tell.
        if layer.name.endswith("attn1") or not cross:
            if whole and q.shape == k.shape and call.area.whole:  # else merged or tiled (ToMe, Hypertile)
                for group, batch_slice in call.slices:
                    if group.side == "prompt":
                        group.accumulator.add_self(grid, q, k, layer.heads, layer.scale, batch_slice)
            return
        if not call.slices:
            return
        if not whole:
            raise NothingRecorded(f"Another extension changed the cross-attention of {layer.name}: {_seen(q, call, grid)}")
        if layer.name in call.layers:
            raise NothingRecorded(
                f"Another extension asks {layer.name} more than once in one step (prompts by region and ControlNet's reference "
                f"pictures do), so nobody can say which answer painted the picture. {SWITCH_OFF}"
            )
        call.layers.add(layer.name)
        key = (layer.name, grid, layer.heads, layer.scale)
        number = self.recording.layer(key, layer.name, layer.block, layer.heads, layer.scale)
        for group, batch_slice in call.slices:
            group.accumulator.add_cross(number, grid, q, k, layer.heads, layer.scale, batch_slice)
            if self.concepts is not None and group.side == "prompt":
                self.concepts.add(number, index, layer, grid, q, k, batch_slice)

    def end_step(self, sigma: Any) -> None:
        """The sampler has its prediction."""
        self.recording.end_step(sigma)

    # -- the end ----------------------------------------------------------------------------------------------------

    def heat_maps(self, image: int, size: Size) -> HeatMaps:
        """The maps of one picture, on the CPU.

        Args:
            size: (height, width) of the finished picture.

        Raises:
            NothingRecorded: no step was recorded, or a layer saw another text.
        """
        self.proof.check()
        if not any(group.accumulator.buffers for group in self.groups if group.side == "prompt" and image in group.images):
            raise NothingRecorded(NO_STEP)
        if self.concepts is not None:
            prompts = [group for group in self.groups if group.side == "prompt"]
            self.concepts.hold_against([one.prompt for group in prompts for one in group.schedules])
        return self.recording.finish(image, size, self.pictures.get(image))


def _seen(q: Tensor, call: Call, grid: Grid) -> str:
    """What is wrong with a layer's queries, and what to do."""
    if q.shape[0] != call.rows:
        return (
            f"it was asked about {q.shape[0]} of the {call.rows} rows that the model was given, as NegPiP and regional prompts "
            f"do. {SWITCH_OFF}"
        )
    return f"it was asked about {q.shape[1]} positions where the picture has {grid[1]} x {grid[0]}. {SWITCH_OFF}"
