"""Words: what a user typed, found again in the columns of the text encoder's output."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from daam_core.errors import BadArgument, BadPrompt, WordNotFound
from daam_core.prompt.prompt import Prompt, Word

from .chunks import chunks

START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of CLIP's format: a few words are one token, "skyscraper" is two, all else is spelled in bytes."""
    return _build(tmp_path_factory.mktemp("clip"))


def _build(folder: Path) -> Any:
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [*map(chr, shown), *(chr(256 + k) for k in range(68))]
    merges: list[str] = []
    for word in ("a</w>", "dog</w>", "'s</w>", "'t</w>", "don</w>", "red</w>", "house</w>", "sky", "scraper</w>"):
        letters = [*word.removesuffix("</w>")]
        if word.endswith("</w>"):
            letters[-1] += "</w>"
        for k in range(1, len(letters)):
            merges.append(f"{''.join(letters[:k])} {letters[k]}")
    merges = list(dict.fromkeys(merges))
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *(m.replace(" ", "") for m in merges), START, END]
    (folder / "vocab.json").write_text(json.dumps({t: k for k, t in enumerate(dict.fromkeys(tokens))}), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}), "utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def read(clip: Any, text: str, typed: bool = True) -> Prompt:
    ids = clip(text, padding="max_length", max_length=77, truncation=True).input_ids
    return Prompt.from_ids(ids, clip, text=text if typed else "")


def test_readme_example_names_repeated_words(clip: Any) -> None:
    prompt = read(clip, "a red house and a green tree")
    assert prompt.labels == ["a", "red", "house", "and", "a#2", "green", "tree"]
    assert prompt.content_words() == ["red", "house", "green", "tree"]
    assert prompt.tokens[0].column == 1 and prompt.start == (0,) and prompt.end == (len(prompt.tokens) + 1,)


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a dog's red house", ["a", "dog's", "red", "house"]),
        ("a dog’s house", ["a", "dog’s", "house"]),
        ("don't, dog!", ["don't", ",", "dog", "!"]),
        ("skyscraper dog", ["skyscraper", "dog"]),
        ("1980 house 4k", ["1980", "house", "4k"]),
        ("dog... red-house", ["dog", "...", "red", "-", "house"]),
        ("🦊🏠, dog 👩🏽‍🚀 ❤️ 🇩🇪🇫🇷", ["🦊", "🏠", ",", "dog", "👩🏽‍🚀", "❤️", "🇩🇪", "🇫🇷"]),
        ("привет мир", ["привет", "мир"]),
        ("赤い家とドラゴン", ["赤", "い", "家", "と", "ドラゴン"]),
        ("café naïve", ["café", "naïve"]),
        ("", []),
        ("  ", []),
    ],
)
def test_words_are_what_was_typed(clip: Any, text: str, labels: list[str], typed: bool) -> None:
    assert read(clip, text, typed).labels == labels


def test_given_text_keeps_case_and_joins_what_the_tokenizer_cut(clip: Any) -> None:
    assert read(clip, "A Red o'clock हिन्दी 1girl").labels == ["A", "Red", "o'clock", "हिन्दी", "1girl"]


def test_hosts_syntax_in_the_text_is_no_obstacle(clip: Any) -> None:
    ids = clip("a Red house dog").input_ids
    assert Prompt.from_ids(ids, clip, text="a (Red:1.3) [House] BREAK dog").labels == ["a", "Red", "House", "dog"]


def test_find_by_label_phrase_case_and_special(clip: Any) -> None:
    prompt = read(clip, "a red house, a dog's red house and 日本語")
    assert prompt.find("HOUSE").channels == (3,)
    assert prompt.find("house#2").channels == (9,)
    assert prompt.find("Red  house").channels == (2, 3) and prompt.find("red house").label == "red house"
    assert prompt.find("red house#2").channels == (8, 9)
    assert prompt.find("dog’s").channels == (6, 7)
    assert len(prompt.find("日本").channels) == 6
    ends = {name: prompt.find(name).channels[0] for name in ("<start>", "<end>", "<padding>")}
    assert ends == {"<start>": 0, "<end>": prompt.num_channels - 2, "<padding>": prompt.num_channels - 1}


@pytest.mark.parametrize("query", ["zebra", "", "redhouse", "house#2", "house red"])
def test_a_word_that_is_not_there_lists_those_that_are(clip: Any, query: str) -> None:
    with pytest.raises(WordNotFound, match="red, house"):
        read(clip, "a red house").find(query)


