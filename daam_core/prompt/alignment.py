"""From a tokenizer's pieces to the words that were typed: pure functions on lists of strings, no tokenizer needed.

Three spellings are read: CLIP's byte-level BPE (`house</w>`), GPT-2 and Qwen's (`Ġhouse`) and SentencePiece's
(T5, `▁house`). A tokenizer's own cuts are not words (CLIP cuts "dog's" and "1980", and never cuts Japanese), so words
are cut from the text, and pieces are laid over it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

from .emphasis import Syntax, parse_weights

# CLIP's "</w>": a run of letters, a digit or a run of signs ends here, and nobody says whether a space followed.
# It is white space to Python, so it never counts as a character of a word.
GAP = "\x1f"
_SPACES = " \t\n\r\v\f\x1c\x1d\x1e\x1f"
_SUFFIX = "(?:s|t|re|ve|m|ll|d)"
_NO_SPACE = re.compile(
    rf"(?<=\d){GAP}(?=\d|(?:s|k|d|p|st|nd|rd|th|mm){GAP})"  # 1980, 70s, 4k, 3d, 1st
    rf"|(?<=[^\W\d_]){GAP}(?=['’]{GAP}?{_SUFFIX}{GAP})"  # dog's, dog’s
    rf"|(?<=[^\W\d_]{GAP}['’]){GAP}(?={_SUFFIX}{GAP})"  # dog’ s
    rf"|{GAP}(?=[,.;:!?)\]}}…])"  # house, tree
)
# One letter stands for a class of characters (see _kind); what has no class stands for itself and runs with its like.
_WORD = re.compile(r"[Lmz]+(?:a[Lmz]+)*|Hm*|[hm]+|[km]+|rr?m*|sm*(?:zsm*)*|x+|([^ ])\1*m*")
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_FLAG_TAGS = range(0xE0020, 0xE0080)
LONE_SURROGATES = re.compile(r"[\ud800-\udfff]+")
"""What stands in a text for bytes that are no character."""


@dataclass(frozen=True)
class Alignment:
    """The text that pieces spell. `spans[i]` is the half-open range of `text` that piece i touches (empty for a piece that
    only continues the one before, such as a further vector of an embedding); `end` is the first character of
    `text` that not all of its bytes were spelled of; `blank` are the pieces of white space alone."""

    text: str
    spans: tuple[tuple[int, int], ...]
    end: int
    blank: frozenset[int] = frozenset()


def piece_bytes(pieces: Sequence[str]) -> list[bytes]:
    """The UTF-8 bytes of each piece; spaces are in them, CLIP's `</w>` is GAP. A piece may end inside a character."""
    if any("▁" in piece for piece in pieces):
        return [_sentence_piece(piece) for piece in pieces]
    return [_byte_level(piece) for piece in pieces]


def align_tokens(spelling: Sequence[bytes], text: str = "") -> Alignment:
    """Lay pieces over `text`, or over the text they spell themselves where it is empty or does not fit.

    `text` may be cut (the pieces end first), written in other case, and hold weights, brackets and BREAK.
    """
    solid = [piece.translate(None, _SPACES.encode()) for piece in spelling]
    blank = frozenset(i for i, piece in enumerate(spelling) if piece and not solid[i])
    for typed in _readings(text) if any(solid) else ():
        # Most tokenizers of diffusion models write lower case; added tokens and other alphabets keep theirs.
        lowered = [piece.lower() for piece in solid]
        if found := _align(lowered, typed, lower=True) or _align(solid, typed, lower=False):
            return replace(found, blank=blank)
    guess = _without_gaps(b"".join(spelling).decode("utf-8", "surrogateescape"))
    found = _align(solid, guess, lower=False)
    assert found is not None, "pieces spell themselves"
    return replace(found, blank=blank)


def words_of(spelled: Alignment) -> list[tuple[str, tuple[int, ...]]]:
    """Words in order, each with the indices of its pieces; a piece belongs to exactly one word, one of white space to none.

    A word is letters, digits and apostrophes between them ("dog's", "4k"); one Chinese character; one run of hiragana
    or katakana; one emoji with all that modifies it; one run of an equal sign ("...", "-"). Words that share a piece
    are one word.
    """
    covered = max((b for _, b in spelled.spans), default=0)
    segments = [span for span in segment(spelled.text) if span[0] < covered]
    numbers = _segment_numbers(segments, spelled.spans)
    words = []
    for number, group in groupby(enumerate(numbers), key=lambda entry: entry[1][0]):
        entries = list(group)
        last = max(entry[1][1] for entry in entries)
        typed = spelled.text[segments[number][0] : segments[last][1]]
        # A line break, the space before a weight or T5's lone mark of a word's start is attended to for itself.
        words.append((readable(typed), tuple(index for index, _ in entries if index not in spelled.blank)))
    return words


def unspelled(spelled: Alignment) -> list[str]:
    """The words of the text that were cut off, whole or in part, in order."""
    return [spelled.text[a:b] for a, b in segment(spelled.text) if b > spelled.end]


