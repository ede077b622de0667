"""Cells of a grid: which queries stand for them, and which keys are averaged, counted by hand."""

from __future__ import annotations

import pytest
import torch

from daam_core.attention.cells import Cells

SHAPES = {(24, 24): (24, 24), (64, 64): (24, 24), (48, 64): (20, 27), (1, 3000): (1, 576), (3000, 1): (576, 1), (5, 7): (5, 7)}


@pytest.mark.parametrize(("grid", "shape"), SHAPES.items())
def test_the_finest_cells_of_the_same_proportions(grid: tuple[int, int], shape: tuple[int, int]) -> None:
    cells = Cells.at_most(grid, 576)
    assert cells.shape == shape and shape[0] * shape[1] <= 576
    assert cells.are_positions == (grid == shape)


@pytest.mark.parametrize("grid", [(7, 10), (30, 5), (64, 41)])
def test_each_cell_has_the_query_in_its_middle_and_the_mean_of_its_keys(grid: tuple[int, int]) -> None:
    cells = Cells.at_most(grid, 20)
    (h, w), (rows, columns) = grid, cells.shape
    values = torch.rand(2, 3, h * w, dtype=torch.float64)
    mean = cells.mean(values).unflatten(-1, cells.shape)
    for i in range(rows):
        for j in range(columns):
            top, left = i * h // rows, j * w // columns
            bottom, right = -(-(i + 1) * h // rows), -(-(j + 1) * w // columns)
            wanted = values.unflatten(-1, grid)[..., top:bottom, left:right].mean((-2, -1))
            torch.testing.assert_close(mean[..., i, j], wanted)
            y, x = divmod(int(cells.centres()[i * columns + j]), w)
            assert abs(y + 0.5 - (i + 0.5) * h / rows) <= 0.5 and abs(x + 0.5 - (j + 0.5) * w / columns) <= 0.5