@pytest.mark.parametrize(
    ("text", "query", "others"),
    [
        ("a red house and a green tree", "house", ["tree"]),
        ("a red house and a green tree", "red", ["tree"]),
        ("a red house and a green tree", "red house", ["tree"]),
        ("a red house, a dog and the sky", "dog", ["house", "sky"]),
        ("red house", "house", []),
        ("a house and a house", "house#2", ["house"]),
        ("and the", "the", []),
    ],
)
def test_an_adjective_does_not_compete_with_its_noun(clip: Any, text: str, query: str, others: list[str]) -> None:
    """Competition is between things; who is an adjective is not known, only which words stand together."""
    assert read(clip, text).rivals(query) == others


def test_cut_words_are_named(clip: Any) -> None:
    prompt = read(clip, "dog " * 74 + "skyscraper Red zebra")
    assert prompt.truncated == ("skyscraper", "Red", "zebra")
    assert prompt.find("skyscraper").channels == (75,)  # its first half was read
    assert prompt.padding == ()
    with pytest.raises(WordNotFound, match="cut off"):
        prompt.find("zebra")
    assert read(clip, "dog " * 75).truncated == ()


@pytest.mark.parametrize("pad", [END, "!"])
def test_padding_is_told_by_place_and_real_exclamation_marks_stay(clip: Any, pad: str) -> None:
    real = clip("a!! dog !").input_ids[1:-1]
    start, end = clip.convert_tokens_to_ids([START, END])
    [chunk] = chunks(real, start, end, clip.convert_tokens_to_ids(pad))
    prompt = Prompt.from_ids(chunk, clip)
    assert prompt.labels == ["a", "!!", "dog", "!"]
    assert prompt.end == (len(real) + 1,) and prompt.padding == tuple(range(len(real) + 2, 77))


def test_a_context_without_end_is_all_words(clip: Any) -> None:
    prompt = Prompt.from_ids(clip("dog " * 76).input_ids[:77], clip)
    assert (len(prompt.tokens), prompt.end, prompt.padding) == (76, (), ())


@pytest.mark.parametrize("flat", [True, False])
def test_chunks_of_77_and_break(clip: Any, flat: bool) -> None:
    start, end = clip.convert_tokens_to_ids([START, END])
    parts = [
        *chunks(clip("red house").input_ids[1:-1], start, end),
        *chunks(clip("dog " * 80).input_ids[1:-1], start, end),
    ]
    ids: Any = [entry for part in parts for entry in part] if flat else parts
    prompt = Prompt.from_ids(ids, clip)
    assert prompt.length == 3 * 77 and prompt.start == (0, 77, 154) and prompt.end == (3, 153, 160)
    assert prompt.labels[:3] == ["red", "house", "dog"] and prompt.tokens[2].column == 78
    assert prompt.tokens[prompt.find("dog#76").channels[0] - 1].column == 155


def test_weights_and_named_embeddings(clip: Any) -> None:
    start, end = clip.convert_tokens_to_ids([START, END])
    dog, red = (clip(word).input_ids[1] for word in ("dog", "red"))
    prompt = Prompt.from_ids([start, dog, "my-Cat", "", red, end], clip, weights=[1, 1.3, 0.5, 0.5, 1, 1])
    assert prompt.labels == ["dog", "my-Cat", "red"] and prompt.find("my-cat").channels == (2, 3)
    assert [word.weight for word in prompt.words] == [1.3, 0.5, 1.0]
    with pytest.raises(BadArgument, match="6 tokens, 1 weights"):
        Prompt.from_ids([start, dog, red, red, red, end], clip, weights=[1.0])


def test_textual_inversion_of_several_vectors_is_one_word(tmp_path: Path) -> None:
    clip = _build(tmp_path)
    clip.add_tokens(["<cat-toy>", "<cat-toy>_1", "<cat-toy>_2"])
    ids = clip("a <cat-toy> <cat-toy>_1 <cat-toy>_2 dog").input_ids
    for text in ("", "a <cat-toy> dog"):
        prompt = Prompt.from_ids(ids, clip, text=text)
        assert prompt.labels == ["a", "<cat-toy>", "dog"] and prompt.find("<cat-toy>").channels == (2, 3, 4)


