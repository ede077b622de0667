"""Dependency trees of prompts, and the pairs of words that a study of syntax compares (paper, Table 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..errors import BadArgument
from ..prompt.alignment import is_visible
from ..tiny.captions import Caption

Kind = Literal["relation", "unrelated", "coreferent"]
# Parts of speech (Universal Dependencies) of the caption grammar's relations; everything else there is a noun.
_GRAMMAR_TAGS = {"det": "DET", "amod": "ADJ", "cc": "CCONJ", "case": "ADP", "fixed": "ADP"}
# Relations that the paper names with their function word, and that word's own relation: conj:and, nmod:of.
_NAMED_BY = {"conj": "cc", "nmod": "case", "obl": "case", "acl": "mark", "advcl": "mark"}
_DEFINITE = frozenset({"the", "this", "that", "these", "those", "its", "their", "his", "her"})
_PRONOUNS = {"it": "Sing", "its": "Sing", "itself": "Sing", "they": "Plur", "them": "Plur", "their": "Plur"}


@dataclass(frozen=True)
class Tree:
    """A parsed prompt: for word i its head's index (-1 for the root), its relation and its part of speech.

    `relations` and `tags` are those of Universal Dependencies; `numbers` is "Sing", "Plur" or "" for each word.
    """

    words: tuple[str, ...]
    heads: tuple[int, ...]
    relations: tuple[str, ...]
    tags: tuple[str, ...]
    numbers: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.words)
        if {len(self.heads), len(self.relations), len(self.tags), len(self.numbers)} != {n}:
            raise BadArgument(f"A tree of {n} words needs {n} heads, relations, tags and numbers.")
        if any(not -1 <= head < n or head == i for i, head in enumerate(self.heads)):
            raise BadArgument(f"Heads of {n} words lie in -1..{n - 1} and no word is its own, got {list(self.heads)}.")

    @classmethod
    def from_caption(cls, caption: Caption) -> Tree:
        """The caption grammar's own tree."""
        nodes = caption.tree
        tags = tuple(_GRAMMAR_TAGS.get(node.relation, "NOUN") for node in nodes)
        return cls(
            tuple(node.word for node in nodes),
            tuple(node.head for node in nodes),
            tuple(node.relation for node in nodes),
            tags,
            tuple("Sing" if tag == "NOUN" else "" for tag in tags),
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tree:
        """The inverse of `to_dict`."""
        return cls(
            tuple(map(str, data["words"])),
            tuple(map(int, data["heads"])),
            tuple(map(str, data["relations"])),
            tuple(map(str, data["tags"])),
            tuple(map(str, data["numbers"])),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, ready for JSON."""
        return {name: list(values) for name, values in asdict(self).items()}

    def children(self, word: int, relation: str) -> list[int]:
        """Indices of a word's dependents under one relation, in order."""
        return [i for i, head in enumerate(self.heads) if head == word and self.relations[i] == relation]

    def relation(self, word: int) -> str:
        """A word's relation to its head with its function word, as the paper writes it: `conj:and`, `nmod:next_to`."""
        name = self.relations[word]
        if name not in _NAMED_BY:
            return name
        found = self.children(word, _NAMED_BY[name])
        if not found and name == "conj":
            # A third conjunct has no "and" of its own: "a, b and c" is conj:and twice.
            found = [i for other in self.children(self.heads[word], "conj") for i in self.children(other, "cc")]
        if not found:
            return name
        function = [found[0], *self.children(found[0], "fixed")]
        return f"{name}:{'_'.join(self.words[i].lower() for i in sorted(function))}"


@dataclass(frozen=True)
class Pair:
    """Two words to compare, by index; an unrelated or coreferent pair has no dependent, so the roles are only names."""

    kind: Kind
    relation: str
    dependent: int
    head: int


def pairs(tree: Tree) -> list[Pair]:
    """Every pair of words that are more than punctuation or stand in a relation, each pair once.

    - relation: dependent and head (paper, Table 2, "all head-dependent pairs" and its ten relations);
    - coreferent: two mentions of one thing, see `coreferents`;
    - unrelated: no arc between them and not coreferent. Which of the two plays the dependent alternates, so that no
      place in the sentence is always the same role.
    """
    found = [Pair("relation", tree.relation(i), i, head) for i, head in enumerate(tree.heads) if head >= 0]
    taken = {frozenset((pair.dependent, pair.head)) for pair in found}
    for first, second in coreferents(tree):
        if frozenset((first, second)) not in taken:
            found.append(Pair("coreferent", "coreferent", second, first))
            taken.add(frozenset((first, second)))
    shown = [i for i, word in enumerate(tree.words) if is_visible(word)]
    for place, i in enumerate(shown):
        for j in shown[place + 1 :]:
            if frozenset((i, j)) not in taken:
                dependent, head = (i, j) if (i + j) % 2 else (j, i)
                found.append(Pair("unrelated", "unrelated", dependent, head))
    return found


def coreferents(tree: Tree) -> list[tuple[int, int]]:
    """Pairs (earlier, later) of words that name one thing, by two rules that are seldom wrong and miss much.

    - A noun said again under a definite word: "a red house and the house", "a dog … its dog" does not need the first
      to be definite.
    - "it", "its", "itself" ("they", "them", "their") after exactly one singular (plural) noun.

    A coreference resolver finds more; none is part of spaCy's own pipelines.
    """
    found = []
    nouns = [i for i, tag in enumerate(tree.tags) if tag in ("NOUN", "PROPN")]
    lower = [word.lower() for word in tree.words]
    for place, noun in enumerate(nouns):
        definite = any(lower[i] in _DEFINITE for i, head in enumerate(tree.heads) if head == noun)
        earlier = [i for i in nouns[:place] if lower[i] == lower[noun]]
        if definite and earlier:
            found.append((earlier[-1], noun))
    for i, word in enumerate(lower):
        before = [noun for noun in nouns if noun < i and tree.numbers[noun] == _PRONOUNS.get(word)]
        if len(before) == 1 and tree.heads[i] != before[0]:
            found.append((before[0], i))
    return found


def universal(tree: Tree) -> Tree:
    """A tree in the style of spaCy's English pipelines (ClearNLP) as Universal Dependencies, where they differ for us.

    - `prep` + `pobj`: the object depends on what the preposition depended on (`nmod` under a noun, else `obl`),
      and the preposition on it (`case`);
    - `cc` hangs on the conjunct that follows it;
    - `dobj`, `nsubjpass`, `auxpass`, `relcl`, `poss`, `neg`, `dative`, `nn` get UD's names.

    A tree that has none of them comes back unchanged.
    """
    heads, relations = list(tree.heads), list(tree.relations)
    for i, relation in enumerate(tree.relations):
        head = tree.heads[i]
        if relation == "pobj" and head >= 0 and (tree.tags[head] == "ADP" or tree.relations[head] in _PREPOSITIONS):
            owner = tree.heads[head]
            nominal = owner >= 0 and tree.tags[owner] in ("NOUN", "PROPN", "PRON", "NUM")
            heads[i], relations[i] = owner, "root" if owner < 0 else "nmod" if nominal else "obl"
            heads[head], relations[head] = i, "case"
        elif relation == "cc" and head >= 0:
            after = [j for j in tree.children(head, "conj") if j > i]
            heads[i] = after[0] if after else head
    relations = [_UD_NAMES.get(relation, relation) for relation in relations]
    return Tree(tree.words, tuple(heads), tuple(relations), tree.tags, tree.numbers)


_PREPOSITIONS = frozenset({"prep", "agent", "dative"})
_UD_NAMES: Mapping[str, str] = {
    "dobj": "obj",
    "nsubjpass": "nsubj:pass",
    "auxpass": "aux:pass",
    "relcl": "acl:relcl",
    "poss": "nmod:poss",
    "neg": "advmod",
    "dative": "iobj",
    "nn": "compound",
    "prt": "compound:prt",
    "ROOT": "root",
}


def most_common(relations: Sequence[str], count: int = 10) -> list[str]:
    """The most frequent relations (the paper looks at ten), ties in alphabetical order; `root` is none."""
    kinds = sorted(set(relations) - {"root"}, key=lambda name: (-relations.count(name), name))
    return kinds[:count]
