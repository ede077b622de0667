"""Live heat of one call of a pipeline of diffusers: a step ends where the pipeline calls the host back."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from torch import Tensor

from daam_core.prompt.prompt import Prompt
from daam_core.types import Size

from .live_preview import LivePreview
from .pipeline_pass import PipelineHost, PipelinePass

logger = logging.getLogger("daam_lens")
CALLBACK = "callback_on_step_end"
FAILED = "it could not be worked out; the log says why. The picture is made, and recorded, without it."


class PipelineHeat:
    """Works out a word's heat at the end of each step.

    Args:
        live: shows it.
        host: the WebUI.
        painted: the call that comes next, traced.
        word: whose heat is shown.
    """

    def __init__(self, live: LivePreview, host: PipelineHost, painted: PipelinePass, word: str) -> None:
        self._live, self._host, self._painted, self._word = live, host, painted, word
        self._columns = 0
        self._prompt = cache(self._words)

    def with_heat(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """A copy of the call's arguments in which the host's callback is followed by ours."""
        original = arguments.get(CALLBACK)
        if not callable(original):
            self._live.end(f"{type(self._painted.pipe).__name__} says nothing at the end of its steps.")
            return arguments
        embeddings = arguments.get("prompt_embeds")
        if isinstance(embeddings, Tensor) and getattr(self._painted.pipe, "unet", None) is not None:
            self._columns = int(embeddings.shape[1])
        try:
            self._live.attach(self)
        except Exception as error:  # another release of the host
            self._fail(error)
            return arguments

        def callback_on_step_end(*args: Any, **kwargs: Any) -> Any:
            given = original(*args, **kwargs)  # an interrupt is raised here, and goes through
            self._after_step()
            return given

        return {**arguments, CALLBACK: callback_on_step_end}

    def _after_step(self) -> None:
        try:
            # What the host makes its preview of, one for each picture.
            latent = getattr(self._host.preview_state(), "current_latent", None)
            if isinstance(latent, Tensor) and latent.dim() == 4:
                size = (int(latent.shape[-2]), int(latent.shape[-1]))
                self._live.after_step(self._heat, len(self._painted.prompts), size, latent)
        except Exception as error:  # the pipeline would end with it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        logger.warning("DAAM Lens: the live heat failed", exc_info=error)
        self._live.end(FAILED)

    def _heat(self, image: int, size: Size) -> Tensor | None:
        found: Tensor | None = self._painted.trace.heat_so_far(self._word, size, image, self._prompt(image))
        return found

    def _words(self, image: int) -> Prompt | None:
        """The words of embeddings that the host made by itself. Raises DaamLensError where they are not known."""
        if not self._columns:
            return None
        texts = self._painted.prompts
        return self._host.words(self._painted, texts[min(image, len(texts) - 1)], self._columns, False)
