"""Colour maps read the same to every eye: even steps, rising lightness, safe for colour-blind people."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from daam_core.errors import BadArgument
from daam_core.render import ColourMap, apply_colormap, colour_table
from daam_core.render.colormaps import OPENCV_NAMES, oklab_to_srgb, srgb_to_oklab

ONE_SIDED: list[ColourMap] = ["ember", "lagoon", "gray"]
# Vienot, Brettel, Mollon 1999: what is left of linear RGB without long- (protan) or medium-wave cones (deutan).
BLIND = {
    "protan": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    "deutan": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
}


def lab_of(name: ColourMap) -> NDArray[np.float64]:
    return srgb_to_oklab(colour_table(name) / 255)


def seen_by(kind: str, name: ColourMap) -> NDArray[np.float64]:
    rgb = colour_table(name) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ BLIND[kind].T
    linear = np.clip(linear, 0, 1)
    return srgb_to_oklab(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def test_oklab_of_known_colours() -> None:
    """Ottosson's published values for white, red and blue: the conversion is the real OKLab."""
    known = {(1, 1, 1): (1, 0, 0), (1, 0, 0): (0.6279, 0.2249, 0.1258), (0, 0, 1): (0.4520, -0.0325, -0.3115)}
    for rgb, lab in known.items():
        assert srgb_to_oklab(np.array(rgb, dtype=float)) == pytest.approx(lab, abs=2e-3)
        assert oklab_to_srgb(srgb_to_oklab(np.array(rgb, dtype=float))) == pytest.approx(rgb, abs=1e-4)


@pytest.mark.parametrize("name", ONE_SIDED)
def test_lightness_only_rises(name: ColourMap) -> None:
    lightness = lab_of(name)[:, 0]
    assert (np.diff(lightness[::4]) > 0).all()
    assert lightness[0] < 0.2
    assert lightness[-1] > 0.94


@pytest.mark.parametrize("name", [*ONE_SIDED, "tide"])
def test_equal_steps_look_equal(name: ColourMap) -> None:
    """Sixteen equal steps of heat are sixteen nearly equal steps of colour."""
    steps = np.linalg.norm(np.diff(lab_of(name)[::17], axis=0), axis=1)
    assert steps.max() < 1.25 * steps.min()


@pytest.mark.parametrize("kind", BLIND)
@pytest.mark.parametrize("name", ONE_SIDED)
def test_colour_blind_people_see_the_order(kind: str, name: ColourMap) -> None:
    assert (np.diff(seen_by(kind, name)[::17, 0]) > 0.01).all()


@pytest.mark.parametrize("kind", BLIND)
def test_colour_blind_people_tell_gain_from_loss(kind: str) -> None:
    seen = seen_by(kind, "tide")
    assert (np.linalg.norm(seen[:96] - seen[:159:-1], axis=1) > 0.1).all()


def test_difference_is_balanced() -> None:
    """Gain and loss of the same size weigh the same, and nothing is lighter than no change."""
    lightness = lab_of("tide")[:, 0]
    assert np.abs(lightness - lightness[::-1]).max() < 0.05
    assert abs(int(lightness.argmax()) - 128) < 6
    assert np.linalg.norm(lab_of("tide")[127, 1:]) < 0.02


def test_paint_and_unknown_names() -> None:
    painted = apply_colormap(np.array([-1, 0, 1, 7], dtype=np.float32), "ember")
    assert (painted == colour_table("ember")[[0, 0, 255, 255]]).all()
    with pytest.raises(BadArgument, match=r"ember, lagoon, gray, tide, and OpenCV's .*viridis"):
        colour_table("jets")
    with pytest.raises(ValueError, match="read-only"):
        colour_table("ember")[0] = 0


def test_opencv_s_names_are_taken() -> None:
    """First and last colours as their authors publish them; red is red, not blue."""
    published = {
        "viridis": ((68, 1, 84), (253, 231, 37)),
        "inferno": ((0, 0, 4), (252, 255, 164)),
        "turbo": ((48, 18, 59), (122, 4, 3)),
        "jet": ((0, 0, 128), (128, 0, 0)),
        "hot": ((0, 0, 0), (255, 255, 255)),
    }
    for name, (first, last) in published.items():
        table = colour_table(name)
        assert table.shape == (256, 3) and table.dtype == np.uint8 and not table.flags.writeable
        assert np.abs(table[0].astype(int) - first).max() <= 1 and np.abs(table[-1].astype(int) - last).max() <= 1, name
    known = {name.removeprefix("COLORMAP_").lower() for name in dir(cv2) if name.startswith("COLORMAP_")}
    assert set(OPENCV_NAMES) <= known
    for name in OPENCV_NAMES:
        colour_table(name)
