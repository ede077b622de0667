"""What `trace` gives: the recorded calls of one pipeline, and the maps of their pictures."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..capture.buffers import StoreOptions
from ..capture.heat_so_far import heat_so_far
from ..capture.recording import Group, Recording
from ..errors import BadArgument, DaamLensError, DetailMissing, NothingRecorded, quoted
from ..maps.heatmaps import Aggregation, HeatMaps
from ..masks.validate import checked_whole
from ..picture_files import rgb_pixels
from ..prompt.prompt import Prompt
from ..types import Size, Video
from .videos import with_its_video


@dataclass
class Generation:
    """One call of the pipeline.

    Attributes:
        recording: what was recorded of it, or why nothing was.
        images, size: pictures it makes, (height, width) of each in pixels.
        prompt, negative: the groups of both sides.
        pictures: what the pipeline's image processor gave out.
        videos: the frames of each video, uint8 `[frames, H, W, 3]`; None for one that is larger than a recording holds.
        given: the arguments of the call, as far as they are known.
    """

    recording: Recording
    images: int = 0
    size: Size = (0, 0)
    prompt: Group | None = None
    negative: Group | None = None
    pictures: Any = None
    videos: Sequence[Video | None] = ()
    given: Mapping[str, Any] = field(default_factory=dict)


class AttentionTrace:
    """What `trace` gives: `with trace(pipe) as recording: pipe(…)`, then `recording.heat_maps()`, or `for maps in recording`.

    Every call of the pipeline inside the block is a generation of its own; one that fails to be recorded says why and does
    not touch the next.
    """

    def __init__(self, pipe: Any, keep: StoreOptions, negative: bool) -> None:
        self._pipe, self._keep, self._negative = pipe, keep, negative
        self._stack = ExitStack()
        self._entered = 0
        self._generations: list[Generation] = []

    @property
    def num_generations(self) -> int:
        """How many calls of the pipeline were seen, those included that could not be recorded."""
        return len(self._generations)

    @property
    def num_images(self) -> int:
        """How many pictures the last generation made: `[recording.heat_maps(i) for i in range(recording.num_images)]`."""
        return self._generations[-1].images if self._generations else 0

    @property
    def failure(self) -> str | None:
        """Why the last generation could not be recorded, None if it was; the picture was made all the same."""
        return (self._generations[-1].recording.failure or None) if self._generations else None

    @property
    def concept_failure(self) -> str | None:
        """Why the last generation has no concepts although some were asked for, None if it has; its words have their maps."""
        return (self._generations[-1].recording.concept_failure or None) if self._generations else None

    @property
    def output_failure(self) -> str | None:
        """Why the last generation has no output space although it was asked for, None if it has; its words have their maps."""
        return (self._generations[-1].recording.output_failure or None) if self._generations else None

    def __iter__(self) -> Iterator[HeatMaps]:
        """The maps of every picture of the last generation."""
        return (self.heat_maps(image) for image in range(self.num_images))

    def __enter__(self) -> AttentionTrace:
        """Listen. Inside its own block it listens already, and goes on until the outer block ends."""
        if not self._entered:
            try:
                self._attach()
            except BaseException:
                self._stack.close()
                raise
        self._entered += 1
        return self

    def _attach(self) -> None:
        """Put everything into `_stack` that the trace listens with."""
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        self._entered -= 1
        if not self._entered:
            self._stack.close()

    def heat_maps(self, image: int = 0, *, generation: int = -1, aggregation: Aggregation = "sum") -> HeatMaps:
        """The maps of one picture.

        Args:
            image: which picture of the generation, from 0.
            generation: which call of the pipeline; the last one by default.
            aggregation: "sum" is Eq. 6; "castorini" is the rule of the castorini/daam package (needs `keep="heads"`); "output"
                and "anchor" are of what the attention gives out (need `output_space=True`, see `maps.output_space`).

        Raises:
            NothingRecorded: nothing was sampled inside the trace, or that call could not be recorded (the text says why).
            BadArgument: no such picture or generation.
            DetailMissing: what the aggregation needs was not recorded (the text says why, or how to record it).
        """
        if not self._generations:
            raise NothingRecorded(self._nothing())
        image = checked_whole(image, "image", 0)
        try:
            chosen = self._generations[operator.index(generation)]
        except (IndexError, TypeError):
            seen = quoted(generation, 40)
            raise BadArgument(f"There is no generation {seen}: {self.num_generations} were recorded.") from None
        maps = chosen.recording.finish(image, chosen.size, _picture(chosen.pictures, image))
        video = chosen.videos[image] if image < len(chosen.videos) else None
        maps = with_its_video(maps, video, chosen.given, self._pipe)
        if aggregation in ("output", "anchor") and chosen.recording.output_failure:
            raise DetailMissing(chosen.recording.output_failure)
        return maps.aggregate(aggregation, self._castorini_side() if aggregation == "castorini" else 64)

    def heat_so_far(self, word: str, size: Size, image: int = 0, prompt: Prompt | None = None) -> Tensor | None:
        """A word's heat over the steps that are finished, while the pipeline still runs: call it in the pipeline's own thread,
        as from `callback_on_step_end`.

        Args:
            word: a word or phrase of the picture's prompt, see `Prompt.find`.
            size: (height, width) of the result.
            image: number of the picture, from 0.
            prompt: the words of embeddings that somebody else made.

        Returns:
            float32 `[h, w]` on the CPU, a share of attention 0..1 (see `capture.heat_so_far`); None where no call is recorded
            in this thread, before the first step is finished, and where the prompt's words are not known.

        Raises:
            WordNotFound: the prompt has no such word; the text lists those it has.
            BadArgument: `prompt` has another number of columns than was recorded.
        """
        recording = self._running_recording()
        if recording is None:
            return None
        try:
            return heat_so_far(recording, image, word, size, prompt=prompt)
        except DaamLensError:
            raise
        except Exception as error:  # sums that were worked off by half would be wrong
            self._fail(error)
            return None

    def _running_recording(self) -> Recording | None:
        """What is recorded of the call that runs in this thread."""
        return None

    def _fail(self, error: Exception) -> None:
        """Stop recording the call that runs; the pipeline goes on."""
        raise NotImplementedError

    def _nothing(self) -> str:
        """Why there is not even a call."""
        return "Nothing was recorded: call the pipeline inside `with trace(pipe) as recording:` and let it take a step."

    def _castorini_side(self) -> int:
        raise NotImplementedError


def _picture(pictures: Any, image: int) -> NDArray[np.uint8] | None:
    """One finished picture as uint8 `[H, W, 3]`, whatever the pipeline's `output_type` was."""
    if pictures is None or image >= len(pictures):
        return None
    one = pictures[image]
    if isinstance(one, Image.Image):
        return None if one.mode.startswith(("I", "F")) else rgb_pixels(one)
    values = one.detach().float().cpu().permute(1, 2, 0).numpy() if isinstance(one, Tensor) else np.asarray(one)
    if values.ndim != 3 or values.shape[-1] != 3:
        return None  # output_type="latent"
    if values.dtype == np.uint8:
        return values.copy()
    return (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8)
