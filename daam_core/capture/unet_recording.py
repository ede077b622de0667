"""Attention of a pipeline's UNet, summed for each side of its batch, while the pipeline runs once."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import NothingRecorded, UnsupportedModel
from ..prompt.prompt import Prompt
from ..types import Grid, Side
from .buffers import BatchSlice, StoreOptions
from .concept_texts import ConceptTexts
from .concepts import ConceptRecording
from .layer_plan import LayerPlan
from .recording import Group, Recording
from .region import WHOLE, Area
from .text_rows import EncodedText, match_blocks
from .unet_forward import UNetInputs
from .unet_hooks import UNetAttentionHooks

_KNOWN = 8
"""So many texts that the UNet was given are remembered with whose they are."""


@dataclass(frozen=True, eq=False)
class _Forward:
    """One forward of the UNet, as far as it is recorded.

    Attributes:
        batch, keys: rows of its layers' batch, columns of its text.
        context: the text, `[batch, keys, dim]`.
        frames: of a video, how many of those rows are one video, 0 of pictures.
        places: whose sums which rows go into.
        text_keys: the same object as in an earlier forward whose text and weights were the same, None in a compiled UNet.
        bias: what is added to the scores of the text's columns, `[batch, 1, 1, keys]`, None where nothing is.
        plans: of layers that attended in an earlier forward like this one, where their sums go.
        reads_self: whether the picture's attention to itself is what its projections say.
    """

    batch: int
    keys: int
    context: Tensor
    frames: int
    places: Sequence[tuple[Group, BatchSlice]]
    text_keys: object | None
    bias: Tensor | None
    plans: dict[int, list[LayerPlan]]
    reads_self: bool


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

    Attributes:
        thread: the thread that makes the call.
        recording: groups, layers and steps.
        area: which part of the picture the UNet paints.
        latent_size: (h, w) of the latents that the UNet was given, (0, 0) before that.
        repeats: whether a step had more forwards than were read.
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
    ) -> None:
        self._concepts = concepts
        self._concept_keys: ConceptRecording | None = None
        self._proved: set[int] = set()
        self.thread = threading.get_ident()
        self.recording = Recording(keep, hold=not hooks.compiled)
        self.latent_size: Grid = (0, 0)
        self.repeats = self.for_gradients = False
        self._hooks, self._texts, self._prompt, self._sides, self.area = hooks, texts, prompt, sides, area
        self._whole_call = whole_call
        self._plans: tuple[Any, dict[int, list[LayerPlan]]] | None = None
        self._made_of: tuple[Tensor, int, bool, list[int], list[Tensor | None], object] | None = None
        self._repeated: tuple[tuple[int, int, int], Tensor, Tensor] | None = None
        self._groups: dict[tuple[Side, int], Group] = {}
        self._slices: dict[tuple[int, int], BatchSlice] = {}
        self._known: dict[tuple[Any, ...], tuple[Tensor, dict[tuple[Side, int], slice]]] = {}
        self._forward: _Forward | None = None
        self._pending: list[Group] = []
        self._time: Any = None
        self._heard: frozenset[int] = frozenset()
        self._layers: list[int] = []
        self._broken = False

    # -- steps ------------------------------------------------------------------------------------------------------

    def end_step(self, timestep: Any = None) -> None:
        """A step is over, if anything of it was recorded."""
        if not self._pending or self._broken:
            return
        self._pending = []
        self.recording.end_step(self._time if timestep is None else timestep)
        prompts = [group for (side, _), group in self._groups.items() if side == "prompt"]
        if prompts:
            self._hooks.detach_self_attention(but=prompts[-1].accumulator.self_grid)

    def fail(self, error: Exception) -> None:
        """Stop recording; the pipeline goes on."""
        self.recording.fail(error)
        self._groups.clear()
        self._known.clear()
        self._plans = self._made_of = None
        self._pending, self._forward = [], None

    # -- what the hooks on the UNet read, see `AttentionReceiver` ---------------------------------------------------

    def wants_forward(self) -> bool:
        return threading.get_ident() == self.thread and not self.recording.failure

    def begin_forward(self, inputs: UNetInputs) -> bool:
        if self._whole_call and torch.is_grad_enabled() and inputs.sample.requires_grad:
            self.repeats = self.for_gradients = True
            return False
        if self._broken:
            raise NothingRecorded("a forward of the UNet was broken off in the middle and another one made in its place")
        places = self._places(inputs)
        if not places:
            return False
        if any(group in self._pending for group, _ in places):
            if _same_time(inputs.timestep, self._time):
                self.repeats = True
                places = [(group, where) for group, where in places if group not in self._pending]
                if not places:
                    return False
            else:
                self.end_step()
        self._time = inputs.timestep
        self._pending += [group for group, _ in places]
        context, frames = inputs.context, _frames(inputs.sample)
        assert context is not None
        self._forward = _Forward(
            len(inputs.sample) * max(1, frames),
            context.shape[1],
            context,
            frames,
            places,
            self._text_keys(context),
            inputs.text_bias,
            self._plans_of(context, frames, places),
            not inputs.masks_self and self.area.whole and not frames,
        )
        self._layers = []
        return True

    def on_attention(self, layer: int, grid: Grid, q: Tensor, k: Tensor, cross: bool, of_context: bool = False) -> None:
        forward = self._forward
        if forward is None:
            return
        known = forward.plans.get(layer)
        if known is not None and cross and known[0].fits(q, k):
            self._layers.append(layer)
            keys = forward.text_keys if of_context else None
            for plan in known:
                plan.add(q, k, keys)
            return
        described = self._hooks.layers[layer]
        if not cross:
            if forward.reads_self and q.shape[0] == forward.batch:  # else perturbed, or merged
                for group, where in forward.places:
                    if group.side == "prompt":
                        group.accumulator.add_self(grid, q, k, described.heads, described.scale, where)
            return
        if q.shape[0] != forward.batch or k.shape[:2] != (forward.batch, forward.keys):
            raise UnsupportedModel(
                f"{described.name} attended from {q.shape[0]} rows to {k.shape[1]} keys, where the UNet was given "
                f"{forward.batch} rows and {forward.keys} columns of text; its attention processor changes them."
            )
        self._layers.append(layer)
        if forward.frames:
            self._add_frames(layer, grid, q, k, forward)
            return
        concepts = self._concepts is not None and self.recording.concepts is not None
        if concepts:
            self._add_concepts(forward, layer, grid, q, k)
        if forward.bias is None:
            keys = forward.text_keys if of_context else None
            plans = [
                group.accumulator.add_cross(layer, grid, q, k, described.heads, described.scale, where, keys)
                for group, where in forward.places
            ]
            if not concepts:  # they want every step of the layer, too
                forward.plans[layer] = plans
            return
        for group, where in forward.places:
            rows, text = where.index, slice(0, forward.keys)
            group.accumulator.add_joint(
                layer, grid, q[rows], k[rows], described.heads, described.scale, where, text, forward.bias[rows]
            )

    def _add_concepts(self, forward: _Forward, layer: int, grid: Grid, q: Tensor, k: Tensor) -> None:
        """A layer's attention to concepts; whatever goes wrong ends them, not the words."""
        concepts, described = self._concept_keys, self._hooks.layers[layer]
        assert concepts is not None
        try:
            for group, where in forward.places:
                if group.side != "prompt":
                    continue
                if layer not in self._proved:
                    self._proved.add(layer)
                    concepts.require_own_keys(described, layer, forward.context[where.start], k[where.start])
                concepts.add(layer, grid, q, k, described.heads, described.scale, where)
        except Exception as error:
            self.recording.fail_concepts(error)

    def _add_frames(self, layer: int, grid: Grid, q: Tensor, k: Tensor, forward: _Forward) -> None:
        """A layer whose batch holds the frames of each video one after the other, all with that video's text."""
        described, frames, text = self._hooks.layers[layer], forward.frames, slice(0, forward.keys)
        for group, where in forward.places:
            rows = slice(where.start * frames, where.stop * frames)
            queries = q[rows].unflatten(0, (-1, frames)).flatten(1, 2)
            group.accumulator.add_joint(
                layer, grid, queries, k[rows][::frames], described.heads, described.scale, where, text, frames=frames
            )

    def end_forward(self, finished: bool) -> None:
        self._forward = None
        if not finished:
            self._broken = True
            return
        heard = frozenset(self._layers)
        if len(heard) != len(self._layers):
            twice = next(layer for layer in heard if self._layers.count(layer) > 1)
            raise UnsupportedModel(
                f"{self._hooks.layers[twice].name} attended more than once in one step, so nobody can say which answer painted "
                "the picture; its attention processor does that."
            )
        if not heard and not self._heard:
            raise UnsupportedModel(
                "Not one cross-attention layer of the UNet was run through its own queries and keys, so there is nothing to "
                "read; something else runs in their place."
            )
        if heard != self._heard:
            if self._heard:
                self._hooks.watch_layers()  # some layers were skipped, or are not read any more
            self._heard = heard

    # -- whose rows are whose ---------------------------------------------------------------------------------------

    def _places(self, inputs: UNetInputs) -> list[tuple[Group, BatchSlice]]:
        sample, context = inputs.sample, inputs.context
        if context is None:
            raise NothingRecorded("the UNet was called without text")
        frames = _frames(sample)
        if frames and context.dim() == 3 and len(context) == len(sample) * frames:
            context = self._of_videos(context, frames)  # the pipeline repeated it for the frames, or the UNet will
        if sample.dim() not in (4, 5) or context.dim() != 3 or len(sample) != len(context):
            raise UnsupportedModel(
                f"the UNet was given latents of shape {tuple(sample.shape)} and text of shape {tuple(context.shape)}, where "
                "one row of text for each picture is read"
            )
        found = self._found(context)
        if len({side for side, _ in found}) < len(found):
            raise NothingRecorded(
                "The UNet was given several texts at once that were all encoded as prompts, so nobody knows which is the "
                "negative one. Encode both in one call of `pipe.encode_prompt`."
            )
        self.latent_size = max(self.latent_size, (sample.shape[-2], sample.shape[-1]))
        places = []
        for (side, part), rows in found.items():
            if side in self._sides:
                group = self._groups.get((side, part)) or self._start(side, part, inputs, context)
                key = (rows.start, rows.stop)
                if key not in self._slices:
                    self._slices[key] = BatchSlice(*key, area=self.area)
                places.append((group, self._slices[key]))
        return places

    def _plans_of(self, context: Tensor, frames: int, places: list[tuple[Group, BatchSlice]]) -> dict[int, list[LayerPlan]]:
        """The plans of the layers, kept while the forwards' shapes and the rows that are recorded stay the same."""
        like = (context.shape, frames, tuple(places))
        if self._plans is None or self._plans[0] != like:
            self._plans = like, {}
        return self._plans[1]

    def _text_keys(self, context: Tensor) -> object | None:
        """See `_Forward.text_keys`. Counters tell of most that can change weights; the last step's keys are compared, too."""
        if self._hooks.compiled or context.is_inference():
            return None
        weights, versions = self._hooks.key_versions()
        autocast = torch.is_autocast_enabled(context.device.type)
        known = self._made_of
        same = (
            known is not None
            and known[0] is context
            and known[1:4] == (context._version, autocast, versions)
            and all(map(operator.is_, known[4], weights))
        )
        if not same or known is None:
            known = self._made_of = (context, context._version, autocast, versions, weights, object())
        return known[5]

    def _of_videos(self, context: Tensor, frames: int) -> Tensor:
        """The text of each video, where it is given once for each frame; compared once for each tensor."""
        key = (id(context), 0 if context.is_inference() else context._version, frames)
        if self._repeated is None or self._repeated[0] != key:
            own = context[::frames]
            if not torch.equal(own.repeat_interleave(frames, 0), context):
                raise NothingRecorded("the frames of one video were given different texts, so there is no map of its prompt")
            self._repeated = key, context, own
        return self._repeated[2]

    def _found(self, context: Tensor) -> dict[tuple[Side, int], slice]:
        """Whose the rows of a text are; compared once, and again where it is another tensor or was written into."""
        texts = self._texts()
        key = (id(context), 0 if context.is_inference() else context._version, context.shape, len(texts))
        if key not in self._known:
            found = match_blocks(list(context), texts)
            if not found and self._whole_call:
                raise NothingRecorded(
                    "The text that the UNet was given is none of those that the pipeline encoded, so nobody knows whose it is. "
                    "Give the pipeline the prompt itself, or embeddings made inside the trace by `pipe.encode_prompt`."
                )
            if len(self._known) >= _KNOWN:
                self._known.pop(next(iter(self._known)))
            self._known[key] = context, found  # kept, so that no other tensor can get its identity
        return self._known[key][1]

    def _start(self, side: Side, part: int, inputs: UNetInputs, context: Tensor) -> Group:
        """A text that comes in for the first time."""
        if not self._groups:
            self._hooks.reattach()  # an earlier call left out what it had no use for
            self._hooks.watch_layers(inputs.text_bias)
            self.recording.describe(self._hooks.layers)
        own = sorted((t for t in self._texts() if (t.side, t.part) == (side, part)), key=lambda text: text.image)
        prompts = [self._prompt(text) for text in own]
        group = self.recording.add_group(side, range(len(own)), prompts)
        self._groups[side, part] = group
        if side == "prompt" and self._concepts is not None and not self.recording.concept_failure:
            self._start_concepts(prompts, self._concepts(), context, _frames(inputs.sample) > 0)
        return group

    def _start_concepts(self, prompts: Sequence[Prompt], texts: ConceptTexts | None, context: Tensor, video: bool) -> None:
        recording = self.recording
        try:
            if video:
                raise UnsupportedModel("of videos they are not read")
            if texts is None:
                raise NothingRecorded("the pipeline did not encode its prompt inside the trace, so concepts were not either")
            if recording.concepts is None:
                hooks = self._hooks
                self._concept_keys = ConceptRecording(texts, prompts, hooks.text_keys, hooks.key_weights, context)
                recording.concepts = self._concept_keys
            elif self._concept_keys is not None:
                self._concept_keys.hold_against(prompts)
        except Exception as error:
            recording.fail_concepts(error)


def _frames(sample: Tensor) -> int:
    """The frames of the latents of videos `[batch, c, frames, h, w]`, 0 of pictures."""
    return int(sample.shape[2]) if sample.dim() == 5 else 0


def _same_time(one: Any, other: Any) -> bool:
    """Whether two timesteps are the same; where there are none, they are."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one.to(other.device), other)
    return bool(one == other)
