"""Proof that the host encoded the texts whose words are read, where another extension stands in the place of its parser.

The words and their columns come from the host's own reading of the prompt. An extension that reads it otherwise (prompt-fusion
interpolates between texts) gives the model columns of other words, of the same number, and nothing in the model tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from daam_core.errors import NothingRecorded

from .hosts import WebUI
from .sampling_step import SamplingStep
from .schedule import PassTexts

OTHER_READING = (
    "Another extension reads the prompt in a way of its own (prompt-fusion does), so nobody can say which word stands where in "
    "what the model is given. Write the prompt without that extension's syntax, or switch it off, to get heat maps."
)
TOO_MANY = (
    "Another extension stands in the place of the WebUI's parser of prompts, and this batch has {} texts; at most {} "
    "are compared with what the model is given. Switch that extension off, or let the prompt change less often, to get heat "
    "maps."
)
MOST_TEXTS = 64
"""Texts of a batch that are encoded once more."""
_ALIKE = 0.01
"""How far two encodings of one text may be apart, as a part of their length."""


class TextProof:
    """Encodes the texts once more, by the host's text encoder itself.

    Args:
        host: the WebUI.
        model: its loaded checkpoint, with its LoRAs in place.
        passes: what is sampled.
        negative: whether negative prompts are recorded, too.

    Raises:
        NothingRecorded: there are too many texts.
    """

    def __init__(self, host: WebUI, model: Any, passes: Iterable[PassTexts], negative: bool) -> None:
        self._model = _identity(model)
        self._sides = ("prompt", "negative") if negative else ("prompt",)
        # The texts of one schedule together, as the host does: emphasis and padding are of all texts that are encoded at once.
        schedules = list(dict.fromkeys(texts for one in passes for texts in _schedules(one, negative)))
        if (count := sum(map(len, schedules))) > MOST_TEXTS:
            raise NothingRecorded(TOO_MANY.format(count, MOST_TEXTS))
        # An encoder in training mode draws random numbers, which are the picture's.
        weight = next(host.unet(model).parameters())
        self._encoded: dict[str, list[Tensor]] = {}
        with torch.no_grad(), torch.random.fork_rng([weight.device] if weight.device.type == "cuda" else []):
            for texts in schedules:
                for text, states in zip(texts, host.encode_texts(model, texts), strict=True):
                    self._encoded.setdefault(text, []).append(states)

    def require(self, step: SamplingStep, model: Any) -> None:
        """What is sampled are the texts' own encodings.

        A second checkpoint has a text encoder of its own, by which nothing was encoded here; the prompt is read alike.

        Raises:
            NothingRecorded: it is something else.
        """
        if _identity(model) != self._model:
            return
        for label, row in step.rows.items():
            if label.side not in self._sides or label.side not in step.conditioning:
                continue
            seen, text = step.conditioning[label.side][row], step.texts[label]
            if not text.strip():  # without words; of an empty negative prompt hosts give XL zeros, and not its encoding
                continue
            if not any(_alike(seen, expected) for expected in self._encoded.get(text, ())):
                raise NothingRecorded(OTHER_READING)


def _schedules(one: PassTexts, negative: bool) -> list[tuple[str, ...]]:
    """The texts of each schedule of a pass."""
    schedules = [schedule for parts in one.prompts for schedule in parts] + (list(one.negatives) if negative else [])
    return [tuple(text for _, text in schedule) for schedule in schedules]


def _alike(seen: Tensor, expected: Tensor) -> bool:
    """Whether `seen` `[columns, width]` begins with `expected`; shorter texts of a batch are padded."""
    if seen.shape[0] < expected.shape[0] or seen.shape[1] != expected.shape[1]:
        return False
    wanted = expected.to(seen.device).float()
    return bool((seen[: len(wanted)].float() - wanted).norm() <= _ALIKE * wanted.norm())


def _identity(model: Any) -> tuple[int, int]:
    """A checkpoint: hosts load another one's weights into the same object."""
    return id(model), id(getattr(model, "sd_checkpoint_info", None))
