"""Prompts of pipelines whose transformer is given the tokens themselves: no encoder stands between them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..capture.tokenizer_hook import Tokenized

_PLACE = re.compile(r"<\|image_\d+\|>")
"""Where a reference stands in OmniGen's prompts; its tokens are none of the tokenizer's."""

_START = 1
"""The token at the start of a text, which OmniGen takes away from pieces behind the first."""

Texts = dict[str, list[str] | None]


@dataclass(frozen=True)
class TokenMaker:
    """What makes the tokens of a pipeline's prompts.

    Attributes:
        part: the pipeline's component that does, empty for the pipeline itself.
        method: its method.
        texts: the typed texts among that method's arguments by name.
        rows: of what it gave out the batches of tokens, the prompt's first; the tokenizer's readings are made to be whole rows.
    """

    part: str
    method: str
    texts: Callable[[Mapping[str, Any]], Texts]
    rows: Callable[[Any, list[Tokenized], int], list[list[Tensor]]]

    def owner(self, pipe: Any) -> Any:
        """The object whose method it is; None where the pipeline has none."""
        owner = getattr(pipe, self.part, None) if self.part else pipe
        return owner if callable(getattr(type(owner), self.method, None)) else None

    def arguments(self, owner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name, those that were left out too.

        Raises:
            TypeError: the method does not take them.
        """
        bound = inspect.signature(getattr(type(owner), self.method)).bind(owner, *args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)


def _omnigen_texts(given: Mapping[str, Any]) -> Texts:
    prompts = given["instructions"]
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    each = int(given["num_images_per_prompt"])
    typed = [_PLACE.sub("", prompt) for prompt in prompts for _ in range(each)]
    return {"prompt": typed, "negative_prompt": [given["negative_prompt"]] * len(typed)}


def _omnigen_rows(output: Any, tokens: list[Tokenized], texts: int) -> list[list[Tensor]]:
    """OmniGen: `[prompts, negative prompts, references alone]`, padded on the left; a prompt with references was tokenized
    piece by piece, with places for the references between them."""
    ids: Tensor = output["input_ids"]
    whole = []
    for index, (row, places) in enumerate(zip(ids.tolist(), output["position_ids"].tolist(), strict=True)):
        # Places are counted from the first token on; padding ahead has place 0, too.
        padding = next((i for i, place in enumerate(places) if place), 1) - 1
        read = [True] * len(row)
        for first, last in output["input_image_sizes"].get(index, ()):
            read[first:last] = [False] * (last - first)
        own, mask = row[padding:], read[padding:]
        text = _joined([token for token, on in zip(own, mask, strict=True) if on], tokens)
        if text is not None:
            whole.append(replace(tokens[0], text=text, ids=tuple(own), mask=tuple(mask)))
    tokens[:] = whole
    rows = [row[:, None] for row in ids]
    return [rows[i : i + texts] for i in range(0, len(rows), texts)]


def _joined(row: list[int], tokens: Sequence[Tokenized]) -> str | None:
    """The text of a row that is made of readings of a tokenizer, one after the other; None if it is not."""
    for first in range(len(tokens)):
        made: list[int] = []
        for last in range(first, len(tokens)):
            ids = list(tokens[last].ids)
            made += ids[1:] if made and ids[:1] == [_START] else ids
            if made == row:
                return "".join(one.text for one in tokens[first : last + 1])
            if len(made) >= len(row):
                break
    return None


def _cosmos_texts(given: Mapping[str, Any]) -> Texts:
    return {"prompt": [given["prompt"]], "negative_prompt": [given["negative_prompt"] or ""]}


def _cosmos_rows(output: Any, tokens: list[Tokenized], texts: int) -> list[list[Tensor]]:
    """Cosmos 3: two lists of tokens, each with an end and the start of a video behind what was tokenized."""
    if len(tokens) == len(output):
        tokens[:] = [replace(t, ids=tuple(i), mask=(True,) * len(i)) for t, i in zip(tokens, output, strict=True)]
    return [[torch.tensor(ids)[:, None]] for ids in output]


TOKEN_MAKERS: tuple[TokenMaker, ...] = (
    TokenMaker("multimodal_processor", "__call__", _omnigen_texts, _omnigen_rows),
    TokenMaker("", "tokenize_prompt", _cosmos_texts, _cosmos_rows),
)
"""Of all pipelines whose transformer is given tokens."""
