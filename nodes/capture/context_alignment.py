"""Which words stand in which columns of a model's context."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from ...daam_core.errors import BadArgument
from ...daam_core.prompt.compose import concat, concat_encoders, drop_prefix, pad_or_truncate
from ...daam_core.prompt.encoders import encoder_name
from ...daam_core.prompt.prompt import Prompt
from .prompt_tokens import ENCODINGS, PromptTokens
from .tensor_hash import tensor_hash


def context_prompt(tokens: PromptTokens | None, context: Tensor, encoded: int | None = None) -> Prompt:
    """The prompt of a conditioning's context `[1, columns, d]`.

    `tokens` is what the conditioning carries along, read in `encoded` columns where that is known. Where they do not cover the
    columns (ConditioningConcat, style models), what is remembered of the rest is put behind it; columns of which nothing is
    known count as padding. An encoding of which a few columns were exchanged (PhotoMaker) keeps its words. Without anything
    known at all, the columns' numbers are the words. A context of zeros (ConditioningZeroOut) has no words: all is padding.
    """
    columns = context.shape[1]
    if is_zeroed(context):
        return wordless(columns)
    grown = encoded if encoded is not None and encoded < columns else None
    if tokens and grown is None and (whole := of_length(tokens, columns)) is not None:
        return whole
    parts: list[Prompt] = []
    at = 0
    if tokens and (first := of_length(tokens, grown) if grown else _shorter(tokens, columns)) is not None:
        parts, at = [first], first.length
    while at < columns and (found := ENCODINGS.find(context, at)) is not None:
        length, more = found
        prompt = of_length(more, length)
        if prompt is None:
            break
        parts.append(prompt)
        at += length
    if not parts:
        altered = ENCODINGS.altered(context)
        return (altered and of_length(altered, columns)) or Prompt.by_index(columns)
    return pad_or_truncate(concat(parts), columns)


def is_changed(encoding: str | None, context: Tensor, encoded: int | None = None) -> bool:
    """Whether somebody has changed the numbers of an encoding since (ConditioningAverage mixes another one into it).

    Args:
        encoding: its hash, as it was encoded; None or empty where nobody knows.
        context: what is there now, `[1, columns, d]`, to which columns may have been added.
        encoded: of how many columns it was.
    """
    own = context if encoded is None else context[:, :encoded]
    return bool(encoding) and tensor_hash(own) != encoding


def is_zeroed(context: Tensor) -> bool:
    """Whether nothing of a text is left in what an encoder gave out; ConditioningZeroOut keeps its words beside it."""
    return not bool(context.any())


def wordless(columns: int) -> Prompt:
    """So many columns of padding."""
    return Prompt("", (), (), (), (), tuple(range(columns)), columns)


def placed(prompt: Prompt, encoded: Tensor, given: Tensor) -> Prompt:
    """A prompt at the columns of what the model is given.

    Args:
        prompt: of the encoder's columns.
        encoded: `[1, columns, d]` of the encoder.
        given: `[1, more columns, d]`, which a model may pad on either side, or make of the first. Where the encoder's columns
            are found in it, the rest counts as padding; where they are not, and their number is another, its columns are known
            by number only.
    """
    columns, more = encoded.shape[1], given.shape[1]
    if more == columns:
        return prompt
    at = next((at for at in (0, more - columns) if more > columns and _stands(encoded, given, at)), None)
    if at is None:
        return Prompt.by_index(more)
    return mark_padding(prompt, at, more - columns - at)


def _stands(encoded: Tensor, given: Tensor, at: int) -> bool:
    part = given[:, at : at + encoded.shape[1]]
    return part.shape == encoded.shape and bool((part == encoded.to(part.device, part.dtype)).all())


def mark_padding(prompt: Prompt, before: int, behind: int) -> Prompt:
    """`prompt` with columns of padding ahead of it and behind it."""
    length = before + prompt.length + behind

    def moved(columns: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(column + before for column in columns)

    return replace(
        prompt,
        tokens=tuple(replace(token, column=token.column + before) for token in prompt.tokens),
        start=moved(prompt.start),
        end=moved(prompt.end),
        padding=(*range(before), *moved(prompt.padding), *range(length - behind, length)),
        length=length,
    )


def of_length(tokens: PromptTokens, columns: int) -> Prompt | None:
    """The reading of a prompt that fills exactly `columns` columns; None if no encoder or pair of encoders does.

    A chat model's encoder drops the head of its template, some the tail, too: a single longer reading loses these columns.
    """
    for prompt in _readings(tokens):
        if prompt.length == columns:
            return prompt
    if len(tokens) == 1 and (only := next(iter(tokens.values()))).length > columns:
        return _cut(only, columns)
    return None


def _cut(prompt: Prompt, columns: int) -> Prompt:
    """A prompt of a chat model whose encoder drops the head of its template, or head and tail (LongCat-Image)."""
    head, tail = _ends(prompt)
    if tail and prompt.length - columns == head + tail:
        return drop_prefix(pad_or_truncate(prompt, prompt.length - tail), head)
    return drop_prefix(prompt, prompt.length - columns)


def _ends(prompt: Prompt) -> tuple[int, int]:
    """Columns of the template ahead of the words, and behind them."""
    outside = set(prompt.start) | set(prompt.end)
    head = next((i for i in range(prompt.length) if i not in outside), prompt.length)
    return head, next((i for i in range(prompt.length) if prompt.length - 1 - i not in outside), prompt.length)


def words_for(tokens: PromptTokens, columns: int) -> Prompt:
    """As `of_length`, for a text that was given afterwards, and so may be another one.

    Raises:
        BadArgument: no reading fits.
    """
    found = of_length(tokens, columns)
    if found is None or not _is_template(tokens, columns):
        lengths = sorted({prompt.length for prompt in _readings(tokens)})
        raise BadArgument(
            f"The picture was made with a text of {columns} columns, and this one has {' or '.join(map(str, lengths))}: "
            "give the very text and CLIP that the sampler's positive prompt was made with. Where a node joined several texts "
            "(ConditioningConcat), encode them with the CLIP that comes out of Record."
        )
    return found


def _is_template(tokens: PromptTokens, columns: int) -> bool:
    """Whether what a reading has more than `columns` is the template of its encoder, of which some keep a token or two."""
    if any(prompt.length == columns for prompt in _readings(tokens)):
        return True
    only = next(iter(tokens.values()))
    head, tail = _ends(only)
    dropped = only.length - columns
    return head - 2 <= dropped <= head or dropped == head + tail


def _shorter(tokens: PromptTokens, columns: int) -> Prompt | None:
    return next((prompt for prompt in _readings(tokens) if prompt.length < columns), None)


def _readings(tokens: PromptTokens) -> Iterator[Prompt]:
    """The ways the encoders' outputs may stand in a context: CLIP before T5 (SD3), one alone, CLIP's two side by side."""
    clip = [tokens[name] for name in ("g", "l") if name in tokens]
    others = {name: prompt for name, prompt in tokens.items() if name not in ("g", "l", "h")}
    # CLIP's two encoders share their columns; the longer one is cut to the shorter.
    shared = pad_or_truncate(clip[0], min(prompt.length for prompt in clip)) if clip else tokens.get("h")
    if shared is not None and others:
        last = list(others)[-1]
        yield concat_encoders([shared, others[last]], [encoder_name("l"), encoder_name(last)])
    yield from others.values()
    if shared is not None:
        yield shared
