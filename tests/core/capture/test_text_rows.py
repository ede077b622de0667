"""Whose the rows of a batch are, told by the text that each of them is given."""

from __future__ import annotations

import torch
from torch import Tensor

from daam_core.capture.text_rows import EncodedText, match_rows
from daam_core.types import Side


def text(side: Side, image: int, rows: Tensor) -> EncodedText:
    return EncodedText(side, image, 0, rows)


A, B, C = (torch.randn(5, 4, generator=torch.Generator().manual_seed(i)) for i in range(3))


def owners(given: list[Tensor], known: list[EncodedText]) -> list[tuple[str, int] | None]:
    return [(found[0].side, found[0].image) if found else None for found in match_rows(given, known)]


def test_any_order_and_rows_of_nobody() -> None:
    known = [text("prompt", 0, A), text("prompt", 1, B), text("negative", 0, C)]
    assert owners([C, B, torch.zeros(5, 4), A], known) == [("negative", 0), ("prompt", 1), None, ("prompt", 0)]


def test_the_same_row_again_is_another_guidance() -> None:
    assert owners([B, A, A], [text("prompt", 0, A), text("negative", 0, B)]) == [("negative", 0), ("prompt", 0), None]


def test_alike_prompts_are_the_pictures_in_order() -> None:
    assert owners([A, A], [text("prompt", 0, A), text("prompt", 1, A)]) == [("prompt", 0), ("prompt", 1)]


def test_padding_behind_lost_columns_another_precision_and_more_axes() -> None:
    known = [text("prompt", 0, A), text("negative", 0, B)]
    padded = torch.cat([A, torch.zeros(3, 4)])
    assert owners([padded, B[:3], A.half()[None]], known)[:2] == [("prompt", 0), ("negative", 0)]
    assert owners([A.bfloat16()[None]], known) == [("prompt", 0)]


def test_a_text_that_begins_like_another_goes_to_the_longest() -> None:
    known = [text("negative", 0, A[:2]), text("prompt", 0, A)]
    assert owners([A, A[:2]], known) == [("prompt", 0), ("negative", 0)]


def test_the_other_side_with_the_same_text_is_a_twin() -> None:
    known = [text("prompt", 0, A), text("negative", 0, A)]
    ((first, second),) = match_rows([A], known)
    assert (first.side, second.side) == ("prompt", "negative")
