"""The words that an encoder of letters (byT5) read: what a prompt quotes, in a sentence that the pipeline made or by itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from .alignment import search_key, segment
from .prompt import Prompt, Token
from .words import Word

_SENTENCE = re.compile(r'Text "(.*)"\. ', re.DOTALL)
_BETWEEN = '". Text "'
_ALWAYS = re.compile(r'"(.*?)"|“(.*?)”')
"""What every pipeline takes for quoted; some take single quotes, too, and with them what stands between two apostrophes."""
_GLYPHS = (r"'([^']*)'", r"\u201c([^\u201c\u201d]*)\u201d", r'"([^"]*)"', r"「([^「」]*)」")
"""What GLM-Image takes for quoted, in the order in which it looks for them."""
_QUOTES = (("'", "'"), ('"', '"'), ("‘", "’"), ("“", "”"))


def quoted_prompt(ids: Sequence[int], mask: Sequence[bool], columns: Sequence[int], sentence: str, text: str) -> Prompt | None:
    """The prompt of such a sentence; None where it is another, or its tokens are not its bytes one by one.

    Words carry the labels that they have in the whole prompt. What is quoted more than once belongs to no word: nobody can say
    to which.

    Args:
        ids: the tokens of the sentence, the end token and padding included.
        mask: which of them are no padding.
        columns: for each column of the model's text which token it is, -1 for padding.
        sentence: `Text "OPEN". Text "Bar". `.
        text: what was typed.
    """
    read, raw = _SENTENCE.fullmatch(sentence), sentence.encode("utf-8", "replace")
    kept = [i for i, on in enumerate(mask) if on]
    known = min(len(kept) - 1, len(raw))
    whole = len(kept) == len(raw) + 1 or len(kept) == len(columns)
    if read is None or known < 1 or kept != list(range(len(kept))) or not whole:
        return None
    if len({ids[i] - raw[i] for i in range(known)}) != 1:
        return None
    parts = read[1].split(_BETWEEN)
    always = {one or other for one, other in _ALWAYS.findall(text)}
    if not always <= set(parts) or any(not _places(text, part) for part in parts):
        return None  # the sentence of another prompt
    at = {token: column for column, token in enumerate(columns) if 0 <= token < known}
    found: list[tuple[str, str, list[tuple[int, str]]]] = []  # label, word, (column, letter)
    begin = len(b'Text "')
    for quoted in parts:
        places = _places(text, quoted)
        for label, first, last in _words_of(text, quoted, places[0]) if len(places) == 1 else ():
            letters = _letters(quoted, first, last, begin)
            if all(byte in at for byte, _ in letters):
                found.append((label, quoted[first:last], [(at[byte], letter) for byte, letter in letters]))
        begin += len(quoted.encode("utf-8", "replace")) + len(_BETWEEN)
    return _of_letters(text, found, len(columns), {c for c, i in enumerate(columns) if i < 0 or not mask[i]})


def glyph_prompt(read: Sequence[tuple[str, Sequence[int]]], columns: int, text: str) -> Prompt | None:
    """The prompt of what GLM-Image's transformer reads of it: what it quotes, each by itself, one behind the other with padding
    ahead of all; None where that was not read, or its tokens are not its bytes one by one.

    Words carry the labels that they have in the whole prompt; the others are not known to the transformer.

    Args:
        read: each text that was tokenized, in order, with its tokens and the end token.
        columns: how many columns the model was given.
        text: what was typed.
    """
    matches = [match for pattern in _GLYPHS for match in re.finditer(pattern, text)]
    parts = [match[1] for match in matches] or [""]
    places = [match.start(1) for match in matches] or [0]
    texts = [one for one, _ in read]
    first = next((i for i in range(len(texts)) if texts[i : i + len(parts)] == parts), None)
    if first is None:
        return None
    rows = [ids for _, ids in read[first : first + len(parts)]]
    ahead = (len(parts) + 1) % 2  # padding that the pipeline puts ahead of each
    begin = columns - sum(ahead + len(ids) for ids in rows)
    if begin < 0:
        return None
    padding = set(range(begin))
    letters_at: dict[tuple[int, int], tuple[str, str, list[tuple[int, str]]]] = {}  # by a word's place in the text
    shifts: set[int] = set()
    for place, part, ids in zip(places, parts, rows, strict=True):
        padding |= set(range(begin, begin + ahead))
        raw = part.encode("utf-8", "replace")
        known = min(len(ids) - 1, len(raw))
        shifts |= {ids[i] - raw[i] for i in range(known)}
        for label, start, stop in _words_of(text, part, place):
            letters = _letters(part, start, stop, 0)
            if all(byte < known for byte, _ in letters):
                # Between two apostrophes and in other quotes around them a word is read twice, and is one.
                *_, own = letters_at.setdefault((place + start, place + stop), (label, part[start:stop], []))
                own += [(begin + ahead + byte, letter) for byte, letter in letters]
        begin += ahead + len(ids)
    found = [letters_at[place] for place in sorted(letters_at)]
    return _of_letters(text, found, columns, padding) if len(shifts) <= 1 else None


def _of_letters(text: str, found: Sequence[tuple[str, str, list[tuple[int, str]]]], columns: int, padding: set[int]) -> Prompt:
    """A prompt of words whose letters' columns are known.

    Args:
        found: label, word, and (column, letter) of each of its letters.
        padding: columns that are.
    """
    places = sorted(place for _, _, letters in found for place in letters)
    tokens = tuple(Token(column, letter, channel) for channel, (column, letter) in enumerate(places, start=1))
    channels = {token.column: token.channel for token in tokens}
    words = tuple(Word(label, word, tuple(channels[column] for column, _ in letters)) for label, word, letters in found)
    ahead = min(channels, default=0)
    rest = [column for column in range(columns) if column not in channels and column not in padding]
    start, end = tuple(c for c in rest if c < ahead), tuple(c for c in rest if c >= ahead)
    return Prompt(text, tokens, words, start, end, tuple(sorted(padding)), columns)


def may_quote(text: str) -> bool:
    """Whether a prompt may hold something in quotes."""
    return any(sign in text for sign in '"‘“') or text.count("'") > 1


def _places(text: str, quoted: str) -> list[int]:
    """Where it stands in quotes: its first character."""
    marked = (re.escape(opening + quoted + closing) for opening, closing in _QUOTES)
    return [match.start() + 1 for one in marked for match in re.finditer(one, text)]


def _words_of(text: str, quoted: str, begin: int) -> list[tuple[str, int, int]]:
    """(label, first, last) of the words of what is quoted and begins at character `begin` of the text, as characters within
    it."""
    counts: Counter[str] = Counter()
    found = []
    for first, last in segment(text):
        key = search_key(text[first:last])
        counts[key] += 1
        if begin <= first and last <= begin + len(quoted):
            label = text[first:last] if counts[key] == 1 else f"{text[first:last]}#{counts[key]}"
            found.append((label, first - begin, last - begin))
    return found


def _letters(quoted: str, first: int, last: int, begin: int) -> list[tuple[int, str]]:
    """(byte of the sentence, character) of the characters `first` to `last` of a quoted text that begins at byte `begin`."""
    found, byte = [], begin + len(quoted[:first].encode("utf-8", "replace"))
    for letter in quoted[first:last]:
        for _ in letter.encode("utf-8", "replace"):
            found.append((byte, letter))
            byte += 1
    return found
