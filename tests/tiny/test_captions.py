"""Captions and their trees: what is said is what is drawn, and every word has a right head."""

from __future__ import annotations

import pytest

from daam_core.tiny.captions import HYPERNYMS, Node, Thing, caption, cohyponyms
from daam_core.tiny.scenes import scene_at
from daam_core.tiny.shapes import NOUNS


def test_a_conjunction() -> None:
    said = caption([Thing("house", "red"), Thing("tree", "orange", "small")], "and", "night")
    assert said.text == "a red house and a small orange tree at night"
    assert said.tree == (
        Node("a", 2, "det"),
        Node("red", 2, "amod"),
        Node("house", -1, "root"),
        Node("and", 7, "cc"),
        Node("a", 7, "det"),
        Node("small", 7, "amod"),
        Node("orange", 7, "amod"),
        Node("tree", 2, "conj"),
        Node("at", 9, "case"),
        Node("night", 2, "nmod"),
    )
    assert said.nouns == (2, 7)


def test_a_relation_under_a_picture() -> None:
    said = caption([Thing("boat", "orange"), Thing("sun", None, None, "the")], "next to", "plain", "picture")
    assert said.text == "a picture of an orange boat next to the sun"
    assert [(n.word, n.head, n.relation) for n in said.tree[1:6]] == [
        ("picture", -1, "root"),
        ("of", 5, "case"),
        ("an", 5, "det"),
        ("orange", 5, "amod"),
        ("boat", 1, "nmod"),
    ]
    assert said.tree[6:] == (Node("next", 9, "case"), Node("to", 6, "fixed"), Node("the", 9, "det"), Node("sun", 5, "nmod"))


@pytest.mark.parametrize("index", range(60))
def test_trees_of_the_world_are_trees(index: int) -> None:
    scene = scene_at(5, index, two=0.6)
    assert scene.caption == " ".join(node.word for node in scene.tree)
    assert [node.relation for node in scene.tree].count("root") == 1
    for start in range(len(scene.tree)):
        at, seen = start, set()
        while at >= 0:
            assert at not in seen
            seen.add(at)
            at = scene.tree[at].head
    for place, one in zip(scene.nouns, scene.objects, strict=True):
        assert scene.tree[place].word == one.noun
        colours = [n.word for n in scene.tree if n.head == place and n.relation == "amod" and n.word not in ("small", "big")]
        assert colours in ([], [one.colour])


def test_every_noun_has_one_hypernym() -> None:
    listed = [noun for group in HYPERNYMS.values() for noun in group]
    assert sorted(listed) == sorted(NOUNS)
    assert cohyponyms("moon") == ("sun", "star")
    assert cohyponyms("heart") == ()
