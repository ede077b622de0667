"""A word's heat over the preview that ComfyUI shows while it samples.

The host's callback makes its preview and hands it to a progress bar. While that callback runs, and no longer, the picture
that it hands on is exchanged for the same with the word's heat. Progress, interrupts and everything else stay the host's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import comfy.utils
import numpy as np
from PIL import Image
from torch import Tensor

from ...daam_core.defaults import DEFAULT_OPACITY
from ...daam_core.errors import DaamLensError, reason_of
from ...daam_core.render import overlay
from ...daam_core.types import Size
from ..convert import GROUND
from ..server import show_at_node

logger = logging.getLogger("daam_lens")
SECONDS = 1.0
"""From one picture to the next, at least."""
SHARE = 20
"""A picture that takes t seconds is followed by none for `SHARE * t`: at most a twentieth of the time."""
SIDE = 512
"""Pixels of a preview's longer side, as ComfyUI's own."""
_EXCHANGE = threading.Lock()


class LivePreview:
    """Exchanges the previews of one run of a sampler.

    Args:
        word: whose heat is shown.
        node: the Record node, which is told why there is no heat.
        heat: gives the word's heat `[h, w]` at a size, None where there is none yet.
        latent_format: how the model's latents are made a picture where the host shows no preview.
        latent: (height, width) of the latent.
        clock: seconds.
    """

    def __init__(
        self,
        word: str,
        node: str,
        heat: Callable[[str, Size], Tensor | None],
        latent_format: Any,
        latent: Size,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._word, self._node, self._heat, self._clock = word, node, heat, clock
        self._format, self._latent = latent_format, latent
        self._next = clock()
        self._ended = False
        self._has_drawn = False
        self.pictures = 0
        self.seconds = 0.0

    def during(self, callback: Callable[[], Any], clean: Any) -> Any:
        """Calls the host's callback of a step; its previews have the heat, `SECONDS` apart, and others are left out.

        Args:
            callback: without arguments; what it raises (an interrupt) goes through.
            clean: the latent as the sampler guesses it to be in the end, `[images, c, …, h, w]`.
        """
        if self._ended or not _EXCHANGE.acquire(blocking=False):
            return callback()
        original, thread = comfy.utils.ProgressBar.update_absolute, threading.get_ident()

        def update_absolute(bar: Any, value: Any, total: Any = None, preview: Any = None, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread:
                preview = self._exchanged(preview, clean)
            return original(bar, value, total, preview, *args, **kwargs)

        comfy.utils.ProgressBar.update_absolute = update_absolute
        try:
            return callback()
        finally:
            comfy.utils.ProgressBar.update_absolute = original
            _EXCHANGE.release()

    def log_cost(self) -> None:
        """A line in the log: how many pictures there were, and how long they took."""
        if self.pictures:
            logger.info("DAAM Lens: live heat of %r: %d pictures, %.2f s", self._word, self.pictures, self.seconds)

    def end(self, reason: str) -> None:
        """No more heat; the host's previews go on as they were."""
        if not self._ended:
            self._ended = True
            show_at_node(self._node or None, f"No live heat: {reason}")

    def _exchanged(self, preview: Any, clean: Any) -> Any:
        if self._ended:
            return preview
        if self._clock() < self._next:
            return None if self._has_drawn else preview
        try:
            _wait_for_device(clean)  # what the sampler still computes is no cost of the preview
            start = self._clock()
            size = self._size(preview)
            heat = self._heat(self._word, size)
            if heat is None:
                return preview
            drawn = overlay(self._picture(preview, clean, size), heat, DEFAULT_OPACITY, label=self._word, bar=False)
        except DaamLensError as error:
            self.end(str(error))
            return preview
        except Exception as error:
            logger.warning("DAAM Lens: the live heat failed", exc_info=error)
            self.end(f"{reason_of(error)}. The picture is made, and recorded, without it.")
            return preview
        spent = self._clock() - start
        self._has_drawn, self._next = True, start + max(SECONDS, SHARE * spent)
        self.pictures, self.seconds = self.pictures + 1, self.seconds + spent
        return "JPEG", Image.fromarray(drawn), SIDE

    def _size(self, preview: Any) -> Size:
        """(height, width) of a preview whose longer side is `SIDE`, in the host's proportions, else the latent's."""
        height, width = self._latent if preview is None else (preview[1].height, preview[1].width)
        longer = max(height, width)
        return max(1, round(height * SIDE / longer)), max(1, round(width * SIDE / longer))

    def _picture(self, preview: Any, clean: Any, size: Size) -> np.ndarray:
        """uint8 `[h, w, 3]`: the host's preview; without one the latent's own colours, else an even ground."""
        image = self._of_latent(clean) if preview is None else preview[1]
        if image is None:
            return np.full((*size, 3), GROUND, np.uint8)
        return np.asarray(image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR))

    def _of_latent(self, clean: Any) -> Image.Image | None:
        factors = getattr(self._format, "latent_rgb_factors", None)
        if factors is None:
            return None
        import latent_preview  # the host's; a script that never samples need not load it

        more = [getattr(self._format, name, None) for name in ("latent_rgb_factors_bias", "latent_rgb_factors_reshape")]
        given = more if more[1] is not None else more[:1]  # the older host knows no reshaping
        found = latent_preview.Latent2RGBPreviewer(factors, *given).decode_latent_to_preview(clean)
        return found if isinstance(found, Image.Image) else None


def _wait_for_device(latent: Any) -> None:
    if isinstance(latent, Tensor) and latent.device.type != "cpu":
        latent.flatten()[:1].cpu()
