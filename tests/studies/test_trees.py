"""Trees and the pairs of words taken from them: the grammar's own, and spaCy's brought to Universal Dependencies."""

from __future__ import annotations

import pytest

from daam_core.errors import BadArgument, BadPrompt
from daam_core.studies.trees import Pair, Tree, coreferents, most_common, pairs, universal
from daam_core.tiny.caption_reader import read_caption
from daam_core.tiny.captions import Thing, caption
from daam_core.tiny.scenes import scene_at


def tree(*nodes: tuple[str, int, str, str], numbers: tuple[str, ...] = ()) -> Tree:
    """(word, head, relation, part of speech) of each word."""
    words, heads, relations, tags = zip(*nodes, strict=True)
    number = numbers or tuple("Sing" if tag == "NOUN" else "" for tag in tags)
    return Tree(words, heads, relations, tags, number)


@pytest.mark.parametrize("index", range(80))
def test_reading_a_caption_gives_the_tree_that_it_was_said_with(index: int) -> None:
    scene = scene_at(31, index, two=0.6)
    said = read_caption(scene.caption.upper())
    assert (said.text, said.tree, said.nouns) == (scene.caption, scene.tree, scene.nouns)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a cat", "'cat' stands where a noun is due"),
        ("", "its end stands"),
        ("a red house and", "its end stands"),
        ("a red house beside a tree", "'beside' has no place"),
        ("a house at night and a tree", "has no place"),
        ("an house", "'an house' is no caption"),
        ("a picture of", "its end stands"),
        ("<script>alert(1)</script>", "no caption"),
    ],
)
def test_what_the_grammar_cannot_say_is_refused_with_the_word(text: str, says: str) -> None:
    with pytest.raises(BadPrompt, match=says):
        read_caption(text)


def test_relations_carry_their_function_word() -> None:
    both = Tree.from_caption(caption([Thing("house", "red"), Thing("tree")], "and", "night"))
    assert [both.relation(i) for i in range(len(both.words))] == [
        "det", "amod", "root", "cc", "det", "conj:and", "case", "nmod:at",
    ]  # fmt: skip
    beside = Tree.from_caption(caption([Thing("boat"), Thing("sun")], "next to"))
    assert beside.relation(beside.words.index("sun")) == "nmod:next_to"


def test_a_list_of_three_is_two_times_conj_and() -> None:
    # apples , pears and plums
    listed = tree(
        ("apples", -1, "root", "NOUN"), (",", 2, "punct", "PUNCT"), ("pears", 0, "conj", "NOUN"),
        ("and", 4, "cc", "CCONJ"), ("plums", 0, "conj", "NOUN"),
    )  # fmt: skip
    assert [listed.relation(i) for i in (2, 4)] == ["conj:and", "conj:and"]


def test_every_pair_is_there_once_and_has_one_kind() -> None:
    found = pairs(Tree.from_caption(caption([Thing("house", "red"), Thing("tree", "green")])))
    n = 7
    assert len(found) == n * (n - 1) // 2
    assert len({frozenset((p.dependent, p.head)) for p in found}) == len(found)
    assert [p for p in found if p.kind == "relation"] == [
        Pair("relation", "det", 0, 2),
        Pair("relation", "amod", 1, 2),
        Pair("relation", "cc", 3, 6),
        Pair("relation", "det", 4, 6),
        Pair("relation", "amod", 5, 6),
        Pair("relation", "conj:and", 6, 2),
    ]
    assert {p.kind for p in found[6:]} == {"unrelated"}


def test_unrelated_pairs_take_turns_in_who_is_the_dependent() -> None:
    found = [
        p for p in pairs(Tree.from_caption(caption([Thing("house", "red"), Thing("tree", "green")]))) if p.kind == "unrelated"
    ]
    first = sum(p.dependent < p.head for p in found)
    assert abs(first - len(found) / 2) <= 2


