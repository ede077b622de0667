"""Everything one picture was told: AND parts, each with the texts of its schedule and of both hires passes, as one prompt.

A part is one text with columns of its own. `a [red:blue:0.5] house` has two parts that say one thing: their words of one
label are one word. What AND joins are different things: a word that stands in two of them is numbered on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from daam_core.errors import BadPrompt
from daam_core.prompt.compose import concat, concat_encoders
from daam_core.prompt.context import one_hot
from daam_core.prompt.prompt import Prompt

MOST_COLUMNS = 77 * 64
"""Beyond this a prompt is recorded by nobody: its maps alone would take gigabytes."""


class PromptSchedule:
    """One picture's texts.

    Args:
        groups: the texts of each AND part, each text once, in the order in which they are heard.
        read: a text as the encoder reads it.

    Attributes:
        parts: each text alone, as it is read.
        prompt: all of them as one.

    Raises:
        BadPrompt: more text than can be recorded.
    """

    def __init__(self, groups: Sequence[Sequence[str]], read: Callable[[str], Prompt]) -> None:
        texts = [(number, text) for number, group in enumerate(groups) for text in dict.fromkeys(group)]
        if sum(len(text) for _, text in texts) > 40 * MOST_COLUMNS:
            raise BadPrompt("The prompt is too long for heat maps; the picture was made without them.")
        self._parts = {key: i for i, key in enumerate(texts)}
        self.parts = prompts = [read(text) for _, text in texts]
        self.lengths = [prompt.length for prompt in prompts]
        if sum(self.lengths) > MOST_COLUMNS:
            raise BadPrompt(
                f"The prompt and its schedule have {sum(self.lengths)} columns; maps are made for up to {MOST_COLUMNS}."
            )
        each = [[p for (n, _), p in zip(texts, prompts, strict=True) if n == number] for number in range(len(groups))]
        self.prompt = concat([_one(group) for group in each])
        self._rows = torch.tensor(self.prompt.column_channels(), dtype=torch.long)
        self._first = list(accumulate(self.lengths, initial=0))

    def part(self, group: int, text: str) -> int:
        """The number of the part that says `text` in an AND part."""
        return self._parts[group, text]

    def selection(self, part: int, base: int, keys: int, repeated: bool) -> Tensor:
        """float32 `[keys, channels]` of zeros and ones for a context that says `part`.

        Args:
            base: columns of the host's own conditioning; a shorter part was padded to it.
            keys: columns that the model saw.
            repeated: whether a longer context is the conditioning repeated (Forge), else it is padded (A1111).
        """
        padding = self.prompt.num_channels - 1
        own = self._rows[self._first[part] : self._first[part + 1]]
        own = _padded(own, base, padding)
        if repeated and keys % base == 0:
            own = own.repeat(keys // base)
        return one_hot(_padded(own, keys, padding)[:keys].tolist(), self.prompt.num_channels)


def _one(prompts: Sequence[Prompt]) -> Prompt:
    return prompts[0] if len(prompts) == 1 else concat_encoders(prompts)


def _padded(rows: Tensor, length: int, padding: int) -> Tensor:
    return F.pad(rows, (0, max(0, length - len(rows))), value=padding)
