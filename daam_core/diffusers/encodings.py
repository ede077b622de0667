"""What the calls of a pipeline's text encoders mean: which of its prompts they read, and which rows they gave out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..types import Side
from .encoded_prompts import EncodedPrompts, Encoding, Source


def add_encoding(encoded: EncodedPrompts, encoding: Encoding, given: Mapping[str, Any], sampling: bool) -> None:
    """What one call of `encode_prompt` gave out, inside a call of the pipeline with the arguments `given`.

    Args:
        sampling: whether the model has run already: then a new prompt takes the place of the first from here on.
    """
    first, *more = encoding.outputs
    each = max(int(given.get(name) or 1) for name in ("num_images_per_prompt", "num_videos_per_prompt"))
    text = encoding.texts.get("prompt")
    part = encoded.num_parts("prompt")
    if "negative_prompt" in encoding.texts:
        if text is not None or not encoded.pass_through(first):
            encoded.add("prompt", first, encoding, "prompt", part, each)
        alike = [batch for batch in more if _alike(batch, first)]
        # One column is a summary of a text, where there is another as wide.
        second = next((batch for batch in alike if batch[0].shape[-2] > 1), next(iter(alike), None))
        if second is not None and (encoding.texts["negative_prompt"] is not None or not encoded.pass_through(second)):
            encoded.add("negative", second, encoding, "negative_prompt", encoded.num_parts("negative"), each)
        return
    if text is None and encoded.pass_through(first):
        return
    prompts, negatives = as_list(given.get("prompt")), as_list(given.get("negative_prompt"))
    if text == prompts:
        is_negative = text == negatives and part > 0 and not sampling
    else:
        is_negative = text == negatives or (part > 0 and not sampling)
    side: Side = "negative" if is_negative else "prompt"
    encoded.add(side, first, encoding, "prompt", encoded.num_parts(side), each)


def dropped_of(pipe: Any) -> int | None:
    """How many tokens of its template a pipeline drops ahead of a prompt, None where it does not say so."""
    found = (getattr(pipe, name, None) for name in ("prompt_template_encode_start_idx", "_drop_idx"))
    return next((number for number in found if isinstance(number, int)), None)


def texts_of(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, list[str] | None]:
    """The texts among the arguments of `encode_prompt`, copied: some pipelines write into the lists they are given.

    A text that was not given, nor its embeddings, is the empty one.
    """
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return {}
    bound.apply_defaults()
    given = bound.arguments
    texts: dict[str, list[str] | None] = {}
    for name in ("prompt", "negative_prompt"):
        if name in given or f"{name}_embeds" in given:
            by_hand = given.get(f"{name}_embeds") is not None
            texts[name] = as_list(given[name]) if given.get(name) is not None else None if by_hand else [""]
    for name, value in given.items():
        if re.fullmatch(r"(negative_)?prompt_\d", name) and as_list(value) is not None:
            texts[name] = as_list(value)
    return texts


def untemplated(texts: Sequence[str], given: Mapping[str, Any], first: bool) -> list[str]:
    """What was typed, where a pipeline puts its prompts into a template before it encodes them.

    Args:
        texts: what its encoder was given.
        given: the arguments of the pipeline's call.
        first: whether nothing of this call was encoded before; the negative prompt comes second.
    """
    typed = as_list(given.get("prompt" if first else "negative_prompt")) or [""]
    typed = typed if len(typed) == len(texts) else [typed[0]] * len(texts)
    return typed if all(one in text for one, text in zip(typed, texts, strict=True)) else list(texts)


def as_list(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    if isinstance(value, (list, tuple)) and value and all(isinstance(text, str) for text in value):
        return list(value)
    return None


def batches_of(result: Any) -> list[list[Tensor]]:
    """The batches of rows `[columns, …]` among what `encode_prompt` gave out, in order."""
    values = result if isinstance(result, tuple) else (result,)
    return [rows for value in values if (rows := rows_of(value))]


def rows_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return list(value) if value.dim() >= 3 and value.is_floating_point() else []
    if isinstance(value, list) and value and all(isinstance(v, Tensor) and v.dim() >= 2 for v in value):
        return list(value)
    return []


def copied(rows: Sequence[Tensor]) -> list[Tensor]:
    """The same numbers in tensors of our own: a callback may write another text into those that the pipeline was given."""
    return [row.detach().clone() for row in rows]


def _alike(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether two batches can be the two sides of one encoder."""
    return len(one) == len(other) and one[0].shape[-1] == other[0].shape[-1] and one[0].dim() == other[0].dim()


def same_rows(rows: Sequence[Tensor], batch: Sequence[Tensor]) -> bool:
    return len(rows) == len(batch) and all(
        a.shape == b.shape and torch.equal(a, b.to(a.device)) for a, b in zip(rows, batch, strict=True)
    )


def argument_of(encoding: Encoding, rows: Sequence[Tensor]) -> str:
    """The argument whose text became these rows: the first batch is the prompt's, the next like it the negative's."""
    return "prompt" if same_rows(rows, encoding.outputs[0]) or "negative_prompt" not in encoding.texts else "negative_prompt"


def source_of(row: Tensor, encodings: Sequence[Encoding]) -> Source | None:
    """Where one row of embeddings came from that were put together of several calls of `encode_prompt`; None if of none."""
    for encoding in encodings:
        for batch in encoding.outputs:
            for index, other in enumerate(batch):
                if same_rows([row], [other]):
                    name = argument_of(encoding, batch)
                    texts = encoding.texts.get(name) or [""]
                    return encoding, name, index * len(texts) // max(len(batch), len(texts))
    return None
