"""One recording: groups of pictures with their prompts and accumulators, layers, steps, the first error, the maps at the end.

Every host drives the same class: it adds a group for each side (prompt, negative prompt) whose rows it can tell apart, adds
attention to the groups' accumulators, counts steps, and asks for the maps of each picture when the sampler is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import BadArgument, DaamLensError, NothingRecorded, reason_of, recording_failure
from ..maps.data import RecordedImage
from ..maps.heatmaps import HeatMaps
from ..maps.succession import join_in_succession
from ..prompt.context import batch_selection
from ..prompt.prompt import Prompt
from ..types import Block, Grid, Layer, Side, Size
from .accumulator import Accumulator
from .buffers import StoreOptions
from .concept_sums import ConceptSums
from .extraction import recorded_image

logger = logging.getLogger("daam_lens")
SIDES: tuple[Side, ...] = ("prompt", "negative")
NO_STEP = "Not one sampling step was finished, so there is no heat map. Let the sampler run on."


@dataclass(frozen=True, eq=False)
class Group:
    """Pictures of one side that stand side by side in the model's batch and share an accumulator.

    Attributes:
        side: prompt or negative prompt.
        images: their numbers in the recording.
        prompts: the words of each.
        accumulator: the sums of their attention.
    """

    side: Side
    images: tuple[int, ...]
    prompts: Sequence[Prompt]
    accumulator: Accumulator


class Recording:
    """What a model attended to while it made one batch of pictures.

    An error ends the recording and never the picture: `fail` keeps the first one as the sentence that is shown where maps
    are asked for, and lets go of everything recorded so far.

    Args:
        keep: what to keep apart.
        hold: whether small layers may be held by reference until the step ends: eager models only, see `LayerBatch`.

    Attributes:
        failure: why recording stopped, empty while it goes on.
        groups: in the order in which they were added.
        concepts: what is recorded of concepts that are not in the prompt, None where nothing is.
        concept_failure: why it stopped; the words' maps go on.
        output_failure: why what the attention gives out is not recorded any more; the words' maps go on.
    """

    def __init__(self, keep: StoreOptions, hold: bool = False) -> None:
        self.keep, self._hold = keep, hold
        self.failure = ""
        self.groups: list[Group] = []
        self.layers: list[Layer] = []
        self._numbers: dict[Hashable, int] = {}
        self._times: list[Any] = []
        self.concepts: ConceptSums | None = None
        self.concept_failure = self.output_failure = ""

    # -- while the model runs ---------------------------------------------------------------------------------------

    def add_group(
        self,
        side: Side,
        images: Sequence[int],
        prompts: Sequence[Prompt],
        select: Callable[[int, int], Tensor] | None = None,
        index: slice | None = None,
    ) -> Group:
        """Pictures of one side, from now on.

        Args:
            side: prompt or negative prompt.
            images: their numbers in the recording; a picture is in several groups of a side where it is made of several
                prompts in succession.
            prompts: the words of each picture.
            select: which context columns make up which channel, see `Accumulator`; by default each prompt's own.
            index: rows of the model's batch that are these pictures, where they are the same in every call.
        """
        chosen = slice(0, len(images)) if index is None else index
        accumulator = Accumulator(chosen, select or prompt_selection(prompts), self.keep, self._hold)
        accumulator.step_count = len(self._times)
        group = Group(side, tuple(images), tuple(prompts), accumulator)
        if self.output_failure:
            accumulator.outputs = None
        self.groups.append(group)
        return group

    def layer(self, key: Hashable, name: str, block: Block, heads: int, scale: float) -> int:
        """The number of an attention layer; a new `key` is a new layer."""
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.layers)
            self.layers.append(Layer(name, block, heads, scale))
        return number

    def describe(self, layers: list[Layer]) -> None:
        """Layers that the host numbers itself."""
        self.layers = layers

    @property
    def keeps_self_attention(self) -> bool:
        """Whether the picture's attention to itself is kept in the step that comes."""
        prompts = [group.accumulator for group in self.groups if group.side == "prompt"]
        return any(one.keeps_self_attention for one in prompts) if prompts else self.keep.self_attention

    def wants_self(self, grid: Grid) -> bool:
        """The same, of layers that work at `grid`."""
        prompts = [group.accumulator for group in self.groups if group.side == "prompt"]
        return any(one.wants_self(grid) for one in prompts) if prompts else self.keep.self_attention

    def end_step(self, time: Any) -> None:
        """A step is over; `time` is its timestep or noise level as the sampler has it: reading it now would make it wait."""
        self._times.append(time)
        for group in self.groups:
            group.accumulator.end_step()
        if self.concepts is not None:
            try:
                self.concepts.end_step(len(self._times))
            except Exception as error:
                self.fail_concepts(error)

    def fail(self, error: Exception) -> None:
        """Stop recording; the sampler goes on. What was foreseen is one line in the log, anything else has a traceback."""
        if self.failure:
            return
        self.failure = recording_failure(error)
        logger.warning("DAAM Lens: %s", self.failure, exc_info=None if isinstance(error, DaamLensError) else error)
        self.clear()

    def fail_concepts(self, error: Exception) -> None:
        """Stop recording concepts; words are recorded on."""
        if not self.concept_failure:
            self.concept_failure = f"There are no concepts, the words were recorded: {reason_of(error)}".rstrip(".") + "."
            logger.warning("DAAM Lens: %s", self.concept_failure, exc_info=None if isinstance(error, DaamLensError) else error)
        self.concepts = None

    def or_without_outputs(self, add: Callable[..., None], *args: Any) -> None:
        """Call what records the attention's output; where it raises, words are recorded on and the output no more."""
        if self.output_failure:
            return
        try:
            add(*args)
        except Exception as error:
            self.fail_outputs(error)

    def fail_outputs(self, error: Exception) -> None:
        """Stop recording what the attention gives out; words are recorded on."""
        foreseen = isinstance(error, DaamLensError)
        if not self.output_failure:
            reason = reason_of(error)
            self.output_failure = f"The output of the attention was not recorded, the words were: {reason}".rstrip(".") + "."
            logger.warning("DAAM Lens: %s", self.output_failure, exc_info=None if foreseen else error)
        for group in self.groups:
            group.accumulator.outputs = None

    # -- at the end -------------------------------------------------------------------------------------------------

    @property
    def num_images(self) -> int:
        """How many pictures were recorded."""
        return max((1 + max(group.images) for group in self.groups), default=0)

    @property
    def num_steps(self) -> int:
        """How many steps were finished."""
        return len(self._times)

    def release(self) -> None:
        """Give back what only a running sampler needs."""
        for group in self.groups:
            group.accumulator.release()
        if self.concepts is not None:
            self.concepts.release()

    def clear(self) -> None:
        """Let go of everything."""
        self.groups.clear()
        self._times.clear()
        self.concepts = None

    def finish(self, image: int, size: Size, picture: NDArray[np.uint8] | None = None) -> HeatMaps:
        """The maps of one picture, both sides, on the CPU.

        Args:
            image: its number, from 0.
            size: (height, width) of the finished picture in pixels.
            picture: uint8 `[H, W, 3]`, where it is known.

        Raises:
            NothingRecorded: recording failed, or not one step was finished; the text says why.
            BadArgument: there is no such picture.
        """
        if self.failure:
            raise NothingRecorded(self.failure)
        mine = [group for group in self.groups if image in group.images]
        if self.groups and not mine:
            raise BadArgument(f"There is no picture {image}: {self.num_images} were recorded, counted from 0.")
        sides: dict[Side, RecordedImage] = {}
        for side in SIDES:
            parts = [self._part(group, image) for group in mine if group.side == side and group.accumulator.buffers]
            if parts:
                sides[side] = join_in_succession(parts)
        if not sides:
            raise NothingRecorded(NO_STEP)
        if "prompt" not in sides:
            sides = {"prompt": sides["negative"]}
        self._add_concepts(sides, image)
        return HeatMaps(sides, size, picture)

    def _add_concepts(self, sides: dict[Side, RecordedImage], image: int) -> None:
        if self.concepts is None:
            return
        try:
            found = self.concepts.finish(image, self.layers, sides["prompt"].timesteps)
        except DaamLensError as error:
            self.fail_concepts(error)
            return
        if found is not None:
            sides["concepts"] = found

    def _part(self, group: Group, image: int) -> RecordedImage:
        accumulator = group.accumulator
        accumulator.release()
        times = _numbers(self._times[: accumulator.step_count])
        position = group.images.index(image)
        return recorded_image(accumulator, self.layers, group.prompts, position, times)


def _numbers(times: Sequence[Any]) -> list[float]:
    """The first number of each tensor or number; of tensors on one device together, so that the host waits for it once."""
    firsts = [torch.as_tensor(time).flatten()[:1] for time in times]
    if len({first.device for first in firsts}) == 1:
        return [float(number) for number in torch.cat(firsts).tolist()]
    return [float(first) for first in firsts]


def prompt_selection(prompts: Sequence[Prompt]) -> Callable[[int, int], Tensor]:
    """`select(keys, part)` of several pictures side by side, see `context.batch_selection`; there is one part."""
    return lambda keys, _part: batch_selection(prompts, keys)
