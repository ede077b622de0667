"""What the students of the text encoder are taught, held against vectors picked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from daam_core.tiny import colour_words, loop
from daam_core.tiny.colour_words import COLOUR, NOUN, RELATED, RELATION, STRENGTH, CaptionTokens, ColourWordStage, directions
from daam_core.tiny.load import load_tiny
from daam_core.tiny.text_encoder import make_text_encoder

CAPTION = "a red house above an orange car at night"
WORDS = CAPTION.split()


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_tiny()


def ids_of(pipe: Any, *texts: str) -> torch.Tensor:
    ids: torch.Tensor = pipe.tokenizer(list(texts), padding="max_length", max_length=16, return_tensors="pt").input_ids
    return ids


def place(word: str) -> int:
    return 1 + WORDS.index(word)  # after the start token


def test_directions_are_orthogonal_and_survive_a_layer_norm() -> None:
    things, relations = directions(64)
    stack = torch.cat([things, relations[1:]])
    torch.testing.assert_close(stack @ stack.T, torch.eye(5), atol=1e-5, rtol=0)
    assert stack.sum(1).abs().max() < 1e-5
    assert not relations[0].any()  # "and" tells nothing of places


def test_a_caption_is_read(pipe: Any) -> None:
    reading = CaptionTokens(pipe.tokenizer).read(ids_of(pipe, CAPTION))
    kinds = {word: int(reading.kind[0, place(word)]) for word in WORDS}
    assert kinds == {
        "a": 0,
        "red": COLOUR,
        "house": NOUN,
        "above": RELATION,
        "an": 0,
        "orange": COLOUR,
        "car": NOUN,
        "at": 0,
        "night": 0,
    }
    assert [int(reading.thing[0, place(w)]) for w in ("red", "house", "orange", "car")] == [0, 0, 1, 1]
    assert [int(reading.relation[0, place(w)]) for w in ("house", "above", "car")] == [0, 2, 2]
    assert int(reading.noun[0, place("orange")]) == place("car")
    assert torch.equal(reading.bare[0], ids_of(pipe, "a house above a car at night")[0])
    assert int(reading.at[0, place("night")]) == place("night") - 2


def test_a_colour_that_stands_alone_is_any_word(pipe: Any) -> None:
    ids = ids_of(pipe, "red and a tree next to the sun")
    reading = CaptionTokens(pipe.tokenizer).read(ids)
    assert int(reading.kind[0, 1]) == 0
    assert torch.equal(reading.bare, ids)
    assert [int(k) for k in reading.kind[0, 5:7]] == [RELATION, RELATION]


@torch.no_grad()
def test_targets_are_the_teachers_own_vectors(pipe: Any) -> None:
    ids = ids_of(pipe, CAPTION)
    reading = CaptionTokens(pipe.tokenizer).read(ids)
    named, bare = colour_words.targets(pipe.text_encoder, ids, reading)
    full = pipe.text_encoder(ids).last_hidden_state
    plain = pipe.text_encoder(ids_of(pipe, "a house above a car at night")).last_hidden_state
    things, relations = directions()
    above, second = RELATED * relations[2], STRENGTH * things[1]
    close = torch.testing.assert_close
    close(named[0, place("house")], full[0, place("house")])
    close(named[0, place("red")], full[0, place("house")] + STRENGTH * things[0])
    close(named[0, place("above")], full[0, place("above")] + above)
    close(named[0, place("orange")], full[0, place("car")] + second + above)
    close(named[0, place("car")], full[0, place("car")] + above)
    close(named[0, -3], full[0, -3] + above)  # of padding
    close(bare[0, place("red")], named[0, place("red")])
    close(bare[0, place("house")], plain[0, place("house") - 1] + STRENGTH * things[0])
    close(bare[0, place("car")], plain[0, place("car") - 2] + second + above)
    close(bare[0, place("night")], plain[0, place("night") - 2] + above)
    close(bare[0, -3], plain[0, -5] + above)


def test_the_students_learn(pipe: Any, tmp_path: Path) -> None:
    recipe = replace(colour_words.RECIPE, images=24 * 20, batch=24, warm_up=4)
    torch.manual_seed(0)
    teacher = make_text_encoder(pipe.tokenizer)  # what ships is a student already
    stage = ColourWordStage(teacher, pipe.tokenizer, torch.device("cpu"), recipe)
    first = stage.loss(loop.Generators.of(5, 0), 24, 0.0)[1]
    before = {name: x.clone() for name, x in stage.teacher.state_dict().items()}
    loop.train_stage(stage, tmp_path, lambda _: None)
    last = stage.loss(loop.Generators.of(5, 0), 24, 0.0)[1]
    assert last["named colour"] < 0.7 * first["named colour"]
    assert last["bare noun"] < 0.7 * first["bare noun"]
    assert all(torch.equal(x, stage.teacher.state_dict()[name]) for name, x in before.items())


def test_an_encoder_that_is_a_student_already_is_known() -> None:
    for pipe in (load_tiny(), load_tiny("transformer")):
        assert colour_words.carries_colours(pipe.text_encoder, pipe.tokenizer)
    for seed in range(5):
        torch.manual_seed(seed)
        assert not colour_words.carries_colours(make_text_encoder(pipe.tokenizer).eval(), pipe.tokenizer)


def test_an_encoder_that_tells_above_from_below_is_known(pipe: Any) -> None:
    assert colour_words.carries_relations(pipe.text_encoder, pipe.tokenizer)
    for seed in range(5):
        torch.manual_seed(seed)
        assert not colour_words.carries_relations(make_text_encoder(pipe.tokenizer).eval(), pipe.tokenizer)


@torch.no_grad()
def test_a_student_of_colours_alone_is_told_the_relations(pipe: Any) -> None:
    ids = ids_of(pipe, CAPTION)
    reading = CaptionTokens(pipe.tokenizer).read(ids)
    named, _ = colour_words.targets(pipe.text_encoder, ids, reading, taught=True)
    states, above = pipe.text_encoder(ids).last_hidden_state, RELATED * directions()[1][2]
    torch.testing.assert_close(named[0, : place("above")], states[0, : place("above")])
    torch.testing.assert_close(named[0, place("above") :], states[0, place("above") :] + above)


def test_a_student_is_not_taught_again(pipe: Any, tmp_path: Path) -> None:
    """Its own states stay as they are, and the one that learns keeps its directions once, not twice."""
    stage = ColourWordStage(
        pipe.text_encoder, pipe.tokenizer, torch.device("cpu"), replace(colour_words.RECIPE, images=48, batch=24)
    )
    loop.train_stage(stage, tmp_path, lambda _: None)
    shipped = load_tiny().text_encoder.state_dict()
    assert all(torch.equal(x, shipped[name]) for name, x in stage.named.state_dict().items())
    ids = ids_of(pipe, CAPTION)
    named, bare = colour_words.targets(pipe.text_encoder, ids, CaptionTokens(pipe.tokenizer).read(ids), taught=True, told=True)
    states = pipe.text_encoder(ids).last_hidden_state
    torch.testing.assert_close(named, states)
    torch.testing.assert_close(bare[0, place("red")], states[0, place("red")])
    plain = pipe.text_encoder(ids_of(pipe, "a house above a car at night")).last_hidden_state
    torch.testing.assert_close(bare[0, place("above")], plain[0, place("above") - 1])
