"""Maps of a padded picture cut back to the picture, against explicit sums in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from daam_core import HeatMaps
from daam_core.errors import BadArgument
from daam_core.maps.crop import cut_back, mixture

RECORD = Path(__file__).parent / "data" / "record-0.1.0.safetensors"


def explicit(values: np.ndarray, share: float) -> np.ndarray:
    """Along the last axis, position by position: linear between the centres of the old ones."""
    n = values.shape[-1]
    out = np.zeros(values.shape, np.float64)
    for i in range(n):
        at = min(max((i + 0.5) * share - 0.5, 0), n - 1)
        low = int(np.floor(at))
        high = min(low + 1, n - 1)
        out[..., i] = (1 - (at - low)) * values[..., low] + (at - low) * values[..., high]
    return out


@pytest.mark.parametrize("share", [1.0, 0.97, 0.5])
def test_maps_are_the_part(share: float) -> None:
    maps = HeatMaps.load(RECORD)
    height, width = maps.size
    kept = (round(height * share), width)
    cut = cut_back(maps, kept)
    assert cut.size == kept and np.array_equal(cut.picture, maps.picture[: kept[0]])
    for grid, sums in maps.sums.items():
        wanted = explicit(sums.double().numpy().swapaxes(-1, -2), kept[0] / height).swapaxes(-1, -2)
        np.testing.assert_allclose(cut.sums[grid].numpy(), wanted, atol=1e-4)
        # The channels of a position still add up to its terms.
        np.testing.assert_allclose(cut.sums[grid].sum(0).numpy(), sums.sum(0).numpy().mean(), rtol=1e-4)
    assert cut.negative is not None and cut.heads.keys() == maps.heads.keys()
    for grid, values in maps.detail.values.items():
        assert cut.detail.values[grid].dtype is torch.float16 and cut.detail.values[grid].shape == values.shape


def test_self_attention_stays_a_distribution() -> None:
    maps = HeatMaps.load(RECORD)
    cut = cut_back(maps, (maps.size[0] - 3, maps.size[1] - 5))
    for (h, w), x in cut.self_attention.items():
        torch.testing.assert_close(x.sum(-1), torch.ones(h * w))
        rows = explicit(np.eye(h), (maps.size[0] - 3) / maps.size[0]).T
        columns = explicit(np.eye(w), (maps.size[1] - 5) / maps.size[1]).T
        both = np.kron(rows, columns)
        wanted = both @ maps.self_attention[(h, w)].double().numpy() @ both.T
        np.testing.assert_allclose(x.numpy(), wanted / wanted.sum(-1, keepdims=True), atol=1e-5)


def test_a_record_of_it_loads(tmp_path: Path) -> None:
    cut = cut_back(HeatMaps.load(RECORD), (30, 61))
    again = HeatMaps.load(cut.save(tmp_path / "cut.safetensors"))
    assert again.size == (30, 61) and torch.equal(again["house"], cut["house"])


def test_the_picture_may_be_another() -> None:
    maps = HeatMaps.load(RECORD)
    picture = np.zeros((300, 610, 3), np.uint8)
    cut = cut_back(maps, (30, 61), picture)
    assert cut.size == (300, 610) and cut.picture is picture


def test_the_whole_is_itself_and_more_is_refused() -> None:
    maps = HeatMaps.load(RECORD)
    assert torch.equal(cut_back(maps, maps.size)["house"], maps["house"])
    assert torch.equal(mixture(7, 1.0), torch.eye(7))
    for kept in ((0, 4), (maps.size[0] + 1, 4)):
        with pytest.raises(BadArgument, match="cannot be cut"):
            cut_back(maps, kept)
