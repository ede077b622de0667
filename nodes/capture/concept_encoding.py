"""Concepts through the text encoder of the prompts: beside a prompt, so that it has the same LoRAs and CLIP skip then."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...daam_core.capture.concept_texts import ConceptTexts, texts_to_encode
from ...daam_core.errors import BadArgument, NothingRecorded, quoted, reason_of
from ...daam_core.prompt.concepts import Concept
from ...daam_core.prompt.prompt import Prompt
from .context_alignment import of_length
from .prompt_tokens import PromptTokens, prompts_of

logger = logging.getLogger("daam_lens")
KEY = "daam_lens_concepts"
"""Where a conditioning carries its concepts: `ConceptTexts`, or a sentence that says why there are none."""
_BATCH = 16
"""So many texts are encoded at once."""


class ConceptEncoder:
    """Concepts of one Record node, encoded as often as the encoder changes.

    Args:
        concepts: what is looked for.
        together: whether several texts are encoded at once, as chunks of one. Only CLIP's encoders take them so: others put
            each text into a template, or cut something off it.
        whole: whether all columns of the texts are kept, and not those of the words alone.
    """

    key = KEY

    def __init__(self, concepts: Sequence[Concept], together: bool = True, whole: bool = False) -> None:
        self._concepts, self._at_once, self._whole = tuple(concepts), _BATCH if together else 1, whole
        self._first: Tensor | None = None
        self._texts: ConceptTexts | None = None

    def beside_prompt(self, encoder: Any, tokenizer: Any) -> ConceptTexts | str:
        """The concepts as the encoder gives them out in the state that it is in now; a sentence where it does not.

        That state is told by what it makes of the first concept: a LoRA or another CLIP skip makes something else of it.
        """
        try:
            return self._encode(encoder, tokenizer)
        except Exception as error:
            reason = reason_of(error)
            logger.warning("DAAM Lens: concepts could not be encoded: %s", reason, exc_info=error)
            return f"the text encoder did not encode the concepts ({reason})"

    def _encode(self, encoder: Any, tokenizer: Any) -> ConceptTexts:
        labels, texts = texts_to_encode(self._concepts)
        tokens = [_tokens(tokenizer, label, text) for label, text in zip(labels, texts, strict=True)]
        first = _states(encoder, tokens[:1])
        if self._texts is None or self._first is None or not torch.equal(first, self._first):
            n = self._at_once
            cut = [_states(encoder, tokens[i : i + n]) for i in range(0, len(tokens), n)]
            columns = [len(row) for rows in cut for row in rows]
            prompts = [_prompt(prompts_of(one, tokenizer, encoder), own) for one, own in zip(tokens, columns, strict=True)]
            found = ConceptTexts(self._concepts, tuple(labels), tuple(prompts), first)
            last = max(columns) if self._whole else 1 + max(column for _, column in found.columns())
            padded = [pad(rows[:, :last], (0, 0, 0, max(0, last - rows.shape[1]))) for rows in cut]
            self._first, self._texts = first, replace(found, states=torch.cat(padded))
        return self._texts


def _tokens(tokenizer: Any, label: str, text: str) -> Mapping[str, Any]:
    """ComfyUI's tokens of a concept's text, in which brackets are no weights."""
    tokens: Mapping[str, Any] = tokenizer.tokenize_with_weights(text.replace("(", "\\(").replace(")", "\\)"))
    if any(len(chunks) != 1 for chunks in tokens.values()):
        raise BadArgument(f"The concept {quoted(label, 60)} is longer than the text encoder reads at once")
    return tokens


def _states(encoder: Any, tokens: Sequence[Mapping[str, Any]]) -> Tensor:
    """`[texts, columns, dim]`: to the encoder they are chunks of one text, which it reads apart."""
    joined = {name: [chunk for one in tokens for chunk in one[name]] for name in tokens[0]}
    states = encoder.encode_token_weights(joined)[0]
    if not isinstance(states, Tensor) or states.dim() != 3 or states.shape[0] != 1 or states.shape[1] % len(tokens):
        raise NothingRecorded(f"{type(encoder).__name__} gives out texts in a form that concepts are not read from")
    return states[0].unflatten(0, (len(tokens), -1))


def _prompt(tokens: PromptTokens, columns: int) -> Prompt:
    prompt = of_length(tokens, columns)
    if prompt is None:
        raise NothingRecorded("the words of the concepts cannot be told from the columns that they are encoded to")
    return prompt
