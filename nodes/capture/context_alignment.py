"""Which words stand in which columns of a model's context."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ...daam_core.errors import BadArgument
from ...daam_core.prompt.compose import beside, fitted, joined, without_head
from ...daam_core.prompt.prompt import Prompt
from .prompt_tokens import REMEMBERED, Spoken


def context_prompt(spoken: Spoken | None, context: Tensor) -> Prompt:
    """The prompt of a conditioning's context `[1, columns, d]`.

    `spoken` is what the conditioning carries along. Where it does not cover the columns (ConditioningConcat), what is
    remembered of the rest is put behind it; columns of which nothing is known count as padding. Without anything known
    at all, the columns' numbers are the words.
    """
    columns = context.shape[1]
    if spoken and (whole := of_length(spoken, columns)) is not None:
        return whole
    parts: list[Prompt] = []
    at = 0
    if spoken and (first := _shorter(spoken, columns)) is not None:
        parts, at = [first], first.length
    while at < columns and (found := REMEMBERED.find(context, at)) is not None:
        length, more = found
        prompt = of_length(more, length)
        if prompt is None:
            break
        parts.append(prompt)
        at += length
    if not parts:
        return Prompt.by_index(columns)
    return fitted(joined(parts), columns)


def of_length(spoken: Spoken, columns: int) -> Prompt | None:
    """The reading of a prompt that fills exactly `columns` columns; None if no encoder or pair of encoders does.

    A chat model's encoder drops the head of its template: a single longer reading loses its first columns.
    """
    for prompt in _readings(spoken):
        if prompt.length == columns:
            return prompt
    if len(spoken) == 1 and (only := next(iter(spoken.values()))).length > columns:
        return without_head(only, only.length - columns)
    return None


def words_for(spoken: Spoken, columns: int) -> Prompt:
    """As `of_length`, for a text that was given afterwards; a repeated context is a whole multiple.

    Raises:
        BadArgument: no reading fits.
    """
    for prompt in _readings(spoken):
        if columns % prompt.length == 0:
            return prompt
    exact = of_length(spoken, columns)
    if exact is None:
        lengths = sorted({prompt.length for prompt in _readings(spoken)})
        raise BadArgument(
            f"The picture was made with a text of {columns} columns, and this one has {' or '.join(map(str, lengths))}: "
            "give the very text and CLIP that the sampler's positive prompt was made with."
        )
    return exact


def _shorter(spoken: Spoken, columns: int) -> Prompt | None:
    return next((prompt for prompt in _readings(spoken) if prompt.length < columns), None)


def _readings(spoken: Spoken) -> Iterator[Prompt]:
    """The ways the encoders' outputs may stand in a context: CLIP before T5 (SD3), one alone, CLIP's two side by side."""
    clip = [spoken[name] for name in ("g", "l") if name in spoken]
    others = [prompt for name, prompt in spoken.items() if name not in ("g", "l", "h")]
    # CLIP's two encoders share their columns; the longer one is cut to the shorter.
    shared = fitted(clip[0], min(prompt.length for prompt in clip)) if clip else spoken.get("h")
    if shared is not None and others:
        yield beside([shared, others[-1]])
    yield from others
    if shared is not None:
        yield shared
