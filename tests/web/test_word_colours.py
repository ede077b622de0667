"""The colours of kept words, as people with each kind of colour vision see them over a picture."""

from __future__ import annotations

import itertools
import re

import cv2
import numpy as np
from numpy.typing import NDArray

from daam_core.explorer.standalone import web_folder

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
VISIONS = {
    "common": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
OPACITY = 0.75  # where a word is hottest, see drawPartition
GREY = 0.5


def seen(colour: str, vision: str) -> NDArray[np.float32]:
    """CIELAB of a colour laid over middle grey."""
    rgb = OPACITY * np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]) + (1 - OPACITY) * GREY
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(VISIONS[vision]) @ linear, 0, 1)
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    lab: NDArray[np.float32] = cv2.cvtColor(shown.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_RGB2LAB).ravel()
    return lab


def test_kept_words_are_told_apart_whatever_the_colour_vision() -> None:
    """A difference of 2.3 is just seen (CIE76); three kept words differ by ten times that, seven by five times."""
    text = (web_folder() / "colours.js").read_text(encoding="utf-8")
    found = re.search(r"WORD_COLOURS = \[(.*?)\]", text)
    assert found is not None
    colours = re.findall(r"#[0-9a-f]{6}", found.group(1))
    assert len(colours) == 7
    for count, least in ((2, 50), (3, 23), (4, 16), (7, 11.5)):
        for vision in VISIONS:
            labs = [seen(colour, vision) for colour in colours[:count]]
            apart = [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(labs, 2)]
            assert min(apart) > least, f"{vision}, {count} words: {min(apart):.1f}"
