"""Concepts as a text encoder gave them out, and which of their columns take part under which rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.concepts import ConceptRule, Shares
from ..errors import BadArgument
from ..maps.relabel import by_index
from ..prompt.concepts import Concept, competing_columns, own_columns, rivals_of
from ..prompt.prompt import Prompt


@dataclass(frozen=True, eq=False)
class ConceptTexts:
    """Concepts and their rivals, encoded.

    Attributes:
        concepts: what is looked for; the first texts are theirs, in order.
        labels: of every text, the rivals' behind the concepts'.
        prompts: the words of every text.
        states: `[texts, columns, dim]`, what the encoder gave out.
        rule: which columns stand above and below the fraction, see `attention.concepts`.
    """

    concepts: tuple[Concept, ...]
    labels: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    states: Tensor
    rule: ConceptRule = "prompt"

    @property
    def num_concepts(self) -> int:
        """How many maps there will be."""
        return len(self.concepts)

    def columns(self) -> list[tuple[int, int]]:
        """(text, column) of everything whose keys are needed, in the order of the rows of `Columns` behind the prompt's."""
        chosen = []
        for i, (prompt, label) in enumerate(zip(self.prompts, self.labels, strict=True)):
            whole = self.rule == "ovam" and i < self.num_concepts
            own = range(prompt.length) if whole else own_columns(prompt, label)
            chosen += [(i, column) for column in own]
        return chosen

    def needed_states(self) -> Tensor:
        """`[columns, dim]` of `columns()`."""
        texts, places = zip(*self.columns(), strict=True)
        return self.states[list(texts), list(places)]

    def columns_for(self, prompt: Prompt, device: torch.device | str) -> Columns:
        """Which columns of a prompt and of the concepts take part, for a picture with that prompt.

        Raises:
            BadArgument: the prompt has no words, or none that are known, so that a concept has nothing to stand against.
        """
        kept = list(range(prompt.length)) if self.rule == "column" else [token.column for token in prompt.tokens]
        if not prompt.tokens:
            raise BadArgument("A concept is held against the prompt's words, and this prompt has none")
        if by_index(prompt):
            raise BadArgument(
                "A concept is held against the prompt's words, and those of this prompt are not known: it was encoded elsewhere"
            )
        columns, first = self.columns(), len(kept)
        rows_of: list[set[int]] = [set() for _ in self.labels]
        for row, (text, _) in enumerate(columns, start=first):
            rows_of[text].add(row)
        words = [token.column for token in prompt.tokens]
        numerator, place, presence = [], [], []
        for c, concept in enumerate(self.concepts):
            columns_of = own_columns(self.prompts[c], concept.label)
            own = {row for row in rows_of[c] if columns[row - first][1] in columns_of}
            named = set(rivals_of(concept))
            rivals = (rows_of[text] for text in range(self.num_concepts, len(self.labels)) if self.labels[text] in named)
            against = competing_columns(prompt, concept.label)
            beside = {row for row, column in enumerate(kept) if column in against}
            numerator.append(own)
            place.append({"prompt": own | beside, "ovam": rows_of[c], "column": set(range(first))}[self.rule])
            presence.append(own.union({row for row in beside if kept[row] in words}, *rivals))
        shares = Shares.of(first + len(columns), numerator, (place, presence), device)
        return Columns(torch.tensor(kept, device=device), shares)

    def stream(self) -> StreamTexts:
        """What `concept_streams` needs: each text's own columns, one after the other, and who is held against whom."""
        columns = [
            (i, column)
            for i, (prompt, label) in enumerate(zip(self.prompts, self.labels, strict=True))
            for column in own_columns(prompt, label)
        ]
        texts, concepts = len(self.labels), self.num_concepts
        mean = torch.zeros(texts, len(columns))
        for row, (text, _) in enumerate(columns):
            mean[text, row] = 1.0
        mean /= mean.sum(1, keepdim=True)
        rivals = []
        for c, concept in enumerate(self.concepts):
            named = set(rivals_of(concept))
            rivals.append({c, *(text for text in range(concepts, texts) if self.labels[text] in named)})
        place = rivals if concepts == 1 else [set(range(concepts))] * concepts
        shares = Shares.of(texts, [{c} for c in range(concepts)], (place, rivals))
        is_rival = torch.tensor([text >= concepts for text, _ in columns])
        return StreamTexts(tuple(columns), mean, shares, is_rival)


@dataclass(frozen=True, eq=False)
class StreamTexts:
    """Concepts and rivals as a stream of tokens of their own.

    Attributes:
        columns: (text, column) of each token.
        mean: float32 `[texts, tokens]`, which takes the mean of each text's tokens.
        shares: which texts each concept is held against, in the map and in the presence.
        is_rival: bool `[tokens]`; rivals and concepts do not attend to each other.
    """

    columns: tuple[tuple[int, int], ...]
    mean: Tensor
    shares: Shares
    is_rival: Tensor

    def states(self, every: Tensor) -> Tensor:
        """`[tokens, dim]` of `[texts, columns, dim]`."""
        texts, places = zip(*self.columns, strict=True)
        return every[list(texts), list(places)]

    def to(self, device: torch.device) -> StreamTexts:
        """The same on another device."""
        return StreamTexts(self.columns, self.mean.to(device), self.shares.to(device), self.is_rival.to(device))


@dataclass(frozen=True, eq=False)
class Columns:
    """What `add_fractions` needs for one picture.

    Attributes:
        kept: int64, the context's columns that take part; the concepts' columns stand behind them.
        shares: of these and of the concepts' columns, of the map and of the presence.
    """

    kept: Tensor
    shares: Shares


def texts_to_encode(concepts: Sequence[Concept]) -> tuple[list[str], list[str]]:
    """(labels, texts) of concepts and of all their rivals, each rival once."""
    rivals = list(dict.fromkeys(rival for concept in concepts for rival in rivals_of(concept)))
    return [c.label for c in concepts] + rivals, [c.text for c in concepts] + [f"a {rival}" for rival in rivals]
