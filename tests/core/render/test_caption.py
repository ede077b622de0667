"""What stands below a picture is whole at every size of picture, and a set of cards is of one size."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from daam_core import render
from daam_core.render import caption as captions
from daam_core.render import text as lettering
from daam_core.render.caption import MOST_LINES, Unit
from daam_core.render.captioned_sheet import captioned_sheet

CONCEPT = "boat: unlikely 0.31, not in the prompt"
LONGER = "a dog's tail on the left of the mushroom: very unlikely 0.03, not in the prompt"
SIZES = [(64, 64), (128, 128), (136, 200), (200, 136), (512, 512), (768, 1024)]


def scene(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 90, np.uint8)


def blob(height: int = 64, width: int = 64) -> NDArray[np.float32]:
    y, x = np.mgrid[:height, :width]
    return np.exp(-((x - 20) ** 2 + (y - 30) ** 2) / 90).astype(np.float32) * np.float32(0.0431)


class Written:
    """Notes what is written, and how it was fitted: (asked, shown, left, right)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, float, float]] = []

    def __call__(self, canvas, at, text, width, size, colour, anchor="l"):  # type: ignore[no-untyped-def]
        taken = lettering.write(canvas, at, text, width, size, colour, anchor)
        left = at[0] - (taken if anchor == "r" else 0)
        self.lines.append((text, lettering.fit(text, width, size)[0], left, left + taken))
        assert 0 <= at[1] < canvas.height
        return taken

    def label(self) -> str:
        """What is read of the label, without the bar's numbers."""
        return "".join(shown for asked, shown, _, _ in self.lines if not asked.endswith("%") and asked != "0")


def drawn_with(label: str, size: tuple[int, int], bar: bool, unit: Unit = "%") -> tuple[NDArray[np.uint8], Written]:
    noted = Written()
    with patch.object(captions, "write", noted):
        return render.overlay(scene(*size), blob(), label=label, bar=bar, unit=unit), noted


@pytest.mark.parametrize("bar", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "label", ["house", CONCEPT, LONGER, "赤い家と緑の木と青い空と白い雲と黄色い花と犬", "Kapitänsmütze" * 6]
)
def test_no_letter_of_a_label_is_cut(label: str, size: tuple[int, int], bar: bool) -> None:
    card, noted = drawn_with(label, size, bar)
    assert noted.label().replace(" ", "") == label.replace(" ", "")
    assert all(left >= 0 and right <= card.shape[1] for _, _, left, right in noted.lines)
    assert card.shape[0] > card.shape[1] * size[0] / size[1], "the caption stands below the picture"


@pytest.mark.parametrize("top", [0.0431, 1.0, 0.00012, 1.25e6])
def test_a_label_beside_a_bar_keeps_its_room_whatever_the_numbers(top: float) -> None:
    noted = Written()
    labels = ["m" * n for n in range(1, 30)]
    with patch.object(captions, "write", noted):
        for colormap, heat in (("ember", blob()), ("tide", blob() - np.float32(0.02))):
            bar = captions.Bar(0, 1, colormap)  # type: ignore[arg-type]
            beside = [label for label in labels if not captions.caption_layout([label], 256, bar).below]
            render.overlay(scene(256, 256), heat / 0.0431 * top, colormap=colormap, label=beside[-1], bar=True)  # type: ignore[arg-type]
            assert 3 < len(beside) < len(labels)
    assert all(asked == shown for asked, shown, _, _ in noted.lines)


def test_one_line_is_as_it_was_and_a_longer_label_makes_the_caption_grow() -> None:
    short, _ = drawn_with("house", (256, 256), True)
    concept, _ = drawn_with(CONCEPT, (256, 256), True)
    longer, _ = drawn_with(LONGER, (256, 256), True)
    assert short.shape[0] == 256 + 34 < concept.shape[0] < longer.shape[0]


def test_a_label_without_end_ends_in_an_ellipsis() -> None:
    card, noted = drawn_with("Wort " * 100, (128, 128), True)
    lines = [shown for asked, shown, _, _ in noted.lines if "%" not in asked]
    assert len(lines) == MOST_LINES and lines[-1].endswith("…") and not any("…" in line for line in lines[:-1])
    assert card.shape[0] < 2 * card.shape[1]


def test_cards_of_a_set_are_of_one_size() -> None:
    labels = ["house", CONCEPT, LONGER]
    cards = [render.overlay(scene(128, 128), blob(), label=label, bar=True, among=labels) for label in labels]
    assert len({card.shape for card in cards}) == 1
    frames = render.step_frames(scene(128, 128), [blob()] * 12, "an old and crooked house")
    assert len({frame.shape for frame in frames}) == 1


@pytest.mark.parametrize("size", [(128, 128), (3000, 300), (300, 3000), (40, 1200), (512, 512)])
def test_the_cards_of_a_sheet_stand_apart_and_their_labels_are_whole(size: tuple[int, int]) -> None:
    noted = Written()
    with patch.object(captions, "write", noted):
        sheet = render.contact_sheet(scene(*size), {"house": blob(), CONCEPT: blob(), LONGER: blob()}, columns=2, unit="%")
    read = noted.label().replace(" ", "")
    assert all(label.replace(" ", "") in read for label in ("picture", "house", CONCEPT, LONGER))
    ground = np.array(lettering.theme_colors("dark").ground)
    empty = (sheet == ground).all(-1)
    empty = empty[: len(empty) - 60]  # above the line that tells the scale
    lanes = np.diff(np.flatnonzero(empty.all(0))) > 1
    assert lanes.sum() == 2, "two columns of cards with ground between and beside them"


@settings(max_examples=80, deadline=None)
@given(text=st.text(max_size=80), width=st.floats(20, 300), size=st.integers(6, 30))
def test_wrapped_lines_are_the_whole_text(text: str, width: float, size: int) -> None:
    lines = lettering.wrap_whole(text, width, size)
    assert "".join(lines).replace(" ", "") == lettering.clean(text).replace(" ", "")
    assert all(line and (len(line) == 1 or lettering.width_of(line, size) <= width) for line in lines)


def test_the_captions_of_a_sheet_of_pictures_are_whole() -> None:
    from PIL import Image

    noted = Written()
    told = "a red house left of a green tree at night under a yellow moon"
    with patch("daam_core.render.captioned_sheet.write", noted):
        captioned_sheet([Image.new("RGB", (128, 128))] * 2, [told, "fish"])
    assert noted.label().replace(" ", "") == (told + "fish").replace(" ", "")
