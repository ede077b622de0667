"""Words of a prompt inside a chat template, at the columns that a model is given."""

from __future__ import annotations

import pytest

from daam_core.errors import WordNotFound
from daam_core.prompt.prompt import Prompt
from daam_core.prompt.template import Keeps, columns_of, templated_prompt

from ..diffusers.transformer_pipelines import qwen, sentence_piece


@pytest.mark.parametrize(
    ("keeps", "ids", "kept", "columns", "wanted"),
    [
        ("tail", 4, 4, 4, [0, 1, 2, 3]),
        ("tail", 6, 5, 4, [2, 3, 4, 5]),
        ("tail", 2, 2, 4, [0, 1, -1, -1]),
        ("kept", 6, 3, 3, [0, 1, 2]),
        ("kept", 6, 3, 5, [0, 1, 2, -1, -1]),
        ("left", 3, 3, 5, [-1, -1, 0, 1, 2]),
        ("left", 6, 6, 5, None),
        ("first and tail", 6, 6, 4, [0, 3, 4, 5]),
    ],
)
def test_which_token_each_column_is(keeps: Keeps, ids: int, kept: int, columns: int, wanted: list[int] | None) -> None:
    assert columns_of(ids, range(kept), columns, keeps) == wanted


def in_template(text: str, prompt: str, dropped: int = 0) -> Prompt | None:
    tokenizer = qwen()
    ids = tokenizer(text)["input_ids"]
    return templated_prompt(ids, [True] * len(ids), range(dropped, len(ids)), tokenizer, prompt)


def test_the_last_place_counts_and_the_template_is_start_and_end() -> None:
    text = "<|im_start|>system\ndescribe a red house<|im_end|>\n<|im_start|>user\na red house<|im_end|>\n"
    prompt = in_template(text, "a red house")
    assert prompt is not None and prompt.labels == ["a", "red", "house"]
    assert prompt.start and prompt.end and not prompt.padding
    assert min(token.column for token in prompt.tokens) == len(prompt.start)
    later = in_template(text, "a red house", dropped=5)
    assert later is not None and len(later.start) == len(prompt.start) - 5


def test_a_text_that_is_not_there_or_lost_its_beginning_gives_no_words() -> None:
    assert in_template("<|im_start|>user\na green tree<|im_end|>\n", "two cats") is None
    text = "<|im_start|>user\na red house<|im_end|>\n"
    whole = in_template(text, "a red house")
    assert whole is not None
    assert in_template(text, "a red house", dropped=len(whole.start) + 1) is None


def test_padding_an_empty_text_and_another_case() -> None:
    tokenizer = sentence_piece()
    encoded = tokenizer("a red house", padding="max_length", max_length=8)
    mask = [bool(x) for x in encoded["attention_mask"]]
    prompt = templated_prompt(encoded["input_ids"], mask, range(8), tokenizer, "A red House")
    assert prompt is not None and prompt.labels == ["A", "red", "House"]
    assert (prompt.start, len(prompt.end), len(prompt.padding)) == ((), 1, 4)
    empty = tokenizer("", padding="max_length", max_length=4)
    nothing = templated_prompt(empty["input_ids"], [True, False, False, False], range(4), tokenizer, "")
    assert nothing is not None and not nothing.words and (len(nothing.end), len(nothing.padding)) == (1, 3)


def test_columns_of_a_text_whose_padding_is_taken_out_and_whose_head_is_dropped() -> None:
    """Padding ahead or behind; three tokens of the template are dropped, which the longest text of the batch tells."""
    assert columns_of(10, range(10), 7, "kept tail") == [3, 4, 5, 6, 7, 8, 9]
    assert columns_of(10, range(4, 10), 7, "kept tail") == [7, 8, 9, -1, -1, -1, -1]
    assert columns_of(10, range(6), 7, "kept tail") == [3, 4, 5, -1, -1, -1, -1]
    assert columns_of(10, range(2), 7, "kept tail") == [-1] * 7


def test_a_word_whose_signs_the_encoder_does_not_know_stands_in_the_prompt_all_the_same() -> None:
    """T5 has no Chinese, and "it has no words" was said of a prompt in it."""
    tokenizer, text = sentence_piece(), "two cats \u4e00\u5ea7 and İx"
    ids = tokenizer(text)["input_ids"]
    prompt = templated_prompt(ids, [True] * len(ids), range(len(ids)), tokenizer, text, bare=True)
    assert prompt is not None
    for word in ("\u4e00\u5ea7", "\u5ea7", "İx"):
        with pytest.raises(WordNotFound, match=f"'{word}' stands in the prompt, but the text encoder does not know all of its"):
            prompt.find(word)
    for word in ("\u732b", "cat", "İ"):
        with pytest.raises(WordNotFound, match=r"is not in the prompt\. Its words are: two, cats"):
            prompt.find(word)