def test_a_noun_said_again_and_a_pronoun_are_coreferents() -> None:
    again = Tree.from_caption(caption([Thing("house", "red"), Thing("house", None, None, "the")]))
    assert coreferents(again) == [(2, 5)]
    # "a house and a house" are two houses.
    assert coreferents(Tree.from_caption(caption([Thing("house"), Thing("house")]))) == []
    # a dog chases its tail
    dog = tree(
        ("a", 1, "det", "DET"), ("dog", 2, "nsubj", "NOUN"), ("chases", -1, "root", "VERB"),
        ("its", 4, "nmod:poss", "PRON"), ("tail", 2, "obj", "NOUN"),
    )  # fmt: skip
    assert coreferents(dog) == [(1, 3)]
    # With a cat before it, "its" is anybody's: no pair is better than a wrong one.
    two = tree(
        ("cat", 1, "conj", "NOUN"), ("dog", 2, "nsubj", "NOUN"), ("chases", -1, "root", "VERB"),
        ("its", 4, "nmod:poss", "PRON"), ("tail", 2, "obj", "NOUN"),
    )  # fmt: skip
    assert coreferents(two) == []
    many = tree(
        ("dogs", 1, "nsubj", "NOUN"), ("chase", -1, "root", "VERB"), ("their", 3, "nmod:poss", "PRON"),
        ("tail", 1, "obj", "NOUN"), numbers=("Plur", "", "", "Sing"),
    )  # fmt: skip
    assert coreferents(many) == [(0, 2)]


def test_a_coreferent_pair_that_has_an_arc_is_a_relation() -> None:
    again = Tree.from_caption(caption([Thing("house", "red"), Thing("house", None, None, "the")]))
    (pair,) = [p for p in pairs(again) if {p.dependent, p.head} == {2, 5}]
    assert pair.kind == "relation"


def test_clearnlp_becomes_universal() -> None:
    # a pile of oranges sits on the table and shines
    spacy = tree(
        ("a", 1, "det", "DET"), ("pile", 4, "nsubj", "NOUN"), ("of", 1, "prep", "ADP"), ("oranges", 2, "pobj", "NOUN"),
        ("sits", -1, "root", "VERB"), ("on", 4, "prep", "ADP"), ("the", 7, "det", "DET"), ("table", 5, "pobj", "NOUN"),
        ("and", 4, "cc", "CCONJ"), ("eats", 4, "conj", "VERB"), ("bread", 9, "dobj", "NOUN"),
    )  # fmt: skip
    ud = universal(spacy)
    assert [(w, h, ud.relation(i)) for i, (w, h) in enumerate(zip(ud.words, ud.heads, strict=True))] == [
        ("a", 1, "det"), ("pile", 4, "nsubj"), ("of", 3, "case"), ("oranges", 1, "nmod:of"),
        ("sits", -1, "root"), ("on", 7, "case"), ("the", 7, "det"), ("table", 4, "obl:on"),
        ("and", 9, "cc"), ("eats", 4, "conj:and"), ("bread", 9, "obj"),
    ]  # fmt: skip


def test_a_prompt_that_begins_with_a_preposition_has_the_noun_as_its_root() -> None:
    beach = tree(("on", -1, "root", "ADP"), ("the", 2, "det", "DET"), ("beach", 0, "pobj", "NOUN"))
    ud = universal(beach)
    assert (ud.heads, ud.relations) == ((2, 2, -1), ("case", "det", "root"))
    # in front of the house
    front = tree(
        ("in", -1, "root", "ADP"), ("front", 0, "pobj", "NOUN"), ("of", 1, "prep", "ADP"), ("the", 4, "det", "DET"),
        ("house", 2, "pobj", "NOUN"),
    )  # fmt: skip
    ud = universal(front)
    assert [(h, ud.relation(i)) for i, h in enumerate(ud.heads)] == [
        (1, "case"), (-1, "root"), (4, "case"), (4, "det"), (1, "nmod:of"),
    ]  # fmt: skip


def test_a_universal_tree_stays_as_it_is() -> None:
    for index in range(20):
        own = Tree.from_caption(read_caption(scene_at(8, index, two=0.7).caption))
        assert universal(own) == own
        assert Tree.from_dict(own.to_dict()) == own


def test_the_most_common_relations_leave_out_the_root() -> None:
    assert most_common(["det", "root", "root", "amod", "det", "case", "amod", "root"], 2) == ["amod", "det"]


@pytest.mark.parametrize(("heads", "says"), [((0,), "no word is its own"), ((5,), "lie in -1..0"), ((-1, 0), "needs 1")])
def test_a_tree_that_is_none_is_refused(heads: tuple[int, ...], says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        Tree(("a",), heads, ("det",), ("DET",), ("",))
