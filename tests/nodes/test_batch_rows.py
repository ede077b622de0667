"""The prompts of a run, told by what the conditionings hold: one text in turns, and encodings that somebody has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

Pack = Callable[[str], ModuleType]
PIECES = {0: "<|startoftext|>", 1: "<|endoftext|>", 2: "red</w>", 3: "house</w>", 4: "tree</w>"}


class Encoder:
    """Encodes texts of two words as the CLIP that Record gives out does, and keeps what it said."""

    def __init__(self, pack: Pack) -> None:
        self._own, self._count = pack("nodes.capture.prompt_tokens"), 0
        vocabulary = SimpleNamespace(inv_vocab=PIECES, start_token=0, end_token=1, pad_token=1)
        self._tokenizer = SimpleNamespace(clip_l=vocabulary)

    def encode(self, *tokens: int, masked_from: int = 77, **more: Any) -> dict[str, Any]:
        """A conditioning; its numbers are its own, times 0 from one column on."""
        self._count += 1
        ids = [0, *tokens, *[1] * (76 - len(tokens))]
        told = self._own.prompts_of({"l": [[(i, 1.0) for i in ids]]}, self._tokenizer, SimpleNamespace())
        numbers = torch.Generator().manual_seed(1000 * self._count + sum(tokens))
        context = torch.randn(1, 77, 4, generator=numbers) * (torch.arange(77) < masked_from)[:, None]
        beside = {self._own.KEY: told, self._own.COLUMNS: 77, self._own.ENCODING: self._own.ENCODINGS.keep(context, told)}
        return self.holding(context, {**beside, "uuid": f"c{self._count}", **more})

    def holding(self, context: torch.Tensor, beside: dict[str, Any]) -> dict[str, Any]:
        given = {"c_crossattn": SimpleNamespace(cond=context)}
        return {**beside, "cross_attn": context, "model_conds": given}


def conds(pack: Pack, positive: Sequence[dict[str, Any]]) -> Any:
    lists = {"positive": list(positive)}
    return pack("nodes.capture.batch_rows").Conds(lists, lists, (1, 4, 4, 6), lambda *_: None)


def part(start: float, end: float) -> dict[str, Any]:
    return {"start_percent": start, "end_percent": end}


@pytest.mark.parametrize("clip", [False, True])
def test_one_text_in_turns_is_one_prompt(pack: Pack, clip: bool) -> None:
    """ConditioningSetTimestepRange, or a LoRA's schedule that another pack has written into the range: each turn's encoding was
    a prompt of its own, and a word had the heat of the first turn alone."""
    encoder = Encoder(pack)
    first, second = encoder.encode(2, 3, **part(0.0, 0.4)), encoder.encode(2, 3, **part(0.4, 1.0))
    if clip:
        first |= {"clip_start_percent": 0.0, "clip_end_percent": 0.4}
        second |= {"clip_start_percent": 0.4, "clip_end_percent": 1.0}
    found = conds(pack, [first, second])
    assert [one.labels for one in found.prompts["prompt"]] == [["red", "house"]]
    rows = found.rows({0: "positive"}, [0, 0], ["c1", "c2"])
    assert [row.part for row in rows] == [0, 0] and not found.changed
    assert [isinstance(one, str) for one in found.concepts] == [clip, clip]


def test_texts_that_are_at_work_together_or_others_are_prompts_of_their_own(pack: Pack) -> None:
    encoder = Encoder(pack)
    over, other = [encoder.encode(2, 3, **part(0.3, 1.0))], [encoder.encode(2, 4, **part(0.4, 1.0))]
    for second in (over, other):
        found = conds(pack, [encoder.encode(2, 3, **part(0.0, 0.4)), *second])
        assert len(found.prompts["prompt"]) == 2
    assert len(conds(pack, [encoder.encode(2, 3), encoder.encode(2, 3)]).prompts["prompt"]) == 2


def test_an_average_is_told_and_one_with_nothing_left_of_its_text_has_the_other_s_words(pack: Pack) -> None:
    """ConditioningAverage keeps what stands beside the text that it pours into."""
    encoder = Encoder(pack)
    to, source = encoder.encode(2, 3), encoder.encode(4)
    mixed = encoder.holding(0.7 * to["cross_attn"] + 0.3 * source["cross_attn"], to)
    nothing_left = encoder.holding(0.0 * to["cross_attn"] + 1.0 * source["cross_attn"], to)
    for cond, words in ((to, ["red", "house"]), (nothing_left, ["tree"])):
        found = conds(pack, [cond])
        assert ([one.labels for one in found.prompts["prompt"]], found.changed) == ([words], set())
    found = conds(pack, [mixed])
    assert ([one.labels for one in found.prompts["prompt"]], found.changed) == ([["red", "house"]], {"prompt"})


def test_zeros_of_padding_are_the_same_with_either_sign(pack: Pack) -> None:
    """T5 in Wan, AuraFlow and Cosmos: padding times a mask of 0 is -0 in part. An average that changes nothing made it 0."""
    encoder = Encoder(pack)
    to, source = (encoder.encode(*tokens, masked_from=40) for tokens in ((2, 3), (4,)))
    for strength, words in ((1.0, ["red", "house"]), (0.0, ["tree"])):
        average = strength * to["cross_attn"] + (1 - strength) * source["cross_attn"]
        found = conds(pack, [encoder.holding(average, to)])
        assert ([one.labels for one in found.prompts["prompt"]], found.changed) == ([words], set())


def test_one_text_for_each_picture_of_a_batch_is_not_changed(pack: Pack) -> None:
    encoder = Encoder(pack)
    cond = encoder.encode(2, 3)
    found = conds(pack, [encoder.holding(cond["cross_attn"].expand(2, -1, -1), cond)])
    assert ([one.labels for one in found.prompts["prompt"]], found.changed) == ([["red", "house"]], set())


def test_columns_that_are_put_behind_an_encoding_do_not_change_it(pack: Pack) -> None:
    """ConditioningConcat and style models."""
    encoder = Encoder(pack)
    first, second = encoder.encode(2, 3), encoder.encode(4)
    for behind, words in ((second["cross_attn"], ["red", "house", "tree"]), (torch.rand(1, 9, 4), ["red", "house"])):
        found = conds(pack, [encoder.holding(torch.cat([first["cross_attn"], behind], 1), first)])
        assert ([one.labels for one in found.prompts["prompt"]], found.changed) == ([words], set())
