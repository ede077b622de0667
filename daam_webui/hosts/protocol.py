"""What is asked of a WebUI: everything in which A1111, Forge and Forge Neo differ, or may come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from daam_core.types import Grid

from ..batch_rows import Label
from ..sampling_step import SamplingStep
from ..schedule import PassTexts


@dataclass(frozen=True)
class UNetCall:
    """One call of the UNet.

    Attributes:
        rows: of its batch.
        size: (h, w) of its latent.
        context: the text that it is given, `[rows, columns, width]`.
        chunks: Forge's note of what its batch is made of: 0 for a prompt, 1 for a negative prompt; empty elsewhere.
    """

    rows: int
    size: Grid
    context: Tensor | None
    chunks: tuple[int, ...] = ()


class PageHost(Protocol):
    """A host's page and files."""

    def ticked_accordion(self, label: str, elem_id: str) -> Any:
        """A folded part of the page that opens when its box is ticked; its value is whether it is."""

    def sends_size(self) -> bool:
        """Whether a picture that is sent to another tab takes its size along (the host's own setting)."""

    def keeps_upscaled(self) -> bool:
        """Whether the gallery's button for hires fix puts its picture beside the one that it is made of (the host's own
        setting), and not in its place."""

    def tells_upscaled(self) -> bool:
        """Whether that button gives the gallery a text for every picture of its run, and not for the first alone."""

    def tells_users(self) -> bool:
        """Whether its processing object says who was logged in to the page that asked for it."""

    def reads_concepts(self) -> bool:
        """Whether words that are not in the prompt are read here."""

    def paints_elsewhere(self) -> bool:
        """Whether the host sends its prompts to a service that paints; it calls no script then but the very first method."""

    def preview_state(self) -> Any:
        """The host's state, whose method `assign_current_image` takes each preview; None where none is shown while it
        samples."""

    def pixels(self, image: Any) -> NDArray[np.uint8]:
        """A finished picture as uint8 `[H, W, 3]`."""

    def comment(self, p: Any, sentences: Sequence[str]) -> None:
        """Leave sentences for whichever result the host shows below the picture, where it can keep them."""

    def saves(self, p: Any) -> bool:
        """Whether this run's pictures go to disk."""

    def save(
        self, image: Image.Image, p: Any, picture_file: str, suffix: str, seed: int, text: str, infotext: str | None
    ) -> str:
        """Save an image beside a picture with the host's own saver: the picture's name and a suffix. Returns its path."""


class WebUI(PageHost, Protocol):
    """A host whose sampler tells of each of its predictions.

    Attributes:
        repeats_context: whether it repeats a context that is too short for its batch; else such a context is padded.
    """

    repeats_context: bool

    def pass_texts(self, p: Any, second: bool) -> PassTexts:
        """Which text each picture of this batch is told at each step, in the host's own reading; of the second pass of
        hires fix, or of the first."""

    def reads_otherwise(self) -> bool:
        """Whether an extension stands in the place of a function of the host's parser of prompts."""

    def encodes_ahead(self) -> bool:
        """Whether the prompts of hires fix's second pass are encoded with the first pass's LoRAs (the host's own setting)."""

    def unet(self, model: Any) -> nn.Module:
        """The UNet of a loaded checkpoint."""

    def chunks(self, engine: Any, line: str) -> Sequence[Any] | None:
        """What a text encoder is given of a line of the prompt, where that is other than its `tokenize_line` says: chunks with
        `tokens`, `multipliers` and `fixes`."""

    def encode_texts(self, model: Any, texts: Sequence[str]) -> Tensor:
        """Texts as the text encoder of a loaded checkpoint gives them to its UNet: `[texts, columns, width]`. The host is left
        as it was; it moves the encoder as it does for a prompt."""

    def encode_alone(self, model: Any, engine: str, text: str) -> Tensor:
        """The same of one text for a transformer: `[columns, width]`, by the text encoder that is this attribute of the
        checkpoint."""

    def labels(self, call: UNetCall, step: SamplingStep) -> list[Label | None]:
        """What each row of a call stands for; None for rows that are not the sampler's own (PAG looks a second time)."""

    def watch_answers(self, model: Any, seen: Callable[[Tensor, Tensor], None]) -> AbstractContextManager[None]:
        """For as long as this lasts, `seen` is told what the sampler gets of each call and what the model answered,
        `[rows, c, …]` each, where another extension stands between them and the host has no callback for it."""

    def references(self) -> Sequence[Tensor]:
        """The latents of reference pictures that the host keeps for its transformers, `[1, c, …, h, w]` each."""

    def changes_keys(self) -> bool:
        """Whether something of the host's own (hypernetworks) stands between a context and the keys that are made of it."""