def segment(text: str) -> list[tuple[int, int]]:
    """Half-open character ranges of the words in `text`."""
    return [match.span() for match in _WORD.finditer("".join(map(_kind, text)))]


def readable(text: str) -> str:
    """`text` with U+FFFD for bytes that are no character (a piece was cut away)."""
    return text if text.isascii() else LONE_SURROGATES.sub("\ufffd", text)


def search_key(text: str) -> str:
    """What two spellings of one word share: no case, spaces, invisible signs, nor kinds of apostrophe."""
    if text.isascii():
        return "".join(text.lower().split())
    folded = unicodedata.normalize("NFC", text.replace("’", "'")).casefold()
    return "".join(c for c in folded if not c.isspace() and c != "\ufe0f" and unicodedata.category(c) != "Cf")


def is_word_boundary(left: str, right: str) -> bool:
    """False where no tokenizer ends a word: between two letters of a script with spaces."""
    return not (left.isalpha() and right.isalpha() and _kind(left) == _kind(right) == "L")


def is_visible(text: str) -> bool:
    """True if `text` is more than punctuation: letters, digits or an emoji."""
    return any(_kind(c) in "LHhkrs" for c in text)


def _sentence_piece(piece: str) -> bytes:
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", piece):
        return bytes([int(byte[1], 16)])
    return piece.replace("▁", " ").encode()


def _byte_level(piece: str) -> bytes:
    stem = piece.removesuffix("</w>")
    table = _byte_of()
    spelled = bytes([table[c] for c in stem]) if all(c in table for c in stem) else stem.encode()
    return spelled if stem == piece else spelled + GAP.encode()


@lru_cache(maxsize=1)
def _byte_of() -> dict[str, int]:
    """Byte-level BPE writes printable Latin-1 bytes as themselves and the other 68 as U+0100, U+0101, ..."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + k): byte for k, byte in enumerate(hidden)}


def _readings(text: str) -> Iterator[str]:
    """The ways a host may have read `text`: as it stands, without weights (both syntaxes), without BREAK."""
    clean = text.encode("utf-8", "replace").decode()
    seen: set[str] = set()
    for reading in (clean, _plain(clean, "webui"), _plain(clean, "comfyui")):
        for kept in (reading, re.sub(r"\bBREAK\b", " ", reading)):
            typed = " ".join(unicodedata.normalize("NFC", kept).split())
            if typed and typed not in seen:
                seen.add(typed)
                yield typed


def _without_gaps(text: str) -> str:
    """Text with each GAP made a space, or nothing where people type none (accents and vowel signs included)."""
    glued = _NO_SPACE.sub("", text)
    closed = (c for c, after in zip(glued, f"{glued[1:]} ", strict=False) if c != GAP or _kind(after) != "m")
    return "".join(closed).replace(GAP, " ").strip(_SPACES)


def _align(solid: Sequence[bytes], text: str, lower: bool) -> Alignment | None:
    """Lay pieces without spaces over `text`; None where they differ."""
    letters = [(i, c.lower() if lower else c) for i, c in enumerate(text) if c not in _SPACES]
    encoded = [(i, c.encode("utf-8", "surrogateescape")) for i, c in letters]
    flat = b"".join(code for _, code in encoded)
    if not flat.startswith(b"".join(solid)):
        return None
    owner = [i for i, code in encoded for _ in code]
    spans: list[tuple[int, int]] = []
    at = 0
    for piece in solid:
        here = spans[-1][1] if spans else 0
        spans.append((owner[at], owner[at + len(piece) - 1] + 1) if piece else (here, here))
        at += len(piece)
    return Alignment(text, tuple(spans), owner[at] if at < len(owner) else len(text))


def _segment_numbers(segments: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """For each piece the first and last segment of its word, once segments that share a piece are joined."""
    numbers: list[tuple[int, int]] = []
    first = last = 0
    for a, b in spans:
        if a < b:
            low = last
            while segments[low][1] <= a:
                low += 1
            first = first if low == last else low
            last = low
            while segments[last][1] < b:
                last += 1
        numbers.append((first, last))
    return numbers if segments else []


@lru_cache(maxsize=4096)
def _kind(c: str) -> str:
    """L letter or digit, H Chinese character, h hiragana, k katakana, m mark on the character before, z joiner,
    a apostrophe, s emoji or symbol, r letter of a flag, x broken byte, a space; anything else is its own kind."""
    category, code = unicodedata.category(c), ord(c)
    if c.isspace():
        return " "
    if c in "'’":
        return "a"
    if c == "\u200d":
        return "z"
    if category[0] == "M" or c in "\u200cーｰ々" or code in _SKIN_TONES or code in _FLAG_TAGS:
        return "m"
    if category[0] in "LN":
        script = unicodedata.name(c, "").removeprefix("HALFWIDTH ").split(" ")[0]
        return {"CJK": "H", "HIRAGANA": "h", "KATAKANA": "k"}.get(script, "L")
    if category in ("So", "Cn"):
        return "r" if code in _FLAG_LETTERS else "s"
    return "x" if category == "Cs" else c


def _plain(text: str, syntax: Syntax) -> str:
    return "".join(part for part, _ in parse_weights(text, syntax))
