"""A word's heat over the preview that a WebUI shows while it samples.

The sampler's thread works the heat out when a step is over. The host makes its preview in the thread of whoever asks how far
it is, and hands it to one method of its state: from a run's first prediction to its end, and no longer, that method is handed
the same picture with the heat. Latents, progress and everything else stay the host's.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from daam_core.errors import DaamLensError
from daam_core.types import Grid, Size

from .preview_tiles import layout, tile_size, with_heat
from .replaced import replaced

logger = logging.getLogger("daam_lens")
SECONDS = 1.0
"""From one picture to the next, at least."""
SHARE = 20
"""A picture that takes t seconds is followed by none for `SHARE * t`: at most a twentieth of the time."""
MOST_MISFITS = 3
"""So many previews of another shape than the latents end the heat."""
METHOD = "assign_current_image"
"""What every one of the WebUIs calls the method of its state that takes a preview."""
NO_PREVIEW = (
    "this WebUI shows no preview while it samples. Switch it on under Settings, Live previews, every few steps, with a method "
    "other than “None”."
)
Heat = Callable[[int, Size], Tensor | None]
_watching: LivePreview | None = None
"""The one whose previews are exchanged: a host samples one run at a time, and a run inside a run comes before it."""


@dataclass(frozen=True, eq=False)
class _Shown:
    """The heat of each picture at `size`, None where it has none; (h, w) of the latents; the seconds that it took."""

    heats: Sequence[Tensor | None]
    size: Size
    latent: Grid
    seconds: float


class LivePreview:
    """Exchanges the previews of one run.

    Args:
        word: whose heat is shown.
        state: the host's state, None where it shows no previews.
        clock: seconds.

    Attributes:
        failure: why there is no heat, empty where there is.
        pictures, seconds: how many were drawn, and what they took.
    """

    def __init__(self, word: str, state: Any, clock: Callable[[], float] = time.perf_counter) -> None:
        self._word, self._state, self._clock = word, state, clock
        self._shown: _Shown | None = None
        self._drawing = threading.Lock()
        self._next_heat = self._next_picture = clock()
        self._drawing_seconds = 0.0
        self._wanted, self._misfits = True, 0
        self._stack, self._owned = ExitStack(), False
        self._sampled: object = None
        self.failure = "" if state is not None else f"No live heat: {NO_PREVIEW}"
        self.pictures = 0
        self.seconds = 0.0

    def attach(self, sampled: object, owner: Any = None) -> None:
        """The host's previews have the heat from now on, until `release`.

        Args:
            sampled: what is sampled, such as the number of a batch: heat of what was sampled before is not shown any more.
            owner: is released with it, where nobody says that its run has ended.
        """
        global _watching
        if self._sampled != sampled:
            self._sampled, self._shown, self._wanted = sampled, None, True
        if _watching is self or self.failure:
            return
        if _watching is not None:
            _watching.release()
        self._stack.enter_context(replaced(self._state, METHOD, self._exchanging))
        _watching = self
        if owner is not None and not self._owned:
            weakref.finalize(owner, self.release).atexit = False
            self._owned = True

    def release(self) -> None:
        """The host's previews are its own again. Does nothing the second time."""
        global _watching
        self._stack.close()
        if _watching is self:
            _watching = None

    def after_step(self, heat: Heat, count: int, latent: Grid, device: Tensor | None = None) -> None:
        """A step is over. What `heat` raises goes through, but for what was foreseen, which ends the heat alone.

        Args:
            heat: gives a picture's heat `[h, w]` on the CPU at a size, by its number; None where it has none yet.
            count: pictures that are sampled together.
            latent: (h, w) of each.
            device: a tensor of the sampler's, whose device is waited for: what it still computes is no cost of the preview.
        """
        if self.failure or not self._wanted or self._clock() < self._next_heat:
            return
        if device is not None and device.device.type != "cpu":
            device.flatten()[:1].cpu()
        start, size = self._clock(), tile_size(latent, count)
        heats, reasons = [], []
        for image in range(count):
            try:
                heats.append(heat(image, size))
            except DaamLensError as error:  # another picture's prompt may have the word
                heats.append(None)
                reasons.append(str(error))
        if len(reasons) == count:
            self.end(reasons[0])
        elif any(one is not None for one in heats):
            spent = self._clock() - start
            self._shown, self._wanted = _Shown(heats, size, latent, spent), False
            self._next_heat = start + max(SECONDS, SHARE * (spent + self._drawing_seconds))
            self.seconds += spent

    def end(self, reason: str) -> None:
        """No more heat; the host's previews go on as they were."""
        if not self.failure:
            self.failure = f"No live heat: {reason}"
            logger.info("DAAM Lens: %s", self.failure)

    def log_cost(self) -> None:
        """A line in the log: how many pictures there were, and how long they took."""
        if self.pictures:
            logger.info("DAAM Lens: live heat of %r: %d pictures, %.2f s", self._word, self.pictures, self.seconds)

    def _exchanging(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def assign_current_image(image: Any, *args: Any, **kwargs: Any) -> Any:
            self._wanted = True
            picture = self._exchanged(image)
            return None if picture is None else original(picture, *args, **kwargs)

        return assign_current_image

    def _exchanged(self, image: Any) -> Any:
        """The picture to show in place of a preview; None where the one before stays."""
        shown = self._shown
        if self.failure or shown is None or not isinstance(image, Image.Image) or getattr(image, "is_animated", False):
            return image
        left_out = None if self.pictures else image
        if self._clock() < self._next_picture or not self._drawing.acquire(blocking=False):
            return left_out
        try:
            start = self._clock()
            grid = layout((image.height, image.width), shown.latent, len(shown.heats))
            if grid is None:
                self._end_if_none_fits(image, shown)
                return image
            drawn = with_heat(image, shown.heats, shown.size, grid, self._word)
            spent = self._drawing_seconds = self._clock() - start
            self._next_picture = start + max(SECONDS, SHARE * (spent + shown.seconds))
            self.pictures, self.seconds, self._misfits = self.pictures + 1, self.seconds + spent, 0
            return drawn
        except Exception as error:
            logger.warning("DAAM Lens: the live heat failed", exc_info=error)
            self.end("it could not be drawn; the log says why. The picture is made, and recorded, without it.")
            return image
        finally:
            self._drawing.release()

    def _end_if_none_fits(self, image: Image.Image, shown: _Shown) -> None:
        """Between two passes of different shapes one preview may be of the other; several are somebody else's pictures."""
        self._misfits += 1
        if self._misfits == MOST_MISFITS:
            h, w = shown.latent
            self.end(f"the preview has {image.width} x {image.height} pixels, which is not the shape of {w} x {h} latents.")


def release() -> None:
    """No run samples any more, or another one begins."""
    if _watching is not None:
        _watching.release()
