"""The caption grammar backwards: from a sentence of the picture-book world to its tree."""

from __future__ import annotations

from ..errors import BadPrompt, quoted
from .captions import COLOUR_NAMES, PLACES, RELATIONS, SIZE_NAMES, Background, Caption, Relation, Thing, caption
from .shapes import NOUNS

_MEDIA = ("picture", "drawing")
_ARTICLES = {"a": "a", "an": "a", "the": "the"}


def read_caption(text: str) -> Caption:
    """The caption that says `text`, with its dependency tree; upper and lower case are the same.

    Raises:
        BadPrompt: the grammar has no such sentence; the text says at which word it stops to understand.
    """
    words = text.lower().split()
    at = 0
    medium = next((m for m in _MEDIA if words[:3] == ["a", m, "of"]), "")
    if medium:
        at = 3
    first, at = _thing(words, at, text)
    things = [first]
    relation: Relation = "and"
    for name in RELATIONS:
        if words[at : at + len(name.split())] == name.split():
            relation = name
            second, at = _thing(words, at + len(name.split()), text)
            things.append(second)
            break
    background: Background = next((b for b, place in PLACES.items() if place and words[at:] == place.split()), "plain")
    at += len(PLACES[background].split())
    said = caption(things, relation, background, medium)
    if at < len(words) or said.text.split() != words:
        raise BadPrompt(f"{quoted(text)} is no caption of the picture-book world: {_where(words, at)} has no place in it.")
    return said


def _thing(words: list[str], at: int, text: str) -> tuple[Thing, int]:
    """The thing that begins at a word, and the index after it."""
    article = _ARTICLES.get(words[at], "") if at < len(words) else ""
    at += bool(article)
    size = words[at] if at < len(words) and words[at] in SIZE_NAMES else None
    at += size is not None
    colour = words[at] if at < len(words) and words[at] in COLOUR_NAMES else None
    at += colour is not None
    if at >= len(words) or words[at] not in NOUNS:
        raise BadPrompt(
            f"{quoted(text)} is no caption of the picture-book world: {_where(words, at)} stands where a noun is due; "
            f"its nouns are {', '.join(NOUNS)}."
        )
    return Thing(words[at], colour, size, article), at + 1


def _where(words: list[str], at: int) -> str:
    return repr(words[at]) if at < len(words) else "its end"
