"""What a user may give as concepts."""

from __future__ import annotations

import pytest

from daam_core.errors import BadArgument
from daam_core.prompt.concepts import RIVALS, Concept, concept_prompt, concepts_of, own_columns, rivals_of
from daam_core.prompt.prompt import Prompt

from ..models import tokenizer


def test_labels_and_texts() -> None:
    assert [c.text for c in concepts_of("sky,  a dog's  tail\nthe sea")] == ["a sky", "a dog's tail", "the sea"]
    assert concepts_of(["sky"], template="a photo of {}") == (Concept("sky", "a photo of sky"),)
    assert concepts_of({"sky": "a blue sky"}) == (Concept("sky", "a blue sky"),)
    assert len(concepts_of(["Sky", "sky", " sky "])) == 1


@pytest.mark.parametrize(
    ("asked", "template", "said"),
    [
        ("", "a {}", "0 were given"),
        ([f"thing {i}" for i in range(65)], "a {}", "65 were given"),
        (["<start>"], "a {}", "word or phrase"),
        (["x" * 201], "a {}", "1 to 200 characters"),
        ([""], "a {}", "word or phrase"),
        ([3], "a {}", "not 3"),
        (3, "a {}", "a list of texts, not 3"),
        (["sky"], "a photo", "holds {} once"),
        (["sk\ud800y"], "a {}", "broken character"),
        ({"sky": "a \udfff"}, "a {}", "broken character"),
        (["sky"], "{} " + "x" * 200, "up to 200 whole characters"),
        (["sky"], "\ud800 {}", "up to 200 whole characters"),
    ],
)
def test_what_is_none_is_refused(asked: object, template: str, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        concepts_of(asked, template)  # type: ignore[arg-type]


def test_a_concept_that_the_encoder_reads_nothing_of_is_none_and_not_its_article() -> None:
    tok = tokenizer()

    def read(text: str) -> Prompt:
        return Prompt.from_ids(tok(text).input_ids, tok, text=text)

    with pytest.raises(BadArgument, match="reads nothing of the concept"):
        own_columns(read("a <|endoftext|>"), "<|endoftext|>")
    assert own_columns(read("the"), "the") == (1,)
    assert own_columns(read("a picture of a boat"), "ship") == (2, 5)


def test_rivals_are_eleven_other_things() -> None:
    assert len(rivals_of(Concept("sky", "a sky"))) == len(rivals_of(Concept("big tree", "a big tree"))) == 11
    assert set(RIVALS) - set(rivals_of(Concept("tree", "a tree"))) == {"tree"}


def test_a_side_of_concepts_has_one_channel_each() -> None:
    prompt = concept_prompt(concepts_of("sky, a dog's tail"))
    assert prompt.find("a dog's tail").channels == (2,) and prompt.num_channels == 5
