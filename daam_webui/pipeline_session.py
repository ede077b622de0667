"""One run of SD.Next, recorded: each call of a pipeline of diffusers in a trace of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daam_core.errors import DaamLensError, NothingRecorded, recording_failure
from daam_core.maps.data import RecordedImage
from daam_core.maps.heatmaps import HeatMaps
from daam_core.maps.relabel import by_index, relabel
from daam_core.types import Side

from .finished_image import FinishedImage
from .live_preview import LivePreview
from .pipeline_heat import PipelineHeat
from .pipeline_pass import PipelineHost, PipelinePass
from .replaced import replaced
from .settings import NO_PASS, Settings

logger = logging.getLogger("daam_lens")

NOT_SAMPLED = (
    "SD.Next made this picture without calling its model for it (a script that paints by itself, or latents of an earlier "
    "picture), so there are no heat maps."
)
NO_CONCEPTS = (
    "Words that are not in the prompt are not read in SD.Next, so only those of the prompt have maps. Use them in "
    "AUTOMATIC1111, Forge or Python."
)
_SHAPE = 1.05
"""So far a picture's shape may be from that of what was sampled: sizes are rounded to whole latents."""


class PipelineSession:
    """Records one run.

    Args:
        settings: what was asked for.
        host: the WebUI.
    """

    def __init__(self, settings: Settings, host: PipelineHost) -> None:
        self.settings, self.host, self.failure = settings, host, ""
        self._maps: list[tuple[FinishedImage, HeatMaps]] = []
        self._passes: list[PipelinePass] = []
        self._left_out, self._bare = False, ""
        self._watch, self._tracing = ExitStack(), ExitStack()
        word = settings.live_word.strip()
        self._live = LivePreview(word, host.preview_state()) if word else None

    @property
    def finished(self) -> list[FinishedImage]:
        return [finished for finished, _ in self._maps]

    # -- the host's sampling ----------------------------------------------------------------------------------------

    def attach(self, p: Any) -> None:
        """A batch of `p` is about to be sampled; until `release`, what is sampled for it is recorded."""
        self.release()
        self._passes, self._left_out = [], False
        if not self.failure:
            self._watch.enter_context(replaced(*self.host.sampling(), lambda below: self._sampling(p, below)))

    def release(self) -> None:
        """Take off everything that is put on the host and its models. Does nothing the second time."""
        self._tracing.close()
        self._watch.close()

    def _sampling(self, p: Any, below: Callable[..., Any]) -> Callable[..., Any]:
        def sample(given: Any, *args: Any, **kwargs: Any) -> Any:
            if given is not p:
                return below(given, *args, **kwargs)
            with ExitStack() as stack:
                stack.callback(self.release)
                stack.enter_context(replaced(*self.host.arguments(), lambda make: self._arguments(p, make)))
                if self._live is not None:
                    stack.callback(self._live.release)
                return below(given, *args, **kwargs)

        return sample

    def _arguments(self, p: Any, below: Callable[..., Any]) -> Callable[..., Any]:
        def make(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("p") is not p:
                return below(*args, **kwargs)
            self._tracing.close()  # the call before this one is over
            started = self._begin(kwargs)
            if started is None:
                return below(*args, **kwargs)
            with self.host.encoding(started.tokens):
                made = below(*args, **kwargs)
            self._encoded(started)
            if self._live is not None and started.trace is not None and not self.failure:
                return PipelineHeat(self._live, self.host, started, self.settings.live_word.strip()).with_heat(made)
            return made

        return make

    def _begin(self, given: Mapping[str, Any]) -> PipelinePass | None:
        """A pipeline is about to be called; None where that call is not recorded."""
        p, pipe = given["p"], given.get("model")
        second = bool(getattr(p, "is_hr_pass", False))
        other = "first" if second else "second" if getattr(p, "enable_hr", False) else ""
        left_out = self.settings.hires == other
        self._left_out |= left_out
        if self.failure or left_out or getattr(p, "is_refiner_pass", False):
            return None
        try:
            started = PipelinePass(p, pipe, _texts(given, "prompts"), _texts(given, "negative_prompts"))
            if getattr(pipe, "unet", None) is None:  # a transformer's words are read while they are encoded
                started.trace = self._tracing.enter_context(self.host.trace(pipe, self.settings))
            self._passes.append(started)
            return started
        except Exception as error:
            self.fail(error)
            return None

    def _encoded(self, started: PipelinePass) -> None:
        """The texts of a call are encoded, and it comes next."""
        try:
            self.host.require_one_text()
            if started.trace is None:
                started.trace = self._tracing.enter_context(self.host.trace(started.pipe, self.settings))
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Stop recording; the host goes on. What was foreseen is one line in the log, anything else has a traceback."""
        if not self.failure:
            self.failure = recording_failure(error)
            logger.warning("DAAM Lens: %s", self.failure, exc_info=None if isinstance(error, DaamLensError) else error)
        self._tracing.close()
        self._passes = []
        if self._live is not None:
            self._live.release()

    # -- pictures ---------------------------------------------------------------------------------------------------

    def take(self, finished: FinishedImage) -> None:
        """The host finished a picture of the batch that was sampled last."""
        if self.failure:
            return
        try:
            if not self._passes and self._left_out:  # pictures of other batches have maps
                self._bare = NO_PASS.format(self.settings.hires)
                return
            if not self._passes:
                raise NothingRecorded(NOT_SAMPLED)
            first, *more = [self._read(one, finished.image, finished.picture) for one in self._passes]
            if any(maps.prompt.text != first.prompt.text for maps in more):
                raise NothingRecorded(
                    "The second pass was told another prompt than the first, so their maps are no maps of one text. Choose the "
                    "first or the second pass under “Hires fix pass”."
                )
            self._maps.append((finished, sum(more, first)))
        except Exception as error:
            self.fail(error)

    def heat_maps(self) -> Iterator[tuple[FinishedImage, HeatMaps]]:
        """The maps of every finished picture.

        Raises:
            NothingRecorded: recording failed, or there was nothing to record; the text says why. Pictures whose chosen pass
                was left out are told behind the others.
        """
        if self.failure:
            raise NothingRecorded(self.failure)
        yield from self._maps
        if self._bare:
            raise NothingRecorded(self._bare)

    def concept_failures(self) -> list[str]:
        """Why there are no concepts, where some were asked for."""
        return [NO_CONCEPTS] if self.settings.concepts.strip() and not self.failure else []

    def live_failures(self) -> list[str]:
        """Why no heat was shown while it sampled, where it was asked for."""
        return [self._live.failure] if self._live is not None and self._live.failure and not self.failure else []

    def notes(self) -> list[str]:
        """What has to be said of what else was asked for."""
        return [*self.concept_failures(), *self.live_failures()]

    def close(self) -> None:
        """Let go of everything that is the host's or large."""
        self.release()
        if self._live is not None:
            self._live.release()
            self._live.log_cost()
            self._live = None
        self._maps, self._passes = [], []

    def _read(self, painted: PipelinePass, image: int, picture: NDArray[np.uint8]) -> HeatMaps:
        trace = painted.trace
        if trace.failure:
            raise NothingRecorded(trace.failure)
        if trace.num_generations > 1 or (trace.num_images and trace.num_images != len(painted.prompts)):
            raise NothingRecorded(
                f"The pipeline was called {trace.num_generations} times and made {trace.num_images} pictures of "
                f"{len(painted.prompts)} prompts, so nobody knows which map is of which picture."
            )
        maps = self._with_words(painted, trace.heat_maps(image), image)
        skew = (maps.size[0] * picture.shape[1]) / (maps.size[1] * picture.shape[0])
        if not 1 / _SHAPE < skew < _SHAPE:
            raise NothingRecorded(
                f"{maps.size[1]} x {maps.size[0]} pixels were sampled and the picture has {picture.shape[1]} x "
                f"{picture.shape[0]}: it was cut or stretched since, so no map lies over it. Switch the resizing off."
            )
        return maps.with_picture(picture)

    def _with_words(self, painted: PipelinePass, maps: HeatMaps, image: int) -> HeatMaps:
        """The same maps with the words of texts that the host encoded by itself."""
        texts = {
            "prompt": painted.prompts[min(image, len(painted.prompts) - 1)],
            "negative": painted.negatives[min(image, len(painted.negatives) - 1)],
        }

        def relabelled(name: Side, side: RecordedImage) -> RecordedImage:
            if not by_index(side.prompt):
                return side
            return relabel(side, self.host.words(painted, texts[name], side.prompt.length, name == "negative"))

        return replace(maps, sides={name: relabelled(name, side) for name, side in maps.sides.items()})


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    """The texts of an argument, as they were before the host changes its list."""
    texts = given.get(name) or [""]
    return [texts] if isinstance(texts, str) else [str(text) for text in texts]
