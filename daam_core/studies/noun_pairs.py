"""Pairs of nouns for "a X and a Y" (paper, section 5.1): cohyponyms, which share a hypernym, and others."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import BadArgument, quoted
from ..prompt.alignment import search_key
from ..tiny.captions import HYPERNYMS, cohyponyms, with_article
from .prompts import WORLD_SEED
from .tables import read_rows

Kind = Literal["cohyponyms", "others"]
COHYPONYMS: Kind = "cohyponyms"
OTHERS: Kind = "others"
_COLUMNS = ("first", "second", "relation")
_RELATIONS: dict[str, Kind] = {"cohyponym": COHYPONYMS, "cohyponyms": COHYPONYMS, "other": OTHERS, "others": OTHERS}


@dataclass(frozen=True)
class NounPair:
    """Two nouns and whether they are cohyponyms."""

    first: str
    second: str
    kind: Kind

    def prompt(self, swapped: bool = False) -> str:
        """The paper's prompt "a(n) X and a(n) Y", or the other way round."""
        first, second = (self.second, self.first) if swapped else (self.first, self.second)
        return " ".join([*with_article(first.split(), "a"), "and", *with_article(second.split(), "a")])


def world_pairs() -> list[NounPair]:
    """All pairs of the embedded world's nouns that have a cohyponym: 9 of cohyponyms, 27 of others, in a fixed shuffled order.

    The hypernyms are the everyday ones of a picture book (sun, moon and star in the sky; tree, flower and mushroom grow;
    boat, car and balloon carry). Nouns without a cohyponym (house, fish, heart) are left out: then each of nine nouns is in
    two pairs of the one kind and six of the other, so a noun that is hard to draw weighs on both kinds alike.
    """
    nouns = [noun for group in HYPERNYMS.values() if len(group) > 1 for noun in group]
    found = [NounPair(a, b, COHYPONYMS if b in cohyponyms(a) else OTHERS) for a, b in combinations(nouns, 2)]
    return [found[i] for i in np.random.default_rng([WORLD_SEED, 5]).permutation(len(found))]


def read_pairs(path: Path) -> list[NounPair]:
    """Pairs from a CSV file with the columns first, second, relation; a relation is "cohyponym" or "other".

    Raises:
        BadArgument: the file cannot be read, lacks a column, has another relation, an empty noun, a noun paired with
            itself, or a pair twice; the text names the line.
    """
    found: list[NounPair] = []
    seen: set[frozenset[str]] = set()
    for where, row in read_rows(path, _COLUMNS, "pairs"):
        first, second, relation = (" ".join(row[name].split()) for name in _COLUMNS)
        if relation.lower() not in _RELATIONS:
            raise BadArgument(f"{where}: the relation {quoted(relation)} is neither 'cohyponym' nor 'other'.")
        if not first or not second or search_key(first) == search_key(second):
            raise BadArgument(f"{where}: {quoted(first)} and {quoted(second)} are not two nouns.")
        pair = frozenset((search_key(first), search_key(second)))
        if pair in seen:
            raise BadArgument(f"{where}: {quoted(first)} and {quoted(second)} are in the file twice.")
        seen.add(pair)
        found.append(NounPair(first, second, _RELATIONS[relation.lower()]))
    if len({pair.kind for pair in found}) < 2:
        raise BadArgument(
            f"{path} needs pairs of both relations, cohyponym and other, to compare them; it has {len(found)} pairs."
        )
    return found