def test_selection_folds_a_repeated_context_by_summing(clip: Any) -> None:
    prompt = read(clip, "a red house")
    probabilities = torch.rand(5, 154, dtype=torch.float32)
    folded = probabilities @ prompt.selection(154)
    assert folded.shape == (5, prompt.num_channels) and prompt.selection().shape == (77, 6)
    torch.testing.assert_close(folded[:, 2], probabilities[:, 2] + probabilities[:, 79])
    torch.testing.assert_close(folded[:, 5], probabilities[:, 5:77].sum(1) + probabilities[:, 82:].sum(1))
    for length in (76, 81):
        with pytest.raises(BadArgument, match=f"{length} columns"):
            prompt.selection(length)


def test_embeddings_by_hand_are_words_by_index() -> None:
    prompt = Prompt.by_index(5)
    assert prompt.labels == ["0", "1", "2", "3", "4"]
    assert torch.equal(prompt.selection()[:, 1:-2], torch.eye(5))
    with pytest.raises(WordNotFound):
        prompt.find("<end>")
    for odd in (0, True, "five", torch.ones(2), 10**12):
        with pytest.raises(BadArgument, match="A context has 1 to 1048576 columns, not"):
            Prompt.by_index(odd)  # type: ignore[arg-type]


def test_a_phrase_of_special_tokens_is_their_channels(clip: Any) -> None:
    """What a page picks may hold start, end and padding; they weigh 1 and have no token of their own."""
    prompt = read(clip, "red house")
    n = prompt.num_channels
    assert prompt.phrase(["<start>", "<padding>"]).channels == (0, n - 1)
    assert prompt.phrase(["<start>", "<end>", "red"]) == Word("<start> <end> red", "<start> <end> red", (0, n - 2, 1), 1.0)
    assert prompt.phrase(["red", "red", "house"]).channels == (1, 2)
    with pytest.raises(BadArgument, match="at least one word"):
        prompt.phrase([])


@pytest.mark.parametrize("query", [0, None, 3.5, ["red"]])
def test_what_is_no_text_is_no_word(clip: Any, query: Any) -> None:
    with pytest.raises(BadArgument, match="by its text"):
        read(clip, "red house").find(query)


def test_a_word_of_another_prompt_is_said(clip: Any) -> None:
    long = read(clip, "a red dog and a red house")
    with pytest.raises(WordNotFound, match="another prompt"):
        read(clip, "red").find(long.find("house"))


@pytest.mark.parametrize("query", ["purple cat", "purple", "cat", "dog purple cat", "dog#78", "dog purple"])
def test_what_was_cut_off_is_said_so(clip: Any, query: str) -> None:
    """77 columns hold 75 tokens: a word, a phrase behind them or across the cut, or a numbered word was not read."""
    prompt = read(clip, "dog " * 80 + "purple cat")
    with pytest.raises(WordNotFound, match="was cut off: the text encoder reads 75 tokens"):
        prompt.find(query)
    with pytest.raises(WordNotFound, match="is not in the prompt"):
        prompt.find("cat dog")


def test_a_tokenizer_of_another_model_is_named(clip: Any) -> None:
    with pytest.raises(BadPrompt, match="999999"):
        Prompt.from_ids([999999], clip)


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from("ab' 1!🦊語")), max_size=60))
def test_every_column_has_one_row_and_every_token_but_white_space_one_word(clip: Any, text: str) -> None:
    for typed in (True, False):
        prompt = read(clip, text, typed)
        assert torch.equal(prompt.selection().sum(1), torch.ones(77))
        rows = sorted(row for word in prompt.words for row in word.channels)
        assert rows == [token.channel for token in prompt.tokens if token.text] or not prompt.words
        assert len(set(prompt.labels)) == len(prompt.labels)


def test_the_real_clip_vocabulary() -> None:
    home = Path(os.environ.get("COMFYUI_PATH", Path.home() / ".cache/daam-lens/ComfyUI"))
    folder = home / "comfy/sd1_tokenizer"
    if not (folder / "vocab.json").exists():
        pytest.skip(f"no CLIP vocabulary in {folder}; set COMFYUI_PATH to a ComfyUI folder")
    prompt = read(CLIPTokenizer.from_pretrained(folder), "A dog's 🦊 日本語, supercalifragilistic Don't")
    assert prompt.labels == ["A", "dog's", "🦊", "日", "本", "語", ",", "supercalifragilistic", "Don't"]
