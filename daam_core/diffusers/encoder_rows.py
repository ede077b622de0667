"""Texts of pipelines that have no `encode_prompt`: what their text encoder gave out, and which text that was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..capture.tokenizer_hook import Tokenized
from .encoded_prompts import EncodedPrompts, Encoding
from .encodings import copied

ENCODERS = ("text_encoder", "bert")
"""The names that such pipelines know their text encoders by."""


def add_encoder_output(
    encoded: EncodedPrompts, ids: Any, output: Any, tokens: Sequence[Tokenized], given: Mapping[str, Any]
) -> None:
    """Rows that a text encoder gave out, where they are the call's prompts or negative prompts; others are left alone.

    Args:
        encoded: takes them.
        ids: `[texts, columns]`, what the encoder was given.
        output: what it gave out; the first value is `[texts, columns, dim]`.
        tokens: what the pipeline's tokenizers read in this call.
        given: the call's arguments.
    """
    rows = output[0] if not isinstance(output, Tensor) else output
    if not isinstance(ids, Tensor) or not isinstance(rows, Tensor) or rows.dim() != 3 or len(rows) != len(ids):
        return
    read = [next((token for token in reversed(tokens) if list(token.ids) == row), None) for row in ids.tolist()]
    if any(token is None for token in read):
        return
    found = [token for token in read if token is not None]
    texts = [token.text for token in found]
    own = copied(list(rows))
    each = max(1, int(given.get("num_images_per_prompt") or 1))
    prompts, negatives = _list(given.get("prompt")), _list(given.get("negative_prompt")) or [""]
    if texts == prompts and not encoded.num_parts("prompt"):
        encoded.add("prompt", own, Encoding({"prompt": texts}, [own], found), "prompt", 0, each)
    elif set(texts) <= set(negatives) and not encoded.num_parts("negative"):
        encoding = Encoding({"negative_prompt": texts}, [own], found)
        encoded.add("negative", own, encoding, "negative_prompt", 0, each)


def _list(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(text) for text in value] if isinstance(value, (list, tuple)) else []
