"""What byT5 reads: the quoted text of a prompt, a token a byte, at the columns behind those of the language model."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import ByT5Tokenizer

from daam_core.capture.families import FAMILIES
from daam_core.capture.tokenizer_hook import Tokenized
from daam_core.diffusers.encoded_prompts import Encoding, _prompt
from daam_core.errors import WordNotFound
from daam_core.prompt.prompt import Prompt
from daam_core.prompt.quoted import glyph_prompt, may_quote, quoted_prompt

from ..diffusers.transformer_pipelines import qwen

LENGTH = 48
BYT5 = ByT5Tokenizer()
FAMILY = next(family for family in FAMILIES if family.name == "HunyuanImage 2.1")


def tokenized(sentence: str) -> Tokenized:
    read = BYT5(sentence, padding="max_length", max_length=LENGTH, truncation=True)
    mask = tuple(bool(on) for on in read.attention_mask)
    return Tokenized("tokenizer_2", BYT5, sentence, tuple(read.input_ids), mask)


def read(sentence: str, text: str) -> Prompt | None:
    row = tokenized(sentence)
    return quoted_prompt(row.ids, row.mask, range(LENGTH), row.text, text)


def columns(prompt: Prompt, word: str) -> list[int]:
    return [prompt.tokens[channel - 1].column for channel in prompt.find(word).channels]


def test_a_word_is_its_bytes() -> None:
    """`Text "` is six bytes; é has two of them, and the word is found under the label that it has in the whole prompt."""
    text = 'a café and a sign "a café"'
    sentence = 'Text "a café". '
    prompt = read(sentence, text)
    assert prompt is not None and prompt.labels == ["a#3", "café#2"]
    assert columns(prompt, "a#3") == [6] and columns(prompt, "café#2") == [8, 9, 10, 11, 12]
    assert [prompt.tokens[c - 1].text for c in prompt.find("café#2").channels] == ["c", "a", "f", "é", "é"]
    assert prompt.start == tuple(range(6)) and prompt.padding == tuple(range(len(sentence.encode()) + 1, LENGTH))


def test_several_quotes_and_one_that_stands_twice() -> None:
    prompt = read('Text "OPEN". Text "Bar". ', 'a sign “OPEN” and another "Bar"')
    assert prompt is not None and columns(prompt, "OPEN") == [6, 7, 8, 9] and columns(prompt, "Bar") == [19, 20, 21]
    twice = read('Text "OPEN". ', '"OPEN" beside "OPEN"')
    assert twice is not None and twice.words == (), "nobody can say which of both"


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ('Text "OPEN". ', 'a sign "OPEN" and "BAR"'),  # of another prompt
        ('Text "OPEN". ', "a sign"),
        ("Read OPEN", 'a sign "OPEN"'),
    ],
)
def test_another_sentence_is_not_taken(sentence: str, text: str) -> None:
    assert read(sentence, text) is None


def test_tokens_that_are_no_bytes_are_not_taken() -> None:
    row = tokenized('Text "OPEN". ')
    ids = [*row.ids[:8], row.ids[8] + 1, *row.ids[9:]]
    assert quoted_prompt(ids, row.mask, range(LENGTH), row.text, 'a sign "OPEN"') is None


def test_what_is_cut_off_has_no_columns() -> None:
    text = f'"{"long " * 12}END"'
    prompt = read(f"Text {text}. ", text)
    assert prompt is not None and set(prompt.labels) == {"long", *(f"long#{i}" for i in range(2, 9))}


def encoding(*texts: str) -> Encoding:
    tokenizer = qwen()
    rows: list[Tokenized] = []
    for text in texts:
        ids = tuple(tokenizer(text).input_ids)
        rows.append(Tokenized("tokenizer", tokenizer, text, ids, (True,) * len(ids)))
        if '"' in text:
            rows.append(tokenized(f'Text "{text.split(chr(34))[1]}". '))
    given: dict[str, Any] = {"prompt": list(texts)}
    return Encoding(given, [], rows)


def test_both_encoders_of_a_prompt_that_quotes() -> None:
    """The quoted word has columns of both, every other word of the language model alone; in a batch each prompt has its own."""
    texts = 'a red house with "house"', "two cats", 'a tree with "cats"'
    told = encoding(*texts)
    lengths = [len(row.ids) for row in told.tokens if row.component == "tokenizer"]
    found = [_prompt(told, "prompt", i, FAMILY, (lengths[i], LENGTH)) for i in range(3)]
    first, second, third = found
    assert first is not None and second is not None and third is not None
    assert first.encoders == ["Qwen", "byT5"] and second.encoders == ["Qwen"] and third.encoders == ["Qwen", "byT5"]
    for prompt, word, length in ((first, "house#2", lengths[0]), (third, "cats", lengths[2])):
        assert [c - length for c in columns(prompt, word) if c >= length] == list(range(6, 6 + len(word.split("#")[0])))
        assert any(c < length for c in columns(prompt, word))
    assert all(c < lengths[0] for c in columns(first, "house")), "the first house is not the quoted one"


@pytest.mark.parametrize(
    ("parts", "text", "words"),
    [
        # "and" stands between two apostrophes, too, and was two words of one name, of which one was shown.
        (["s and Bob", "Tom's and Bob's bar"], "a sign \"Tom's and Bob's bar\"",
         {"Tom's": "Tom's", "and": "andand", "Bob's": "Bob's", "bar": "bar"}),
        # Words stand in the order of the text, whatever the order in which quotes are looked for.
        (["OPEN", "Bar"], 'a "Bar" that is “OPEN”', {"Bar": "Bar", "OPEN": "OPEN"}),
        # What is quoted twice belonged to no word, and was said not to have been given.
        (["OPEN", "OPEN"], 'a "OPEN" beside “OPEN”', {"OPEN": "OPEN", "OPEN#2": "OPEN"}),
    ],
)  # fmt: skip
def test_what_is_quoted_by_itself_is_one_word_at_each_place(parts: list[str], text: str, words: dict[str, str]) -> None:
    rows = [(part, BYT5(part).input_ids) for part in parts]
    prompt = glyph_prompt(rows, LENGTH, text)
    assert prompt is not None and prompt.labels == list(words)
    column_of = {token.channel: token.column for token in prompt.tokens}
    letters = [chr(max(i, 3) - 3) for _, ids in rows for i in [259, *ids]]  # padding ahead of each, of two
    letters = [" "] * (LENGTH - len(letters)) + letters
    for label, spelled in words.items():
        assert "".join(letters[column_of[channel]] for channel in prompt.find(label).channels) == spelled
    if "OPEN#2" in words:  # the typographic quotes are looked for first, and are the second in the text
        assert column_of[prompt.find("OPEN").channels[0]] > column_of[prompt.find("OPEN#2").channels[0]]


def test_a_word_that_the_model_was_not_given_is_said_so_whatever_letters_it_shares() -> None:
    """Of a prompt that quotes "I", every word with an i was said not to be in the prompt."""
    prompt = glyph_prompt([("I love NY", BYT5("I love NY").input_ids)], LENGTH, 'a sign "I love NY"')
    assert prompt is not None
    for word in ("sign", "a sign"):
        with pytest.raises(WordNotFound, match=f"'{word}' stands in the prompt, but the model that paints was not given it"):
            prompt.find(word)
    with pytest.raises(WordNotFound, match="'ship' is not in the prompt"):
        prompt.find("ship")


def test_what_may_quote() -> None:
    assert [may_quote(text) for text in ("a dog's house", "'a' b", 'a "b"', "“a”", "a house")] == [
        False, True, True, True, False,
    ]  # fmt: skip
