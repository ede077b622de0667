"""Prompts out of prompts: several encoders side by side, several prompts of one picture, chat templates around a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from itertools import accumulate

import torch

from ..errors import BadArgument
from .alignment import segment
from .context import Fit, context_channels, one_hot
from .prompt import Prompt, Token, Word, labelled


def concat_encoders(prompts: Sequence[Prompt], names: Sequence[str] = ()) -> Prompt:
    """One prompt read by several encoders whose columns stand one after the other, as SD3 joins CLIP and T5.

    Words of one label are one word, with the tokens of every encoder that read it.

    Args:
        prompts: what each encoder read.
        names: of the encoders, for a choice of one (see `encoders`); none where they are not known.
    """
    prompts = [_named(prompt, name) for prompt, name in zip(prompts, names, strict=True)] if names else prompts
    whole = concat(prompts)
    first_rows = list(accumulate((len(p.tokens) for p in prompts), initial=0))
    channels: dict[str, tuple[int, ...]] = {}
    words: dict[str, Word] = {}
    for prompt, first in zip(prompts, first_rows, strict=False):
        for word in prompt.words:
            key = word.label.casefold()
            words.setdefault(key, word)
            channels[key] = channels.get(key, ()) + tuple(channel + first for channel in word.channels)
    merged = tuple(replace(word, channels=channels[key]) for key, word in words.items())
    return replace(whole, text=prompts[0].text, words=merged, truncated=_cut_by_all(prompts[0], words))


def _cut_by_all(first: Prompt, read: Container[str]) -> tuple[str, ...]:
    """What the first encoder cut off and no other read; a word that stands earlier, too, is told by its number.

    Args:
        read: the labels, in lower case, that any encoder read.
    """
    times = Counter(first.text[a:b].casefold() for a, b in segment(first.text))
    left = Counter(word.casefold() for word in first.truncated)
    cut = []
    for word in first.truncated:
        key = word.casefold()
        number = times[key] - left[key] + 1
        left[key] -= 1
        if (f"{key}#{number}" if number > 1 else key) not in read:
            cut.append(word)
    return tuple(cut)


def _named(prompt: Prompt, encoder: str) -> Prompt:
    return replace(prompt, tokens=tuple(replace(token, encoder=encoder) for token in prompt.tokens))


def concat(prompts: Sequence[Prompt]) -> Prompt:
    """Several prompts of one picture (AND, regions, schedules), as one: columns, channels and words in order.

    A word that stands in several of them is numbered on: `house`, `house#2`.

    Raises:
        BadArgument: no prompt.
    """
    if not prompts:
        raise BadArgument("There is no prompt to join.")
    if len(prompts) == 1:
        return prompts[0]
    tokens: list[Token] = []
    words: list[tuple[str, tuple[int, ...]]] = []
    special: dict[str, list[int]] = {"start": [], "end": [], "padding": []}
    column = 0
    for prompt in prompts:
        first = len(tokens)
        tokens += [replace(t, column=t.column + column, channel=t.channel + first) for t in prompt.tokens]
        words += [(word.text, tuple(channel + first - 1 for channel in word.channels)) for word in prompt.words]
        for name, columns in special.items():
            columns += [c + column for c in getattr(prompt, name)]
        column += prompt.length
    return Prompt(
        text="\n".join(prompt.text for prompt in prompts),
        tokens=tuple(tokens),
        words=labelled(words, tokens),
        start=tuple(special["start"]),
        end=tuple(special["end"]),
        padding=tuple(special["padding"]),
        length=column,
        truncated=tuple(word for prompt in prompts for word in prompt.truncated),
    )


def share_columns(prompts: Sequence[Prompt]) -> Prompt:
    """Several texts in the same columns, as SDXL's two encoders read `prompt` and `prompt_2`: the words of all of them.

    A column is a token where it is one of any text. A word that stands at the same place in several texts is one word.

    Raises:
        BadArgument: they have different numbers of columns, or there is none.

    Example:
        >>> two = share_columns([maps.prompt, maps.prompt])
        >>> two.labels == maps.prompt.labels
        True
    """
    if not prompts or len({prompt.length for prompt in prompts}) > 1:
        raise BadArgument(f"Texts that share columns have as many each, not {[prompt.length for prompt in prompts]}.")
    pieces: dict[int, Token] = {}
    for prompt in prompts:
        for token in prompt.tokens:
            pieces.setdefault(token.column, token)
    tokens = tuple(replace(pieces[column], channel=channel) for channel, column in enumerate(sorted(pieces), start=1))
    at = {token.column: index for index, token in enumerate(tokens)}
    words: dict[tuple[str, tuple[int, ...]], str] = {}
    for prompt in prompts:
        columns = {token.channel: token.column for token in prompt.tokens}
        for word in prompt.words:
            indices = tuple(at[columns[channel]] for channel in word.channels)
            words.setdefault((word.text.casefold(), indices), word.text)
    longest = max(prompts, key=lambda prompt: len(prompt.tokens))
    return replace(
        longest,
        text="\n".join(dict.fromkeys(prompt.text for prompt in prompts)),
        tokens=tokens,
        words=labelled([(text, indices) for (_, indices), text in words.items()], tokens),
        start=tuple(column for column in longest.start if column not in at),
        end=tuple(column for column in longest.end if column not in at),
        padding=tuple(column for column in longest.padding if column not in at),
        truncated=tuple(word for prompt in prompts for word in prompt.truncated),
    )


def part_selection(prompts: Sequence[Prompt], pad: bool = False) -> Callable[[int, int], torch.Tensor]:
    """`select(keys, part)` of a joined prompt: the selection float32 `[keys, channels]` for the context of one of its parts.

    A longer context is the part's repeated, as hosts do to match lengths; its repeated columns are summed. With `pad`, it
    is padded behind instead, and a shorter one lost its last columns, as transformers do.
    """
    whole = concat(prompts)
    channels = whole.column_channels()
    first = list(accumulate((p.length for p in prompts), initial=0))
    fit: Fit = "pad" if pad else "repeat"

    def select(keys: int, part: int) -> torch.Tensor:
        own = channels[first[part] : first[part + 1]]
        return one_hot(context_channels(own, keys, whole.num_channels - 1, fit), whole.num_channels)

    return select


def pad_or_truncate(prompt: Prompt, length: int) -> Prompt:
    """`prompt` for a context of `length` columns: shorter ones lose their last columns, longer ones gain padding."""
    if length == prompt.length:
        return prompt
    if length > prompt.length:
        more = tuple(range(prompt.length, length))
        return replace(prompt, padding=prompt.padding + more, length=length)
    return _columns(prompt, 0, length)


def without_padding_behind(prompt: Prompt) -> Prompt:
    """`prompt` without the padding behind its last column of any other role."""
    columns = [*prompt.start, *prompt.end, *(token.column for token in prompt.tokens)]
    length = max(columns, default=prompt.length - 1) + 1
    return replace(prompt, padding=tuple(c for c in prompt.padding if c < length), length=length)


def mark_template(prompt: Prompt, head: int, tail: int) -> Prompt:
    """`prompt` where the first `head` and the last `tail` columns are a chat template: start and end, no words."""
    text = _columns(prompt, head, prompt.length - tail)
    return replace(
        text,
        tokens=tuple(replace(t, column=t.column + head) for t in text.tokens),
        start=tuple(range(head)) + tuple(c + head for c in text.start),
        end=tuple(c + head for c in text.end) + tuple(range(prompt.length - tail, prompt.length)),
        padding=tuple(c + head for c in text.padding),
        length=prompt.length,
    )


def drop_prefix(prompt: Prompt, columns: int) -> Prompt:
    """`prompt` without its first columns, which the encoder drops after reading them."""
    return _columns(prompt, columns, prompt.length)


def _columns(prompt: Prompt, first: int, last: int) -> Prompt:
    """The columns `first` to `last` (exclusive), counted anew; words that lie outside them in part are lost."""
    kept = [t for t in prompt.tokens if first <= t.column < last]
    renumbered = {t.channel: channel for channel, t in enumerate(kept, start=1)}
    words = [w for w in prompt.words if all(channel in renumbered for channel in w.channels)]
    cut = tuple(w.text for w in prompt.words if w.channels and max(w.channels) not in renumbered)
    tokens = tuple(replace(t, column=t.column - first, channel=renumbered[t.channel]) for t in kept)
    return Prompt(
        text=prompt.text,
        tokens=tokens,
        words=labelled([(w.text, tuple(renumbered[channel] - 1 for channel in w.channels)) for w in words], tokens),
        start=tuple(c - first for c in prompt.start if first <= c < last),
        end=tuple(c - first for c in prompt.end if first <= c < last),
        padding=tuple(c - first for c in prompt.padding if first <= c < last),
        length=last - first,
        truncated=prompt.truncated + (cut if last < prompt.length else ()),
    )
