"""Attention of a pipeline's UNet, summed for each side of its batch, while the pipeline runs once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import NothingRecorded, UnsupportedModel
from ..prompt.prompt import Prompt
from ..types import Grid, Side
from .buffers import BatchSlice, StoreOptions
from .concept_texts import ConceptTexts
from .given_latents import GivenLatents
from .planned_layers import LayerPlans, PlannedLayers
from .proportions import require_proportions
from .recording import Group, Recording
from .region import WHOLE, Area
from .text_rows import EncodedText
from .unet_concepts import UNetConcepts
from .unet_forward import RunningForward, UNetInputs, same_time
from .unet_hooks import UNetAttentionHooks
from .unet_outputs import OutputForward, UNetOutputs
from .unet_texts import UNetTexts


class UNetRecording:
    """One call of a pipeline, in the thread that makes it; takes what the hooks on its UNet read.

    A step ends where the scheduler says so. A forward that comes before that with texts that this step has had, at the same
    timestep, is left out: self-attention guidance looks once more at a blurred picture. So are forwards that are made for a
    gradient (Attend-and-Excite): they move the latents, and the forward that paints comes after them.

    Args:
        hooks: on the UNet.
        texts: gives what the pipeline has encoded so far.
        prompt: gives the words of an encoded row.
        keep: what to keep apart.
        sides: whose texts are recorded.
        area: which part of the picture the UNet paints.
        whole_call: whether every forward in this thread is the pipeline's; else those with other texts are left alone.
        concepts: gives the concepts that were asked for, encoded; None where none were.
        outputs: hooks on what the layers give out, where output space is kept.
        in_callback: tells whether a function of the user's runs, in which the UNet does not paint this picture.

    Attributes:
        thread: the thread that makes the call.
        recording: groups, layers and steps.
        area: which part of the picture the UNet paints.
        latent_size: (h, w) of the latents that the UNet was given, (0, 0) before that.
        repeats: whether a step had more forwards than were read.
        given_latents: of the step that runs.
        for_gradients: whether forwards were left out because they were made for a gradient.
    """

    def __init__(
        self,
        hooks: UNetAttentionHooks,
        texts: Callable[[], Sequence[EncodedText]],
        prompt: Callable[[EncodedText], Prompt],
        keep: StoreOptions,
        sides: Sequence[Side],
        area: Area = WHOLE,
        whole_call: bool = True,
        concepts: Callable[[], ConceptTexts | None] | None = None,
        outputs: UNetOutputs | None = None,
        in_callback: Callable[[], bool] = lambda: False,
    ) -> None:
        self._outputs, self._in_callback = outputs, in_callback
        self.thread = threading.get_ident()
        self.recording = Recording(keep, hold=not hooks.compiled)
        self.latent_size: Grid = (0, 0)
        self.repeats = self.for_gradients = self._moved = False
        self._hooks, self._prompt, self._sides, self.area = hooks, prompt, sides, area
        self._texts = UNetTexts(texts, whole_call)
        self._concepts = None if concepts is None else UNetConcepts(self.recording, hooks, concepts)
        self._whole_call = whole_call
        self._plans: tuple[Any, LayerPlans] | None = None
        self._groups: dict[tuple[Side, int], Group] = {}
        self._slices: dict[tuple[int, int], BatchSlice] = {}
        self._forward: RunningForward | None = None
        self._pending: list[Group] = []
        self.given_latents = GivenLatents()
        self._time: Any = None
        self._read: list[int] = []
        self._any_read = False
        self._broken = False

    # -- steps ------------------------------------------------------------------------------------------------------

    def end_step(self, timestep: Any = None) -> None:
        """A step is over, if anything of it was recorded.

        Raises:
            NothingRecorded: its only forwards were made for a gradient.
        """
        moved, self._moved = self._moved, False
        if self._broken:
            return
        if not self._pending:
            if moved and self.recording.num_steps:
                raise NothingRecorded(
                    "behind the first step the UNet's answers were made for a gradient of its latents, as in a training "
                    "through several steps, and those are not read: paint inside `torch.no_grad()`"
                )
            return
        self._pending = []
        self.recording.end_step(self._time if timestep is None else timestep)
        prompts = [group for (side, _), group in self._groups.items() if side == "prompt"]
        if prompts:
            self._hooks.detach_self_attention(but=prompts[-1].accumulator.self_grid)

    def fail(self, error: Exception) -> None:
        """Stop recording; the pipeline goes on."""
        self.recording.fail(error)
        if self._outputs is not None:
            self._outputs.end(finished=False)
        self._groups.clear()
        self._texts.clear()
        self._plans = None
        self._pending, self._forward = [], None

    # -- what the hooks on the UNet read, see `AttentionReceiver` ---------------------------------------------------

    def wants_forward(self) -> bool:
        return threading.get_ident() == self.thread and not self.recording.failure and not self._in_callback()

    def begin_forward(self, inputs: UNetInputs) -> bool:
        if self._whole_call and torch.is_grad_enabled() and inputs.sample.requires_grad:
            self.repeats = self.for_gradients = self._moved = True
            return False
        if self._broken:
            raise NothingRecorded("a forward of the UNet was broken off in the middle and another one made in its place")
        places = self._places(inputs)
        if not places:
            return False
        again = any(group in self._pending for group, _ in places)
        if again and not same_time(inputs.timestep, self._time):
            self.given_latents.at_another_time()
            self.end_step()
            again = False
        if not self._pending:
            self.given_latents.begin()
        self._note_latents(inputs, places)
        if again:
            self.repeats = True
            places = [(group, where) for group, where in places if group not in self._pending]
            if not places:
                return False
        self._time = inputs.timestep
        self._pending += [group for group, _ in places]
        context, frames, bias = inputs.context, inputs.frames, inputs.text_bias
        assert context is not None
        self._forward = RunningForward(
            len(inputs.sample) * max(1, frames),
            context.shape[1],
            context,
            frames,
            places,
            inputs.columns_behind,
            bias,
            PlannedLayers(
                self._plans_of(context, frames, bias is not None, places),
                self._texts.keys(context, self._hooks),
                not inputs.masks_self and self.area.whole and not frames and self.recording.keeps_self_attention,
            ),
        )
        if self._outputs is not None:
            self._outputs.begin(self.recording, OutputForward(places, self._forward.batch, context.shape[1], frames))
        return True

    def _note_latents(self, inputs: UNetInputs, places: list[tuple[Group, BatchSlice]]) -> None:
        """What the UNet is shown with the texts of `places`."""
        whose = {
            where.start + number: ((group, image), image)
            for group, where in places
            for number, image in enumerate(group.images)
        }
        copies = self._texts.copies(self._context_of(inputs))
        self.given_latents.add(inputs.sample, whose, {i: rows for i, rows in copies.items() if whose.keys() & set(rows)})

    def planned(self) -> PlannedLayers | None:
        forward = self._forward
        # What else is read of a layer is read in `on_attention`.
        return None if forward is None or self._concepts is not None or self._outputs is not None else forward.planned

    def on_attention(self, layer: int, grid: Grid, q: Tensor, k: Tensor, cross: bool, of_context: bool = False) -> None:
        forward = self._forward
        if forward is None:
            return
        if cross and self._outputs is not None:
            self._outputs.attended(self._hooks.layers[layer].name, layer, grid)
        planned = forward.planned
        keys = planned.text_keys if of_context else None
        if cross and planned.take(layer, grid, q, k, of_context):
            if self._concepts is not None:
                self._add_concepts(self._concepts, layer, grid, q, k, forward, keys)
            return
        if not cross and not planned.reads_self:
            return
        described = self._hooks.layers[layer]
        if not cross:
            if q.shape[0] == forward.batch:  # else perturbed, or merged
                for group, where in forward.places:
                    if group.side == "prompt":
                        group.accumulator.add_self(grid, q, k, described.heads, described.scale, where)
            return
        ahead = q.shape[1] if self._hooks.sees_picture(layer) else 0
        if q.shape[0] != forward.batch or k.shape[:2] != (forward.batch, ahead + forward.keys + forward.behind):
            raise UnsupportedModel(
                f"{described.name} attended from {q.shape[0]} rows to {k.shape[1]} keys, where the UNet was given "
                f"{forward.batch} rows and {forward.keys} columns of text; its attention processor changes them."
            )
        planned.read.append(layer)
        if forward.frames:
            self._add_frames(layer, grid, q, k, forward)
            return
        if self._concepts is not None:
            self._add_concepts(self._concepts, layer, grid, q, k, forward, keys)
        if forward.bias is None and not ahead and not forward.behind:
            planned.plans.set(
                layer,
                [
                    group.accumulator.add_cross(layer, grid, q, k, described.heads, described.scale, where, keys)
                    for group, where in forward.places
                ],
            )
            return
        for group, where in forward.places:
            rows, text = where.index, slice(ahead, ahead + forward.keys)
            bias = None if forward.bias is None else forward.bias[rows]
            group.accumulator.add_joint(layer, grid, q[rows], k[rows], described.heads, described.scale, where, text, bias)

    def _add_concepts(
        self,
        concepts: UNetConcepts,
        layer: int,
        grid: Grid,
        q: Tensor,
        k: Tensor,
        forward: RunningForward,
        keys: object | None,
    ) -> None:
        own = [where for group, where in forward.places if group.side == "prompt"]
        concepts.add(self._hooks.layers[layer], layer, grid, q, k, forward.context, own, keys)

    def _add_frames(self, layer: int, grid: Grid, q: Tensor, k: Tensor, forward: RunningForward) -> None:
        """A layer whose batch holds the frames of each video one after the other, all with that video's text."""
        described, frames, text = self._hooks.layers[layer], forward.frames, slice(0, forward.keys)
        for group, where in forward.places:
            rows = slice(where.start * frames, where.stop * frames)
            queries = q[rows].unflatten(0, (-1, frames)).flatten(1, 2)
            group.accumulator.add_joint(
                layer, grid, queries, k[rows][::frames], described.heads, described.scale, where, text, frames=frames
            )

    def end_forward(self, finished: bool) -> None:
        layers = [] if self._forward is None else self._forward.planned.read
        self._forward = None
        if self._outputs is not None:
            self._outputs.end(finished)
        if not finished:
            self._broken = True
            return
        if layers == self._read and layers:  # the same as in the last step, in the same order
            return
        if len(set(layers)) != len(layers):
            twice = next(layer for layer in layers if layers.count(layer) > 1)
            raise UnsupportedModel(
                f"{self._hooks.layers[twice].name} attended more than once in one step, so nobody can say which answer painted "
                "the picture; its attention processor does that."
            )
        self._any_read |= bool(layers)
        if not self._any_read:
            raise UnsupportedModel(
                "Not one cross-attention layer of the UNet was run through its own queries and keys, so there is nothing to "
                "read; something else runs in their place."
            )
        if self._read and set(layers) != set(self._read):
            self._hooks.check_layers()  # some layers were skipped, or are not read any more
        self._read = layers

    # -- whose rows are whose ---------------------------------------------------------------------------------------

    def _context_of(self, inputs: UNetInputs) -> Tensor:
        """The text of each picture or video, `[rows, columns, dim]` where it can be read."""
        context, frames = inputs.context, inputs.frames
        if context is None:
            raise NothingRecorded("the UNet was called without text")
        if frames and context.dim() == 3 and len(context) == len(inputs.sample) * frames:
            context = self._texts.of_videos(context, frames)  # the pipeline repeated it for the frames, or the UNet will
        return context

    def _places(self, inputs: UNetInputs) -> list[tuple[Group, BatchSlice]]:
        sample, context = inputs.sample, self._context_of(inputs)
        if sample.dim() not in (4, 5) or context.dim() != 3 or len(sample) != len(context):
            raise UnsupportedModel(
                f"the UNet was given latents of shape {tuple(sample.shape)} and text of shape {tuple(context.shape)}, where "
                "one row of text for each picture is read"
            )
        size = sample.shape[-2], sample.shape[-1]
        if self._groups:
            require_proportions(self.latent_size, size)
        self.latent_size = max(self.latent_size, size)
        places = []
        for (side, part), rows in self._texts.rows(context).items():
            if side in self._sides:
                group = self._groups.get((side, part)) or self._start(side, part, inputs, context)
                key = (rows.start, rows.stop)
                if key not in self._slices:
                    self._slices[key] = BatchSlice(*key, area=self.area)
                places.append((group, self._slices[key]))
        return places

    def _plans_of(self, context: Tensor, frames: int, masked: bool, places: list[tuple[Group, BatchSlice]]) -> LayerPlans:
        """The plans of the layers, kept while the forwards' shapes and the rows that are recorded stay the same, and while
        columns of the text are `masked` or none are: masked ones have no plan."""
        like = (context.shape, frames, masked, tuple(places))
        if self._plans is None or self._plans[0] != like:
            self._plans = like, LayerPlans()
        return self._plans[1]

    def _start(self, side: Side, part: int, inputs: UNetInputs, context: Tensor) -> Group:
        """A text that comes in for the first time."""
        if not self._groups:
            self._hooks.reattach()  # an earlier call left out what it had no use for
            self._hooks.check_layers()
            self.recording.describe(self._hooks.layers)
        own = self._texts.of_part(side, part)
        prompts = [self._prompt(text) for text in own]
        group = self.recording.add_group(side, range(len(own)), prompts)
        self._groups[side, part] = group
        if side == "prompt" and self._concepts is not None:
            self._concepts.start(prompts, context, inputs.frames > 0)
        return group
