"""Hosts' weights and chunks, and how other tokenizers' pieces become words."""

from __future__ import annotations

import time

import pytest

from daam_core.prompt.alignment import align_tokens, piece_bytes, words_of
from daam_core.prompt.emphasis import LARGEST_WEIGHT, Syntax, parse_weights


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("a house", [("a house", 1.0)]),
        ("a (red) house", [("a ", 1.0), ("red", 1.1), (" house", 1.0)]),
        ("((red))", [("red", 1.21)]),
        ("(red:1.3)", [("red", 1.3)]),
        ("(a (red:1.5):2)", [("a ", 2.0), ("red", 3.0)]),
        ("[dim]", [("dim", 1 / 1.1)]),
        (r"\(plain\) \[too\]", [("(plain) [too]", 1.0)]),
        ("(open", [("open", 1.1)]),
        ("shut) :1.3)", [("shut) :1.3)", 1.0)]),
        ("time 12:30", [("time 12:30", 1.0)]),
        ("", []),
    ],
)
def test_webui_weights(text: str, runs: list[tuple[str, float]]) -> None:
    check(text, "webui", runs)


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("((red))", [("red", 1.21)]),
        ("((red:1.3))", [("red", 1.3)]),
        ("(a (red:1.5) (dog):2)", [("a ", 2.0), ("red", 1.5), (" ", 2.0), ("dog", 2.2)]),
        ("[dim] (open", [("[dim] (open", 1.0)]),
    ],
)
def test_comfyui_weights(text: str, runs: list[tuple[str, float]]) -> None:
    check(text, "comfyui", runs)


def check(text: str, syntax: Syntax, runs: list[tuple[str, float]]) -> None:
    parsed = parse_weights(text, syntax)
    assert [part for part, _ in parsed] == [part for part, _ in runs]
    assert [weight for _, weight in parsed] == pytest.approx([weight for _, weight in runs])


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + ")" * 5000,
        "(a" * 2500 + ":1.3)" * 1250,
        "red house, " * 910,
        "(a:" + "1" * 32000,
        "(a:1" + " " * 9999,
        ":1." * 9999,
    ],
)
def test_ten_thousand_characters_are_read_at_once(text: str) -> None:
    taken = []
    for _ in range(3):  # the least of three: a collector's pause inside a long test run is not the prompt's fault
        begun = time.thread_time()  # this thread alone; other threads may still be spinning from an earlier test
        runs = parse_weights(text)
        align_tokens([plain.encode() for plain, _ in runs], text)
        taken.append(time.thread_time() - begun)
    assert min(taken) < 0.5  # many times what it takes; anything quadratic takes seconds


@pytest.mark.parametrize("syntax", ["webui", "comfyui"])
@pytest.mark.parametrize("text", ["(a:" + "9" * 400 + ")", "(a:-" + "9" * 400 + ")", "(" * 9000 + "a" + ")" * 9000])
def test_weights_are_finite_and_clamped(text: str, syntax: Syntax) -> None:
    """A weight of 400 digits, or brackets 9000 deep, is the largest weight and not infinity."""
    assert [(part, abs(weight)) for part, weight in parse_weights(text, syntax)] == [("a", LARGEST_WEIGHT)]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["sky", "scraper</w>", ",</w>", "a</w>"], [("skyscraper", (0, 1)), (",", (2,)), ("a", (3,))]),
        (["Red", "Ġsky", "scraper", "'s", "!"], [("Red", (0,)), ("skyscraper's", (1, 2, 3)), ("!", (4,))]),
        (
            ["▁Red", "▁sky", "scraper", "<0xE5>", "<0xAE>", "<0xB6>"],
            [("Red", (0,)), ("skyscraper", (1, 2)), ("家", (3, 4, 5))],
        ),
        (['",</w>'], [('",', (0,))]),  # two signs, one piece: one word
        (["æ", "Ĺ"], [("\ufffd", (0, 1))]),  # a character that was cut off
        ([], []),
    ],
)
def test_pieces_of_any_tokenizer_become_words(pieces: list[str], words: list[tuple[str, tuple[int, ...]]]) -> None:
    assert words_of(align_tokens(piece_bytes(pieces))) == words


@pytest.mark.parametrize(
    ("pieces", "text", "words"),
    [
        (["a", "Ġ", "red", "Ġhouse"], "a (red:1.2) house", {"a": [0], "red": [2], "house": [3]}),
        (["a", "Ġred", "Ċ", "house", "Ċ"], "a red\nhouse\n", {"a": [0], "red": [1], "house": [3]}),
        (["Ċ", "Ċ", "red", "Ġ", "Ġhouse"], "", {"red": [2], "house": [4]}),
        (["▁a", "▁", "3", "D", "▁house"], "a 3D house", {"a": [0], "3D": [2, 3], "house": [4]}),
    ],
)
def test_white_space_that_is_a_token_of_its_own_is_of_no_word(
    pieces: list[str], text: str, words: dict[str, list[int]]
) -> None:
    """Weighted texts in parts, line breaks, and T5's mark of a start that stands alone."""
    found = words_of(align_tokens(piece_bytes(pieces), text))
    assert {word: list(indices) for word, indices in found} == words
