"""From the tokens of a templated text to the words that were typed into it, at the columns that the model was given."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

from .alignment import align_tokens, piece_bytes, readable, segment, words_of
from .prompt import Prompt, Token, labelled
from .tokenization import Tokenizer

Keeps = Literal["tail", "kept", "kept tail", "left", "first and tail"]
"""Which tokens become the model's columns: the last ones (a template's head is dropped, padding is added behind), those that
the mask keeps, of these the last ones, all with padding added ahead, or the first and the last ones."""

_SPACES = b" \t\n\r\v\f\x1c\x1d\x1e\x1f"
_LEAST = 8  # so many bytes of a text's beginning are no accident


def columns_of(ids: int, kept: Sequence[int], columns: int, keeps: Keeps, dropped: int | None = None) -> list[int] | None:
    """For each column of the model's text which token it is, -1 for none; None where that does not add up.

    Args:
        ids: how many tokens there are, padding included.
        kept: the indices of those that are not padding.
        columns: how many columns the model was given.
        dropped: how many tokens ahead are dropped, where that is known: of "kept tail" what is longer is then cut off behind.
    """
    if keeps == "kept":
        return [*kept[:columns], *[-1] * (columns - len(kept))]
    if keeps == "kept tail":  # the longest text of the batch has no padding: from its length the head is known
        head = max(0, ids - columns)
        own = kept[head if dropped is None else min(head, dropped) :][:columns]
        return [*own, *[-1] * (columns - len(own))]
    if keeps == "left":
        return [*[-1] * (columns - ids), *range(ids)] if ids <= columns else None
    if ids <= columns:
        return [*range(ids), *[-1] * (columns - ids)]
    if keeps == "first and tail":
        return [0, *range(ids - columns + 1, ids)]
    return list(range(ids - columns, ids))


def templated_prompt(
    ids: Sequence[int], mask: Sequence[bool], columns: Sequence[int], tokenizer: Tokenizer, text: str, bare: bool = False
) -> Prompt | None:
    """The prompt whose text stands inside what was tokenized; None where it is not found there.

    Args:
        ids: the tokens of the whole text.
        mask: which of them are no padding.
        columns: for each column of the model's text which token it is, -1 for padding.
        tokenizer: whose tokens they are.
        text: what was typed. The last place where it stands is taken, since a template may say the same before.
        bare: nothing but the text was tokenized, so that all tokens are its own, however they spell it.
    """
    special = set(getattr(tokenizer, "all_special_ids", None) or ())
    plain = [i for i, token in enumerate(ids) if mask[i] and token not in special]
    codes = _codes([ids[i] for i in plain], tokenizer)
    found = (0, len(plain)) if bare else _find(codes, text, all(mask))
    if found is None:
        return None
    first, last = found
    inside = dict(zip(plain[first:last], codes[first:last], strict=True))
    shown = [i for i in columns if i in inside]
    if shown != list(inside)[: len(shown)] or (inside and not shown):
        return None  # an encoder drops what comes before a prompt, or cuts off its end: its beginning must be there
    spelled = align_tokens([inside[i] for i in shown], text)
    at = {token: column for column, token in enumerate(columns) if token >= 0}
    tokens = tuple(
        Token(at[i], readable(spelled.text[a:b]), row)
        for row, (i, (a, b)) in enumerate(zip(shown, spelled.spans, strict=True), start=1)
    )
    own = {token.column for token in tokens}
    begin = min(own) if own else next((c for c, t in enumerate(columns) if t >= 0 and mask[t] and t >= _after(plain, first)), 0)
    rest = [column for column in range(len(columns)) if column not in own]
    padding = tuple(c for c in rest if columns[c] < 0 or not mask[columns[c]])
    start = tuple(c for c in rest if c < begin and c not in padding)
    end = tuple(c for c in rest if c >= begin and c not in padding)
    cut = [] if len(shown) == len(inside) and spelled.end >= len(spelled.text) else _unread(spelled.text, spelled.end)
    return Prompt(
        text=text or readable(spelled.text),
        tokens=tokens,
        words=labelled(words_of(spelled), tokens),
        start=start,
        end=end,
        padding=padding,
        length=len(columns),
        truncated=tuple(cut),
    )


def _after(plain: Sequence[int], first: int) -> int:
    return plain[first] if first < len(plain) else 0


def _unread(text: str, end: int) -> list[str]:
    """The words of which the last part was not read."""
    return [text[a:b] for a, b in segment(text) if b > end]


def _codes(ids: Sequence[int], tokenizer: Tokenizer) -> list[bytes]:
    """The bytes that each token spells."""
    return piece_bytes([piece or "" for piece in tokenizer.convert_ids_to_tokens(list(ids))]) if ids else []


def _solid(code: bytes) -> bytes:
    return code.translate(None, _SPACES)


def _find(codes: Sequence[bytes], text: str, full: bool) -> tuple[int, int] | None:
    """The tokens `first` to `last` (exclusive) that spell `text`; where all places are `full`, its end may be cut off.

    Spaces and case do not count.
    """
    solid = [_solid(code).lower() for code in codes]
    whole = b"".join(solid)
    ends = list(accumulate(map(len, solid)))
    for typed in (_solid(text.lower().encode("utf-8", "replace")), _solid(text.encode("utf-8", "replace")).lower()):
        if not typed:
            return len(codes), len(codes)
        at = whole.rfind(typed)
        if at < 0 and full:
            at = len(whole) - _overlap(whole, typed)
        if 0 <= at < len(whole):
            stop = min(at + len(typed), len(whole))
            first = next(i for i, end in enumerate(ends) if end > at)
            return first, next(i for i, end in enumerate(ends) if end >= stop) + 1
    return None


def _overlap(whole: bytes, typed: bytes) -> int:
    """How many bytes of its beginning `whole` ends with, 0 where that may be an accident."""
    for n in range(min(len(typed), len(whole)), 0, -1):
        if whole.endswith(typed[:n]):
            return n if n == len(whole) or n >= _LEAST else 0
    return 0
