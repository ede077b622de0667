"""Attention of a pipeline's transformers, summed for each picture and each of its two texts, while the pipeline runs once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ..errors import NothingRecorded
from ..prompt.prompt import Prompt
from ..types import Grid, Side
from .attention_call import AttentionCall
from .buffers import StoreOptions
from .concept_texts import ConceptTexts
from .family import Family
from .given_latents import GivenLatents
from .picture_text import PictureText
from .recording import Recording
from .text_rows import EncodedText
from .transformer_calls import KnownCall

TIMES = ("timestep", "timesteps", "t")
"""What transformers call the argument that says how noisy the picture is."""


class TransformerRecording:
    """One call of a pipeline, in the thread that makes it.

    Attributes:
        recording: groups, layers and steps; a group for each text of each picture.
        repeats: whether a step had more calls of the model than were read.
        given_latents: of the step that runs.
        grid: (h, w) of the first call that was read, in patches.

    Args:
        texts: gives what the pipeline has encoded so far.
        prompt: gives the words of an encoded row, for so many columns of each of the family's text arguments.
        keep: what to keep apart.
        sides: whose texts are recorded.
        concepts: gives the concepts that were asked for, encoded; None where none were.
    """

    def __init__(
        self,
        texts: Callable[[], Sequence[EncodedText]],
        prompt: Callable[[EncodedText, Family, Sequence[int]], Prompt],
        keep: StoreOptions,
        sides: Sequence[Side] = ("prompt", "negative"),
        concepts: Callable[[], ConceptTexts | None] | None = None,
    ) -> None:
        self.concept_texts = concepts
        self.thread = threading.get_ident()
        self.recording = Recording(keep)
        self.texts, self.sides = texts, sides
        self._prompt = prompt
        self._own: dict[tuple[Side, int, int], PictureText] = {}
        self._time: Any = None
        self.repeats = False
        self.given_latents = GivenLatents()
        self.grid: Grid | None = None

    def end_step(self, timestep: Any = None) -> None:
        """A step is over, if anything of it was recorded.

        Raises:
            UnsupportedModel: what the text attends to was asked for, and it has no queries in any layer.
        """
        pending = [text for text in self._own.values() if text.pending]
        if not pending:
            return
        for text in pending:
            text.check_relations()
        self.recording.end_step(self._time if timestep is None else timestep)
        for text in self._own.values():
            text.pending = False

    def fail(self, error: Exception) -> None:
        """Stop recording; the pipeline goes on."""
        self.recording.fail(error)
        self._own.clear()

    def begin_call(self, known: KnownCall, given: Mapping[str, Any], family: Family) -> list[PictureText | None]:
        """Whose sums the rows of a call go into; ends the step where the next one begins.

        Args:
            known: what the call's arguments mean.
            given: the call's arguments.
        """
        found = [
            self._first([self._of(text, family, own) for text in texts if text.side in self.sides])
            for texts, own in zip(known.rows, known.columns, strict=True)
        ]
        time = next((given[name] for name in TIMES if given.get(name) is not None), None)
        sample = next(islice(given.values(), 1, None), None)  # behind the model itself
        again = any(text is not None and text.pending for text in found)
        if again and not _same_time(time, self._time):
            self.given_latents.at_another_time()
            self.end_step()
            again = False
        if not any(text.pending for text in self._own.values()):
            self.given_latents.begin()
        whose = {i: (text, text.group.images[0]) for i, text in enumerate(found) if text is not None}
        copies = {i: others for i, others in known.copies.items() if whose.keys() & set(others)}
        self.given_latents.add(sample, whose, copies)
        if again:
            self.repeats = True
            # The same step once more: another guidance, with something of the model left out.
            return [None if text is None or text.pending else text for text in found]
        self._time = time
        return found

    @staticmethod
    def _first(texts: Sequence[PictureText]) -> PictureText | None:
        """Where prompt and negative prompt are the same text, the one that this step has not had."""
        return next((text for text in texts if not text.pending), texts[0] if texts else None)

    def _of(self, row: EncodedText, family: Family, columns: Sequence[int]) -> PictureText:
        key = (row.side, row.image, row.part)
        if key not in self._own:
            prompt = self._prompt(row, family, columns)
            self._own[key] = PictureText(self.recording, row.side, row.image, prompt)
        text = self._own[key]
        if text.columns != sum(columns):
            raise NothingRecorded(f"The same text has {text.columns} columns, and {sum(columns)} later: there is no map.")
        return text

    def layer(self, model: int, name: str, call: AttentionCall) -> int:
        """The number of a layer of the pipeline's transformer `model`."""
        shown = name if model == 0 else f"transformer_{model + 1}.{name}"
        return self.recording.layer((model, name), shown, "mid", call.heads, call.scale)


def _same_time(one: Any, other: Any) -> bool:
    """Whether two timesteps are the same; where there are none, they are."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape:  # the step once more, with fewer rows of the batch
            return torch.equal(one.amax().to(other.device), other.amax())
        return torch.equal(one.to(other.device), other)
    return bool(one == other)
