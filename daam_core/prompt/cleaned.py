"""Finds a prompt again that was cleaned before it was tokenized: quotes made straight, HTML undone, signs taken out."""

from __future__ import annotations

import html
import unicodedata
from array import array
from functools import lru_cache

_STRAIGHT = str.maketrans({**dict.fromkeys("‘’‚‛ʼ`", "'"), **dict.fromkeys("“”„‟", '"')})


def cleaned_text(typed: str, read: str) -> str | None:
    """What `typed` became in `read`, the text that a tokenizer was given; None where it is not found there.

    Either all of `read`, which has the same letters and digits, or a part of it (a template stands around it), which differs
    in kinds of quotes, widths of letters, HTML's names of characters, case and spaces alone.

    Example:
        >>> cleaned_text("it\u2019s a \u201cred\u201d house", 'it\'s a "red" house')
        'it\'s a "red" house'
        >>> cleaned_text("a red &amp; green house", "user: a red & green house.")
        'a red & green house'
    """
    plain = html.unescape(html.unescape(typed))
    if (letters := _letters(plain)) and letters == _letters(read):
        return read.strip()
    wanted = _alike(plain)[0]
    spelled, places = _alike(read)
    at = spelled.rfind(wanted) if letters else -1
    return None if at < 0 else read[places[at] : places[at + len(wanted) - 1] + 1]


@lru_cache(maxsize=256)
def _letters(text: str) -> str:
    """Its letters and digits, whatever their case and width."""
    return "".join(c for c in unicodedata.normalize("NFKD", text).casefold() if c.isalnum())


@lru_cache(maxsize=256)
def _alike(text: str) -> tuple[str, array[int]]:
    """A text without case, width, kinds of quotes, spaces and what is not seen, and for each character which one of the text
    it comes from."""
    folded = [(c, i) for i, own in enumerate(text) for c in unicodedata.normalize("NFKD", own.translate(_STRAIGHT)).casefold()]
    seen = [(c, i) for c, i in folded if not c.isspace() and unicodedata.category(c) not in ("Cf", "Cc")]
    return "".join(c for c, _ in seen), array("I", [i for _, i in seen])  # a list of a long text's would be ten times as large
