"""Where text and picture stand comes out exactly, or the attention is refused with what it has and what it should have."""

from __future__ import annotations

import pytest
import torch

from daam_core.capture.attention_call import AttentionCall
from daam_core.capture.token_layout import TokenLayout, counted, cross, grid_patches, joint, latent_patches
from daam_core.errors import UnsupportedModel


def call(queries: int, keys: int, batch: int = 2) -> AttentionCall:
    return AttentionCall(torch.zeros(batch, 1, queries, 4), torch.zeros(batch, 1, keys, 4), 0.5)


def slots(layout: TokenLayout, size: int) -> list[str]:
    """The sequence of the first row, spelled out: t0, t1, … text; p picture; - neither."""
    rows = layout.rows[size, size]
    assert rows is not None
    row, found = rows[0], ["-"] * size
    for i, column in enumerate(row.columns):
        found[row.text + i] = f"t{column}"
    frames, height, width = layout.patches
    for i in range(frames * height * width):
        assert found[row.picture + i] == "-", "text and picture overlap"
        found[row.picture + i] = "p"
    return found


def test_text_first_and_text_last() -> None:
    first = joint(2, (1, 1, 3), 2, text_first=True, before=1, between=1, after=2)
    assert slots(first, 9) == ["-", "t0", "t1", "-", "p", "p", "p", "-", "-"]
    last = joint(2, (1, 1, 3), 2, text_first=False, before=1, between=1, after=2)
    assert slots(last, 9) == ["-", "p", "p", "p", "-", "t0", "t1", "-", "-"]


def test_columns_in_the_order_of_their_keys() -> None:
    layout = joint(1, (1, 1, 1), [2, -1, 0], text_first=True, total=4)
    assert slots(layout, 4) == ["t2", "t-1", "t0", "p"] and layout.columns == 4 and layout.batch == 1


def test_cross_attention_has_its_own_numbers() -> None:
    layout = cross(2, (2, 2, 2), 3, first_query=4, first_key=1)
    rows = layout.of("blocks.0", call(12, 4))
    assert rows is not None and (rows[1].picture, rows[1].text, list(rows[1].columns)) == (4, 1, [0, 1, 2])


def test_another_number_of_tokens_is_refused() -> None:
    layout = joint(2, (1, 2, 3), 4, text_first=True)
    assert layout.of("blocks.0", call(10, 10)) is not None
    with pytest.raises(UnsupportedModel, match=r"blocks.0 has 11 queries on 11 keys.*10 queries on 10 keys"):
        layout.of("blocks.0", call(11, 11))
    with pytest.raises(UnsupportedModel, match="has 4 rows in its batch, and the model 2"):
        layout.of("blocks.0", call(10, 10, batch=4))


def test_latents_of_pictures_and_of_videos() -> None:
    assert latent_patches(torch.zeros(1, 4, 6, 8), 2) == (1, 3, 4)
    assert latent_patches(torch.zeros(1, 4, 5, 6, 8), (1, 2, 4)) == (5, 3, 2)
    assert latent_patches(torch.zeros(1, 4, 6, 8), [3, 2], frames=7) == (7, 2, 4)
    with pytest.raises(UnsupportedModel, match="not made of whole patches"):
        latent_patches(torch.zeros(1, 4, 7, 8), 2)


def ids(which: int, height: int, width: int) -> torch.Tensor:
    """`[height * width, 3]`: (picture, row, column), row by row."""
    return torch.tensor([(which, y, x) for y in range(height) for x in range(width)])


def test_positions_of_a_picture_and_its_references() -> None:
    both = torch.cat([ids(0, 3, 5), ids(1, 2, 2)])
    assert grid_patches(both, 19) == ((1, 3, 5), 4)
    assert grid_patches(both[None].float().expand(2, -1, -1), 19) == ((1, 3, 5), 4)
    assert grid_patches(ids(0, 4, 2) + torch.tensor([0, 7, 9]), 8) == ((1, 4, 2), 0)


def test_positions_in_another_order_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="row by row"):
        grid_patches(ids(0, 3, 5)[:, [0, 2, 1]], 15)
    with pytest.raises(UnsupportedModel, match="12 tokens of pictures and the positions of 15"):
        grid_patches(ids(0, 3, 5), 12)


def test_kept_columns_are_counted_row_by_row() -> None:
    assert counted(torch.tensor([[1, 1, 0], [0, 0, 1]])) == [2, 1]
