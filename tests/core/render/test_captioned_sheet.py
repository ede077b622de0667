"""The sheet of many pictures shows each untouched, frames the wrong ones, and writes under each."""

from __future__ import annotations

import numpy as np
from PIL import Image

from daam_core.render.captioned_sheet import captioned_sheet


def test_each_picture_stands_in_its_cell_with_its_caption() -> None:
    pictures = [Image.new("RGB", (64, 48), (40 * k, 90, 200)) for k in range(5)]
    sheet = captioned_sheet(pictures, ["a red house", "", "赤い家", "many words " * 20, "fish"], columns=3)
    across, down = (sheet.width - 6) // 3, (sheet.height - 6) // 2
    pixels = np.asarray(sheet).astype(int)
    ground = pixels[0, 0]
    written = []
    for k, picture in enumerate(pictures):
        cell = pixels[k // 3 * down :, k % 3 * across :][6:down, 6:across]
        assert (cell[:48, :64] == np.asarray(picture)).all()
        written.append(bool((np.abs(cell[48:] - ground).max(-1) > 100).any()))
    assert written == [True, False, True, True, True]


def test_only_the_wrong_pictures_have_a_red_frame() -> None:
    pictures = [Image.new("RGB", (32, 32), (0, 0, 90))] * 3
    sheet = captioned_sheet(pictures, ["", "", ""], [True, False, True], columns=3)
    red = (np.asarray(sheet) == (205, 30, 40)).all(-1)
    columns = red.any(0).nonzero()[0]
    assert (columns.min(), columns.max()) == (6 + 38 - 2, 6 + 38 + 32 + 1)


def test_no_picture_is_an_empty_sheet() -> None:
    assert captioned_sheet([], []).size[0] > 0
