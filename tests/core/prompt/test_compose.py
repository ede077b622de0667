"""Several prompts or encoders behind one picture: every column keeps its word."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from daam_core.errors import BadArgument
from daam_core.maps.prompt_record import prompt_from_dict, prompt_to_dict
from daam_core.maps.record_values import Values
from daam_core.prompt.compose import concat, concat_encoders, drop_prefix, mark_template, pad_or_truncate, part_selection
from daam_core.prompt.prompt import Prompt

from ..models import tokenizer


def prompt(text: str, length: int = 77) -> Prompt:
    ids = tokenizer()(text, padding="max_length", max_length=length, truncation=True).input_ids
    return Prompt.from_ids(ids, tokenizer(), text=text)


def columns_of(one: Prompt, word: str) -> list[int]:
    """The context columns of a word."""
    rows = one.find(word).channels
    return [token.column for token in one.tokens if token.channel in rows]


def test_joined_prompts_number_repeated_words_on() -> None:
    """Two regions may both hold a house: the second is house#2, in its own columns."""
    whole = concat([prompt("a red house"), prompt("a green house")])
    assert whole.labels == ["a", "red", "house", "a#2", "green", "house#2"]
    assert columns_of(whole, "house") == [3]
    assert columns_of(whole, "house#2") == [77 + 3]
    assert whole.length == 154


def test_each_part_selects_its_own_columns() -> None:
    """The second prompt's attention goes to the second prompt's words, start tokens together."""
    first, second = prompt("a red house"), prompt("a tree")
    whole, select = concat([first, second]), part_selection([first, second])
    probabilities = torch.rand(77)
    for part, own in enumerate((first, second)):
        rows = probabilities @ select(77, part)
        for word in own.labels:
            label = {("a", 1): "a#2"}.get((word, part), word)
            expected = probabilities[columns_of(own, word)].sum()
            torch.testing.assert_close(rows[list(whole.find(label).channels)].sum(), expected)
        torch.testing.assert_close(rows.sum(), probabilities.sum())
        torch.testing.assert_close(rows[0], probabilities[0])


def test_a_repeated_context_is_folded_by_summing() -> None:
    """Hosts repeat a 77-column prompt beside one of 154."""
    one = prompt("a red house")
    select = part_selection([one])
    p = torch.rand(154)
    torch.testing.assert_close(p @ select(154, 0), (p[:77] + p[77:]) @ select(77, 0))
    with pytest.raises(BadArgument, match="100 columns"):
        select(100, 0)


def test_transformers_pad_or_cut_instead() -> None:
    """A context padded to a multiple of 32 counts its padding as padding; a trimmed one lost only padding."""
    one = prompt("a red house")
    select = part_selection([one], pad=True)
    p = torch.rand(96)
    longer = p @ select(96, 0)
    torch.testing.assert_close(longer[-1], p[list(one.padding)].sum() + p[77:].sum())
    shorter = p[:6] @ select(6, 0)
    torch.testing.assert_close(shorter[one.find("house").channels[0]], p[3])


def test_two_encoders_of_one_text_share_their_words() -> None:
    """SD3 reads a prompt with CLIP and T5: "house" is both encoders' tokens, not a second house."""
    clip, t5 = prompt("a red house"), prompt("a red house in snow", 40)
    both = concat_encoders([clip, t5])
    assert both.labels == ["a", "red", "house", "in", "snow"]
    assert columns_of(both, "house") == [3, 77 + 3]
    assert columns_of(both, "snow") == [77 + 5]
    assert both.length == 117


def test_what_one_encoder_cut_off_the_other_may_have_read() -> None:
    """No word counts as cut off that some encoder read."""
    clip = replace(prompt("a red house"), truncated=("snow", "moon"))
    assert concat_encoders([clip, prompt("snow", 40)]).truncated == ("moon",)


def test_a_word_that_stands_earlier_too_is_cut_off_where_no_encoder_read_it_once_more() -> None:
    """It passed for read, since the earlier one was."""
    text = "a house a tree a house in a house"
    clip = replace(prompt("a house a tree"), text=text, truncated=("a", "house", "in", "a", "house"))
    t5 = replace(prompt("a house a tree a house", 40), text=text, truncated=("in", "a", "house"))
    assert concat_encoders([clip, t5]).truncated == ("in", "a", "house")


def test_fitted_pads_behind_and_cuts_behind() -> None:
    """Longer contexts gain padding, shorter ones lose their end and say which words went."""
    one = prompt("a red house")
    assert pad_or_truncate(one, 77) is one
    assert pad_or_truncate(one, 80).padding[-3:] == (77, 78, 79)
    cut = pad_or_truncate(one, 3)
    assert (cut.labels, cut.length, cut.truncated) == (["a", "red"], 3, ("house",))


@pytest.mark.parametrize("head", [1, 2])
def test_an_encoder_that_drops_its_head(head: int) -> None:
    """Qwen-Image reads a template first and drops it: the words move forward."""
    one = prompt("a red house")
    cut = drop_prefix(one, head)
    assert columns_of(cut, "house") == [3 - head]
    assert cut.length == 77 - head
    assert cut.truncated == ()


def test_a_template_has_no_words() -> None:
    """ "user" and "assistant" around a prompt are nobody's words."""
    one = prompt("moon a red house star", 8)  # <start> moon a red house star <end> <padding>
    bare = mark_template(one, 2, 3)
    assert bare.labels == ["a", "red", "house"]
    assert columns_of(bare, "house") == [4]
    assert bare.start == (0, 1)
    assert bare.end == (5, 6, 7)
    assert bare.length == 8


@pytest.mark.parametrize("make", [lambda p: concat([p, p]), lambda p: pad_or_truncate(p, 90), lambda p: mark_template(p, 1, 2)])
def test_the_result_is_a_whole_prompt(make: Any) -> None:
    """Every column has one role: the constructor checks, and a record keeps it."""
    made = make(prompt("a red house and a green tree"))
    assert prompt_from_dict(Values(json.loads(json.dumps(prompt_to_dict(made))), "here")) == made


def test_nothing_to_join() -> None:
    with pytest.raises(BadArgument, match="no prompt"):
        concat([])
