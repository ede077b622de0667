"""Parsing by spaCy: a pipeline trained on the caption grammar in the test, found, loaded, and laid over the prompt's words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from daam_core.errors import BadArgument, MissingPackage
from daam_core.prompt.prompt import Prompt
from daam_core.studies.parsing import aligned, grammar_parser, spacy_parser, tree_of
from daam_core.studies.trees import Tree
from daam_core.tiny.scenes import scene_at

from ..core.models import tokenizer
from ..web.samples import heat_maps

spacy = pytest.importorskip("spacy", reason='spaCy is not installed: pip install "daam-lens[syntax]"')


def sentences(seed: int, count: int) -> list[str]:
    return [scene_at(seed, k, two=0.6).caption for k in range(count)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real spaCy pipeline that learnt the grammar's trees, saved to a folder."""
    from spacy.training import Example

    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("morphologizer")
    nlp.add_pipe("parser")
    examples = []
    for text in sentences(1, 120):
        tree = grammar_parser(text)
        heads = [i if head < 0 else head for i, head in enumerate(tree.heads)]
        deps = ["ROOT" if head < 0 else name for head, name in zip(tree.heads, tree.relations, strict=True)]
        given = {"words": list(tree.words), "heads": heads, "deps": deps, "pos": list(tree.tags)}
        examples.append(Example.from_dict(nlp.make_doc(text), given))
    optimizer = nlp.initialize(lambda: examples)
    for start in [*range(0, len(examples), 20)] * 5:
        nlp.update(examples[start : start + 20], sgd=optimizer)
    folder = tmp_path_factory.mktemp("pipeline") / "en_picture_book"
    nlp.to_disk(folder)
    return folder


def test_a_pipeline_in_a_folder_parses_like_the_grammar(trained: Path) -> None:
    parse = spacy_parser(str(trained))
    right = total = 0
    for text in sentences(2, 20):
        mine, true = parse(text), grammar_parser(text)
        assert mine.words == true.words
        right += sum(
            a == b and c == d for a, b, c, d in zip(mine.heads, true.heads, mine.relations, true.relations, strict=True)
        )
        total += len(true.words)
    assert right / total > 0.9


def test_any_installed_english_pipeline_is_taken(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    real = spacy.load

    def load(name: Any) -> Any:
        loaded.append(str(name))
        return real(trained)

    monkeypatch.setattr(spacy.util, "get_installed_models", lambda: ["de_core", "en_second", "en_first"])
    monkeypatch.setattr(spacy, "load", load)
    assert spacy_parser()("a red house").words == ("a", "red", "house")
    assert loaded == ["en_first"]


def test_no_pipeline_no_package_and_no_parser_are_one_sentence_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spacy.util, "get_installed_models", lambda: ["de_core_news_sm"])
    with pytest.raises(MissingPackage, match="No English pipeline of spaCy is installed"):
        spacy_parser()
    with pytest.raises(BadArgument, match="'en_nowhere' cannot be loaded"):
        spacy_parser("en_nowhere")
    with pytest.raises(BadArgument, match="cannot be loaded"):
        spacy_parser(str(tmp_path))
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(BadArgument, match="does not parse: it has no parts"):
        spacy_parser(str(tmp_path / "blank"))
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingPackage, match="pip install"):
        spacy_parser()


def doc(words: list[str], heads: list[int], deps: list[str], pos: list[str], tags: list[str] | None = None) -> Any:
    from spacy.tokens import Doc

    return Doc(spacy.blank("en").vocab, words=words, heads=heads, deps=deps, pos=pos, tags=tags)


def test_spaces_are_no_words_and_two_sentences_have_two_roots() -> None:
    parsed = tree_of(
        doc(["a", "house", "\n", "the", "trees"], [1, 1, 1, 4, 4], ["det", "ROOT", "dep", "det", "ROOT"],
            ["DET", "NOUN", "SPACE", "DET", "NOUN"], ["DT", "NN", "_SP", "DT", "NNS"])
    )  # fmt: skip
    assert parsed == Tree(
        ("a", "house", "the", "trees"), (1, -1, 3, -1), ("det", "root", "det", "root"), ("DET", "NOUN", "DET", "NOUN"),
        ("", "Sing", "", "Plur"),
    )  # fmt: skip


def test_no_words_at_all_are_an_empty_tree() -> None:
    assert tree_of(doc([], [], [], [])).words == ()


def test_words_are_found_by_their_letters() -> None:
    maps = heat_maps(["a", "teddy", "-", "bear", "don't", "house", "house"], (64, 64), ((8, 8),))
    found = aligned(["A", "teddy-bear", "do", "n't", "house", "house", "cut"], maps.prompt)
    assert found == [("a",), ("teddy", "-", "bear"), (), (), ("house",), ("house#2",), ()]
    assert aligned([], maps.prompt) == []
    assert aligned(["other", "text"], maps.prompt) == [(), ()]


def test_every_word_of_the_world_is_found_in_its_own_prompt() -> None:
    tok = tokenizer()
    for text in sentences(3, 20):
        ids = tok(text, padding="max_length", max_length=77, truncation=True).input_ids
        prompt = Prompt.from_ids(ids, tok, text=text)
        words = grammar_parser(text).words
        assert [prompt.find(label).text for (label,) in aligned(words, prompt)] == list(words)
