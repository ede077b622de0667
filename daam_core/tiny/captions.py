"""The caption grammar: one sentence of the picture-book world and its dependency tree.

    caption  := [("a picture of" | "a drawing of")] thing [relation thing] [place]
    thing    := [article] [size] [colour] noun
    relation := "and" | "next to" | "above" | "below"
    place    := "at night" | "on grass" | "in snow" | "at sea"

Trees use Universal Dependencies names (det, amod, conj, cc, nmod, case, fixed, root), so that a study of heads and
dependents needs no parser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .shapes import NOUNS

Relation = Literal["and", "next to", "above", "below"]
RELATIONS: tuple[Relation, ...] = ("and", "next to", "above", "below")
Background = Literal["plain", "night", "grass", "snow", "sea"]
# The place words of each background; plain paper has none.
PLACES: dict[Background, str] = {
    "plain": "",
    "night": "at night",
    "grass": "on grass",
    "snow": "in snow",
    "sea": "at sea",
}
BACKGROUNDS: tuple[Background, ...] = tuple(PLACES)
COLOUR_NAMES: tuple[str, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
SIZE_NAMES: tuple[str, ...] = ("small", "big")

# Nouns under the same hypernym are cohyponyms: the pairs whose maps are expected to be mixed up most.
HYPERNYMS: dict[str, tuple[str, ...]] = {
    "celestial body": ("sun", "moon", "star"),
    "plant": ("tree", "flower", "mushroom"),
    "vehicle": ("boat", "car", "balloon"),
    "building": ("house",),
    "animal": ("fish",),
    "symbol": ("heart",),
}

# Colour-noun pairs that no training picture and no training caption shows: the "unreal" split, 10 of 84.
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {
        ("red", "moon"),
        ("orange", "fish"),
        ("yellow", "car"),
        ("green", "house"),
        ("blue", "tree"),
        ("purple", "boat"),
        ("pink", "star"),
        ("blue", "mushroom"),
        ("green", "heart"),
        ("purple", "sun"),
    }
)


class Thing(NamedTuple):
    """What a caption says about one object. `colour` or `size` is `None` where the caption leaves it out."""

    noun: str
    colour: str | None = None
    size: str | None = None
    article: str = "a"


class Node(NamedTuple):
    """A word of a caption, the index of its head (-1 for the root) and its Universal Dependencies relation."""

    word: str
    head: int
    relation: str


@dataclass(frozen=True)
class Caption:
    """A caption: its text, its tree (one node a word, in order) and the word index of each thing's noun."""

    text: str
    tree: tuple[Node, ...]
    nouns: tuple[int, ...]


def cohyponyms(noun: str) -> tuple[str, ...]:
    """The other nouns of the world under the same hypernym."""
    return next((tuple(n for n in group if n != noun) for group in HYPERNYMS.values() if noun in group), ())


def with_article(words: list[str], article: str) -> list[str]:
    """Put `article` in front; `"a"` becomes `"an"` before a vowel, `""` adds nothing."""
    if article == "a" and words[0][0] in "aeiou":
        article = "an"
    return [article, *words] if article else words


def caption(things: list[Thing], relation: Relation = "and", background: Background = "plain", medium: str = "") -> Caption:
    """The caption of one or two things; `medium` is `""`, `"picture"` or `"drawing"`."""
    nodes: list[Node] = []
    nouns: list[int] = []
    head = -1
    if medium:
        nodes += [Node("a", 1, "det"), Node(medium, -1, "root"), Node("of", 0, "case")]
        head = 1
    for thing in things:
        start = len(nodes)
        joint = relation.split() if nouns else []
        adjectives = [w for w in (thing.size, thing.colour) if w]
        words = with_article([*adjectives, thing.noun], thing.article)
        noun = start + len(joint) + len(words) - 1
        for k, word in enumerate(joint):
            role = "cc" if word == "and" else "case" if k == 0 else "fixed"
            nodes.append(Node(word, noun if k == 0 else start, role))
        for word in words[:-1]:
            nodes.append(Node(word, noun, "amod" if word in adjectives else "det"))
        if nouns:
            nodes.append(Node(thing.noun, nouns[0], "conj" if relation == "and" else "nmod"))
        else:
            nodes.append(Node(thing.noun, head, "nmod" if medium else "root"))
        nouns.append(noun)
    if medium:
        nodes[2] = Node("of", nouns[0], "case")
    place = PLACES[background].split()
    if place:
        nodes += [Node(place[0], len(nodes) + 1, "case"), Node(place[1], nouns[0], "nmod")]
    return Caption(" ".join(n.word for n in nodes), tuple(nodes), tuple(nouns))


def random_pairs(rng: np.random.Generator, count: int, held_out: bool = False) -> list[tuple[str, str]]:
    """`count` (colour, noun) pairs with different nouns.

    All of them are pairs of the training world; with `held_out` the first one is an unreal pair.
    """
    while True:
        nouns = rng.choice(len(NOUNS), count, replace=False)
        colours = rng.integers(0, len(COLOUR_NAMES), count)
        pairs = [(COLOUR_NAMES[int(c)], NOUNS[int(n)]) for c, n in zip(colours, nouns, strict=True)]
        unreal = [pair in HELD_OUT for pair in pairs]
        if unreal[0] == held_out and not any(unreal[1:]):
            return pairs


def random_wording(
    rng: np.random.Generator,
    pairs: list[tuple[str, str]],
    sizes: list[str | None],
    relation: Relation,
    background: Background,
) -> Caption:
    """One of the many ways to say the same scene: colours, sizes, articles and place are sometimes left out."""
    things: list[Thing] = []
    for (colour, noun), size in zip(pairs, sizes, strict=True):
        article = ("a", "the", "")[int(rng.choice(3, p=[0.8, 0.1, 0.1]))]
        named_size = size if rng.random() < 0.25 else None
        things.append(Thing(noun, colour if rng.random() < 0.92 else None, named_size, article))
    named_place: Background = background if rng.random() < 0.9 else "plain"
    medium = ("", "picture", "drawing")[int(rng.choice(3, p=[0.86, 0.08, 0.06]))]
    return caption(things, relation, named_place, medium)
