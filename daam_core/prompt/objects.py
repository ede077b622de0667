"""Which words of a prompt stand for objects, as far as its wording alone can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .alignment import search_key

if TYPE_CHECKING:
    from .prompt import Prompt
    from .words import Word

PLACE_WORDS = frozenset({"in", "on", "at"})
_BETWEEN = frozenset({"a", "an", "the", "this", "that", "his", "her", "its", "their"})
_LISTED = """
red orange yellow green blue purple pink white black brown grey gray golden silver violet turquoise beige
small big little large tiny huge tall short long old new young beautiful bright dark colorful colourful
"""
ADJECTIVES = frozenset(_LISTED.split())
"""Adjectives that end a group of words often enough to be taken for nouns: "a house that is red"."""


def object_words(prompt: Prompt) -> list[str]:
    """Labels of the words that stand for objects: the last word of each noun group that is no place.

    A noun group is a run of neighbouring content words ("red house"). It is a place where "in", "on" or "at" stands before
    it, with or without an article ("at night", "on the grass"). No parser is needed; a group of adjectives alone is none.

    Example:
        >>> object_words(maps.prompt)
        ['house', 'tree']
    """
    content = set(prompt.content_words())
    found: list[str] = []
    group: list[Word] = []
    place = False

    def close() -> None:
        if group and not place and search_key(group[-1].text) not in ADJECTIVES:
            found.append(group[-1].label)
        group.clear()

    for word in prompt.words:
        if word.label in content:
            group.append(word)
            continue
        ended = bool(group)
        close()
        key = search_key(word.text)
        if key in PLACE_WORDS:
            place = True
        elif ended or key not in _BETWEEN:
            place = False
    close()
    return found
