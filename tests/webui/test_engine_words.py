"""Words from the text encoders of Forge Neo's transformers: templates, weighted parts, columns that are dropped or padded."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from daam_core.errors import BadPrompt, UnsupportedModel
from daam_core.prompt.prompt import Prompt
from daam_webui.engine_words import ANIMA_COLUMNS, read

PAD, END, TURN, USER, LINE = 0, 1, 2, 3, 4
PARTS = re.compile(r"\((?P<weighted>[^:]*):(?P<weight>[\d.]+)\)|(?P<plain>[^(]+)")


class Pieces:
    """A tokenizer of whole words: a piece of its own for each that it meets."""

    def __init__(self, space: str) -> None:
        self.space = space
        self.known = ["<pad>", "</s>", "<|im_start|>", "user", "Ċ", "<|im_end|>"]

    def ids(self, text: str) -> list[int]:
        pieces = re.findall(r"<\|im_start\|>|<\|im_end\|>|\n|<Prompt Start>|[ ]?[^ \n<]+|<", text)
        return [self._id(piece.replace("\n", "Ċ" if self.space == "Ġ" else "\n").replace(" ", self.space)) for piece in pieces]

    def _id(self, piece: str) -> int:
        if piece not in self.known:
            self.known.append(piece)
        return self.known.index(piece)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.known[i] for i in ids]

    def get_added_vocab(self) -> dict[str, int]:
        return {}


class Engine:
    """What the host's engines have in common: each weighted part is tokenized by itself."""

    template = "{}"
    tail: tuple[int, ...] = ()

    def __init__(self, space: str = "Ġ") -> None:
        self.tokenizer = Pieces(space)

    def tokenize_line(self, line: str) -> Any:
        ids: list[int] = []
        weights: list[float] = []
        for part in PARTS.finditer(line):
            own = self.tokenizer.ids(self.template.format(part["plain"] or part["weighted"]))
            ids += own
            weights += [float(part["weight"] or 1)] * len(own)
        ids += self.tail
        return [self.chunk(ids, weights + [1.0] * len(self.tail))]

    def chunk(self, ids: list[int], weights: list[float]) -> Any:
        return SimpleNamespace(tokens=ids, multipliers=weights)


class Chat(Engine):
    """Z-Image's and Flux.2 klein's."""

    llama_template = template = "<|im_start|>user\n{}<|im_end|>\n"
    id_pad = PAD
    tail = (PAD, PAD)


class Stripped(Chat):
    """Qwen-Image's: what stands before the first user's turn is dropped."""

    llama_template = template = "<|im_start|>system\nDescribe.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    tail = ()

    def strip_template(self, out: Tensor, tokens: list[int]) -> Tensor:
        second = [i for i, token in enumerate(tokens) if token == TURN][1]
        return out[second + 3 if out.shape[1] > second + 3 else second :]


class T5(Engine):
    id_end, id_pad = END, PAD
    tail = (END, PAD, PAD)

    def tokenize_line(self, line: str) -> Any:
        chunks = [super(T5, self).tokenize_line(part)[0] for part in line.split("BREAK")]
        return chunks, 3


class Anima(Engine):
    id_end = END
    tail = (END,)

    @property
    def t5_tokenizer(self) -> Pieces:
        return self.tokenizer

    def chunk(self, ids: list[int], weights: list[float]) -> Any:
        return SimpleNamespace(t5_tokens=ids, t5_multipliers=weights)


class Gemma(Engine):
    id_start, id_pad = 5, PAD

    def process_template(self, text: str, negative: bool) -> str:
        return f"Draw {'badly' if negative else 'well'} <Prompt Start>\n{text}"


def told(prompt: Prompt) -> list[tuple[str, int, float]]:
    """(word, column, weight) of each word."""
    return [(word.label, t.column, t.weight) for word in prompt.words for t in prompt.tokens if t.channel in word.channels]


def test_a_chat_models_template_holds_no_words() -> None:
    prompt = read(Chat(), "a red house", False, 8)
    assert told(prompt) == [("a", 3, 1.0), ("red", 4, 1.0), ("house", 5, 1.0)]
    assert (prompt.start, prompt.end, prompt.padding, prompt.length) == ((0, 1, 2), (6, 7), (8, 9), 10)


def test_each_weighted_part_has_a_template_of_its_own() -> None:
    prompt = read(Chat(), "a (red:1.2) house", False, 8)
    assert told(prompt) == [("a", 3, 1.0), ("red", 9, 1.2), ("house", 15, 1.0)]
    assert prompt.padding == (18, 19)


@pytest.mark.parametrize(("width", "dropped"), [(64, 8), (4, 5)])
def test_columns_that_an_encoder_drops_are_counted_by_its_own_rule(width: int, dropped: int) -> None:
    """The host measures the width of a column where it means the number of columns."""
    prompt = read(Stripped(), "a house", False, width)
    assert told(prompt) == [("a", 8 - dropped, 1.0), ("house", 9 - dropped, 1.0)]
    assert prompt.length == 12 - dropped


def test_t5_has_an_end_and_padding() -> None:
    prompt = read(T5("\u2581"), "a red house", False, 8)
    assert told(prompt) == [("a", 0, 1.0), ("red", 1, 1.0), ("house", 2, 1.0)]
    assert (prompt.end, prompt.padding) == ((3,), (4, 5))


def test_animas_text_is_padded() -> None:
    prompt = read(Anima("\u2581"), "a house", False, 8)
    assert (told(prompt), prompt.end, prompt.length) == ([("a", 0, 1.0), ("house", 1, 1.0)], (2,), ANIMA_COLUMNS)


@pytest.mark.parametrize("negative", [False, True])
def test_luminas_words_stand_behind_the_sides_own_template(negative: bool) -> None:
    prompt = read(Gemma("\u2581"), "a house", negative, 8)
    assert [word for word, _, _ in told(prompt)] == ["a", "house"]
    assert len(prompt.start) == 4 and not prompt.padding


def test_a_template_without_its_mark_is_refused() -> None:
    engine = Gemma("\u2581")
    engine.process_template = lambda text, _negative: f"Draw {text}"
    with pytest.raises(UnsupportedModel, match="<Prompt Start>"):
        read(engine, "a house", False, 8)


def test_an_empty_text_has_no_words() -> None:
    assert read(Chat(), " ", False, 8).labels == [] and read(T5("\u2581"), "", False, 8).labels == []


def test_break_is_refused_where_the_model_is_given_a_part() -> None:
    with pytest.raises(BadPrompt, match="one part only"):
        read(T5("\u2581"), "a house BREAK a tree", False, 8)


def test_pictures_inside_the_text_are_refused() -> None:
    engine = Chat()
    engine.image_template = "<picture>{}"  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedModel, match="reference pictures"):
        read(engine, "a house", False, 8, pictures=True)
    assert read(engine, "a house", False, 8).labels == ["a", "house"]


def test_columns_are_not_changed_by_reading() -> None:
    """The encoder's rule is asked with numbers, and of them only the first that is left is used."""
    assert int(Stripped().strip_template(torch.arange(12.0)[:, None].expand(-1, 64), [2, 0, 0, 0, 0, 2, 3, 4])[0, 0]) == 8
