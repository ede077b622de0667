"""Overlays keep the picture, show the heat, and survive every picture, map and word."""

from __future__ import annotations

import base64
import io
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import daam_core
from daam_core import render
from daam_core.errors import BadArgument, CannotWrite, WordNotFound
from daam_core.maps.prompt_report import PromptReport, WordReport
from daam_core.render import text as lettering
from daam_core.render.caption import Unit, number
from daam_core.render.overlay import LONGEST_ENLARGED, background_of, blend

from ..maps.test_heatmaps import made

Picture = NDArray[np.uint8]


def scene(height: int = 96, width: int = 128) -> Picture:
    """A picture with light, dark, colour and an edge."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([255 * x / width, 120 + 60 * (y > height / 2), 200 - 150 * y / height], -1)
    return picture.astype(np.uint8)


def blob(height: int = 12, width: int = 16) -> NDArray[np.float32]:
    """A round map with its top near the left and nothing on the right."""
    y, x = np.mgrid[:height, :width]
    return np.exp(-((y - height / 2) ** 2 + (x - width / 4) ** 2) / 6).astype(np.float32)


def change(a: Picture, b: Picture) -> NDArray[np.int64]:
    return np.abs(a.astype(np.int64) - b).sum(-1)


# -- the overlay ---------------------------------------------------------------------------------------------------


def test_heat_shows_where_it_is_and_the_picture_where_it_is_not() -> None:
    picture = scene()
    drawn = render.overlay(picture, blob())
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8
    hot, cold = (slice(46, 54), slice(31, 37)), (slice(None), slice(80, None))
    # Hot: towards the map's light end, whatever was there. Cold: the picture, colours and all.
    end = render.colour_table("ember")[230].astype(int)
    assert np.abs(drawn[hot].mean((0, 1)) - end).max() < 0.4 * np.abs(picture[hot].mean((0, 1)) - end).max()
    assert (drawn[cold] == picture[cold]).all()


def test_opacity() -> None:
    picture = scene()
    assert (render.overlay(picture, blob(), opacity=0) == picture).all()
    weak, strong = (change(picture, render.overlay(picture, blob(), opacity=o)).sum() for o in (0.3, 1.0))
    assert 0 < weak < 0.5 * strong


def test_even_attention_everywhere_is_not_drawn_as_a_place() -> None:
    """A word that looks everywhere a little more or less must not flood the picture."""
    picture = scene()
    even = 5 + 0.02 * blob()
    quiet = render.overlay(picture, np.zeros((4, 4)))
    assert change(quiet, render.overlay(picture, even)).max() <= 20
    on_a_floor = render.overlay(picture, 5 + 5 * blob())
    assert change(quiet, on_a_floor)[:, 80:].max() <= 20
    assert change(quiet, on_a_floor)[40:56, 26:40].mean() > 60


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0, np.nan, np.inf, -np.inf])
def test_maps_that_say_nothing(value: float) -> None:
    picture = scene()
    empty = render.overlay(picture, np.zeros((2, 2)))
    assert (render.overlay(picture, np.full((5, 7), value)) == empty).all()
    for name in ("ember", "tide"):
        assert render.overlay(picture, np.full((5, 7), value), 0.9, name, "a", True).dtype == np.uint8  # type: ignore[arg-type]


def test_one_nan_does_not_spoil_the_map() -> None:
    heat = blob()
    heat[0, 15] = np.nan
    clean, spoilt = render.overlay(scene(), blob()), render.overlay(scene(), heat)
    assert change(clean, spoilt)[20:].max() <= 3


def test_a_ground_serves_many_words() -> None:
    """Each word over the prepared picture is what it is over the picture itself, and the picture stays untouched."""
    picture = np.random.default_rng(4).integers(0, 256, (300, 280, 3), np.uint8)
    before = picture.copy()
    ground = render.caption_background(picture)
    for seed in (1, 2):
        heat = np.random.default_rng(seed).random((16, 16)).astype(np.float32)
        assert (render.overlay(ground, heat, label="house") == render.overlay(picture, heat, label="house")).all()
    assert (ground.picture == before).all() and (picture == before).all()


def test_the_blend_is_the_formula() -> None:
    """Written out for single places in double precision: the picture, colour with the picture's relief, by strength."""
    rng = np.random.default_rng(5)
    picture, colours = (rng.integers(0, 256, (40, 48, 3), np.uint8) for _ in range(2))
    strength = rng.random((40, 48)).astype(np.float32)
    ground = background_of(picture)
    drawn = blend(ground, colours, strength, 0.7)
    for y, x in rng.integers(0, 40, (200, 2)):
        base, weight = picture[y, x].astype(float), float(strength[y, x])
        mixed = base + (colours[y, x] + float(ground.relief[y, x]) - base) * 0.86 * weight
        assert np.abs(drawn[y, x] - np.clip(base + (mixed - base) * 0.7, 0, 255)).max() < 0.51


def test_same_top_makes_words_comparable() -> None:
    picture, heat = scene(), blob()
    alone = render.overlay(picture, heat / 10)
    assert (alone == render.overlay(picture, heat)).all()
    weak = render.overlay(picture, heat / 10, top=1.0)
    assert change(picture, alone)[40:56, 26:40].mean() > 2 * change(weak, render.overlay(picture, 0 * heat)).mean()
    assert change(weak, render.overlay(picture, 0 * heat)).max() < 10


def test_tensors_images_and_other_layouts() -> None:
    picture = scene()
    expected = render.overlay(picture, blob())
    rgba = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    given_: list[Any] = [Image.fromarray(picture), Image.fromarray(rgba), rgba, np.asfortranarray(picture)]
    assert all((render.overlay(p, blob()) == expected).all() for p in given_)
    tensors = [torch.from_numpy(blob()), torch.from_numpy(blob()).double().requires_grad_()]
    assert all((render.overlay(picture, t) == expected).all() for t in tensors)
    assert render.overlay(picture[..., 0], blob()).shape == picture.shape
    assert render.overlay(picture, torch.from_numpy(blob()).bfloat16()).shape == picture.shape


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5), (33, 40)])
def test_any_size(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 90, np.uint8)
    assert render.overlay(picture, blob()).shape == (*size, 3)
    assert render.overlay(picture, blob(400, 500)).shape == (*size, 3)
    assert render.outline(picture, blob()).shape == (*size, 3)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: render.overlay(scene().astype(np.float32), blob()),
        lambda: render.overlay(scene()[..., :2], blob()),
        lambda: render.overlay(np.zeros((0, 4, 3), np.uint8), blob()),
        lambda: render.overlay(scene(), np.zeros((2, 3, 4))),
        lambda: render.overlay(scene(), np.zeros((0, 4))),
        lambda: render.overlay(scene(), np.array([["a"]])),
        lambda: render.overlay(scene(), blob(), opacity=1.5),
        lambda: render.overlay(scene(), blob(), opacity=float("nan")),
        lambda: render.overlay(scene(), blob(), colormap="jets"),
        lambda: render.overlay(scene(), blob(), label="a", theme="pink"),  # type: ignore[arg-type]
        lambda: render.overlay(scene(), blob(), label="a", enlarge="magic"),  # type: ignore[arg-type]
        lambda: render.contact_sheet(scene(), {"a": blob()}, columns=0),
        lambda: render.contact_sheet(scene(600, 600), dict.fromkeys(map(str, range(900)), blob())),
        lambda: render.table(["a", "b"], [("x",)]),
    ],
)
def test_wrong_arguments_are_said(bad: object) -> None:
    with pytest.raises(BadArgument):
        bad()  # type: ignore[operator]


def test_difference_is_orange_above_and_blue_below() -> None:
    grey = np.full((96, 128, 3), 128, np.uint8)
    signed = np.zeros((12, 16), np.float32)
    signed[:, :5], signed[:, 11:] = 1, -1
    drawn = render.difference(grey, signed).astype(int)
    assert (drawn[:, :30, 0] - drawn[:, :30, 2]).min() > 40
    assert (drawn[:, 98:, 2] - drawn[:, 98:, 0]).min() > 40
    assert np.abs(drawn[:, 60:68, 2] - drawn[:, 60:68, 0]).max() < 16


def test_outline_lies_on_the_edge_and_shows_on_black_and_white() -> None:
    mask = np.zeros((128, 128), bool)
    mask[40:90, 30:100] = True
    for ground in (0, 255):
        picture = np.full((128, 128, 3), ground, np.uint8)
        touched = change(picture, render.outline(picture, mask)) > 60
        ys, xs = np.nonzero(touched)
        assert abs(ys.min() - 40) <= 3
        assert abs(xs.max() - 99) <= 3
        assert touched[40, 60]
        assert not touched[60, 60]
        assert not touched[10].any()
    assert (render.outline(picture, np.zeros((4, 4))) == picture).all()
    dimmed = render.outline(picture, mask, dim=0.5)
    assert dimmed[5, 5].tolist() == [128, 128, 128]
    assert dimmed[60, 60].tolist() == [255, 255, 255]


# -- captions ------------------------------------------------------------------------------------------------------

HARD_WORDS = [
    "",
    " ",
    "house",
    "W" * 300,
    "日本語",
    "дом",
    "🏠🏠",
    "e\u0301",
    "\u202eabc",
    "a\nb\tc\0",
    "\ud83d",
    "مرحبا",
    "ภาษา",
]


@pytest.mark.parametrize("word", HARD_WORDS, ids=ascii)
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_word_can_be_a_label(word: str, theme: lettering.Theme) -> None:
    drawn = render.overlay(scene(), blob(), label=word, bar=True, theme=theme)
    bare = render.overlay(scene(), blob(), label="", bar=True, theme=theme)
    assert drawn.shape[0] >= bare.shape[0] and drawn.shape[1:] == bare.shape[1:]
    # The picture is never written over, nor the bar, which stands beside a short label.
    assert (drawn[:288] == bare[:288]).all()
    assert (drawn.shape == bare.shape) == (len(word) < 300)
    if drawn.shape == bare.shape:
        assert (drawn[:, 250:] == bare[:, 250:]).all()
    if word.strip("\u202e \ud83d"):  # letters stand left of the bar, on the panel
        assert (drawn[288:] != bare[-1, -1]).any(-1)[:, :230].any()


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60), width=st.floats(0, 300), size=st.integers(6, 40))
def test_labels_fit(text: str, width: float, size: int) -> None:
    shown, points = lettering.fit(text, width, size)
    assert lettering.width_of(shown, points) <= width
    assert points <= size


def test_long_words_shrink_first_and_are_cut_then() -> None:
    wide = lettering.width_of("mountainside", 20)
    assert lettering.fit("mountainside", wide, 20) == ("mountainside", 20)
    text, size = lettering.fit("mountainside", 0.8 * wide, 20)
    assert text == "mountainside"
    assert 14 <= size < 20
    text, size = lettering.fit("mountainside", 0.4 * wide, 20)
    assert text.startswith("mo")
    assert text.endswith("…")
    assert size == 14


def test_small_pictures_grow_by_a_whole_factor_to_carry_a_caption() -> None:
    picture = scene(96, 128)
    drawn = render.overlay(picture, blob(), opacity=0, label="house", enlarge="nearest")
    assert drawn.shape[1] == 3 * 128
    assert (drawn[:288] == picture.repeat(3, 0).repeat(3, 1)).all()
    large = render.overlay(scene(300, 400), blob(), label="house")
    assert large.shape[1] == 400


@pytest.mark.parametrize("size", [(8, 1024), (1024, 8), (1, 300), (300, 1), (1, 1), (3000, 2), (64, 64), (200, 512)])
def test_long_pictures_do_not_grow_without_bound(size: tuple[int, int]) -> None:
    """A picture of 8 x 1024 had 126 million pixels with its caption, one of 1 x 300 took 2 GB."""
    card = render.overlay(scene(*size), blob(), label="house", bar=True)
    longer, shorter = max(size), min(size)
    assert max(card.shape[:2]) <= max(longer, LONGEST_ENLARGED) * 1.12 + 34
    factor = card.shape[1] / size[1]
    assert factor == int(factor) >= 1
    if 256 / shorter * longer <= LONGEST_ENLARGED - 256:
        assert min(card.shape[1], size[0] * factor) >= 256, "a picture of usual shape still carries readable letters"
    sheet = render.contact_sheet(scene(*size), {"house": blob(), "tree": blob()}, "a house and a tree")
    assert sheet.size < 3 * 2**25


def test_bar_shows_the_colours_and_other_numbers_other_tops() -> None:
    drawn = render.overlay(scene(), blob(), label="", bar=True)
    caption = drawn[288:].reshape(-1, 3).astype(int)
    for colour in render.colour_table("ember")[[40, 128, 215]].astype(int):
        assert np.abs(caption - colour).sum(1).min() <= 12
    assert (drawn[288:] != render.overlay(scene(), 7.3 * blob(), label="", bar=True)[288:]).any()


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0, "%", "0 %"), (0.04321, "%", "4.3 %"), (1.0, "%", "100 %"), (0.04321, "", "0.0432"), (0.0, "", "0")],
)
def test_numbers_of_the_bar(value: float, unit: Unit, text: str) -> None:
    assert number(value, unit) == text


def test_a_sheet_tells_its_scale() -> None:
    """The line below differs by scale and unit."""
    heats = {"house": blob(), "tree": np.flip(blob(), 1).copy()}
    own, shared, shares = (
        render.contact_sheet(scene(), heats, columns=3, same_scale=same, unit=unit)  # type: ignore[arg-type]
        for same, unit in ((False, ""), (True, ""), (False, "%"))
    )
    assert own.shape == shared.shape == shares.shape
    assert (own[-45:] != shared[-45:]).any() and (own[-45:] != shares[-45:]).any()


# -- sheets and tables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_contact_sheet_holds_the_picture_and_every_word(theme: lettering.Theme) -> None:
    picture = scene(256, 256)
    heats = {word: np.roll(blob(), k, 1) for k, word in enumerate(["a", "red", "house", "tree"])}
    sheet = render.contact_sheet(picture, heats, "a red house and a tree", theme=theme, columns=3)
    parts = [picture] + [render.overlay(picture, heat) for heat in heats.values()]
    places = [find(sheet, part) for part in parts]
    assert len({y for y, _ in places}) == 2
    assert len({x for _, x in places}) == 3
    ground = {"dark": (20, 21, 26), "light": (250, 249, 246)}[theme]
    assert tuple(sheet[0, 0]) == ground
    assert tuple(sheet[-1, -1]) == ground


def find(sheet: Picture, part: Picture) -> tuple[int, int]:
    """(y, x) of a picture inside a sheet, pixel by pixel."""
    probe = part[100, 60:120]
    for y in range(sheet.shape[0] - part.shape[0] + 1):
        row = sheet[y + 100]
        for x in np.flatnonzero((row[60:] == probe[0]).all(-1)):
            if x + part.shape[1] <= sheet.shape[1] and (sheet[y : y + part.shape[0], x : x + part.shape[1]] == part).all():
                return y, int(x)
    raise AssertionError("the picture is not on the sheet")


@pytest.mark.parametrize("count", [0, 1, 2, 7, 15])
@pytest.mark.parametrize("size", [(64, 64), (96, 256), (900, 300)])
def test_contact_sheet_of_any_number_and_shape(count: int, size: tuple[int, int]) -> None:
    heats = {f"word{k}": blob() for k in range(count)}
    sheet = render.contact_sheet(scene(*size), heats, "very long title " * 60, same_scale=True)
    assert sheet.shape[2] == 3
    assert max(sheet.shape) < 8000


def test_table_bars_follow_the_numbers() -> None:
    """Twice the share is twice the bar."""
    drawn = render.table(["word", "share"], [("a", 0.4), ("b", 0.2), ("c", float("nan"))], ["a note"], "title", width=600)
    bare = render.table(["word", "share"], [("a", 0.0), ("b", 0.0), ("c", 0.0)], ["a note"], "title", width=600)
    differs = (change(drawn, bare) > 30)[:, : 600 - 28 - 58]
    rows = [int(differs[y].sum()) for y in range(drawn.shape[0])]
    tops = sorted({n for n in rows if n > 20})
    assert tops[-1] == pytest.approx(2 * max(n for n in tops if n < 0.7 * tops[-1]), abs=12)


# -- animations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".GIF"])
def test_animation_plays_all_steps(tmp_path: Path, suffix: str) -> None:
    frames = render.step_frames(scene(), [blob() * (k + 1) for k in range(4)], "house")
    path = render.animate(frames, tmp_path / f"steps{suffix}", seconds=0.1, hold=1.0)
    with Image.open(path) as movie:
        assert movie.n_frames == 4  # type: ignore[attr-defined]
        assert movie.info.get("loop") == 0
        for k, frame in enumerate(frames):
            movie.seek(k)
            assert np.abs(np.asarray(movie.convert("RGB")).astype(int) - frame).mean() < 6
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_animation_that_cannot_be(tmp_path: Path) -> None:
    frames = [scene(), scene()]
    for wrong in ([], [scene(), scene(50, 50)]):
        with pytest.raises(BadArgument):
            render.animate(wrong, tmp_path / "x.gif")
    with pytest.raises(BadArgument, match="gif or"):
        render.animate(frames, tmp_path / "x.mp4")
    with pytest.raises(BadArgument, match="seconds"):
        render.animate(frames, tmp_path / "x.gif", seconds=0)
    with pytest.raises(CannotWrite, match="no such file or directory"):
        render.animate(frames, tmp_path / "nowhere" / "x.gif")
    assert not list(tmp_path.iterdir())


# -- the short ways ------------------------------------------------------------------------------------------------


def test_maps_become_pictures() -> None:
    maps = made(picture=scene(), size=(96, 128))
    terms = sum(maps.num_terms.values())
    tree = maps.heat_map("tree", (96, 128)) / terms
    assert (np.asarray(maps.overlay("tree")) == render.overlay(scene(), tree, label="tree", bar=True, unit="%")).all()
    faint = render.overlay(scene(), tree, 0.3, bar=True, unit="%")
    assert (np.asarray(maps.overlay("tree", label=None, opacity=0.3)) == faint).all()
    heats = {word: maps.heat_map(word, (96, 128)) / terms for word in ("red", "house", "green", "tree")}
    sheet = render.contact_sheet(scene(), heats, maps.prompt.text, unit="%")
    assert (np.asarray(maps.contact_sheet()) == sheet).all()
    one = render.contact_sheet(scene(), {"tree": heats["tree"]}, unit="%")
    assert (np.asarray(maps.contact_sheet(["tree"], title="")) == one).all()
    with pytest.raises(BadArgument, match="with_picture"):
        made().overlay("tree")
    with pytest.raises(WordNotFound):
        maps.contact_sheet(["zebra"])


def test_a_sheet_nobody_chose_words_for_has_a_dozen() -> None:
    """A long prompt gives the strongest dozen, in its own order."""
    maps = made(
        " ".join(f"{word} house tree" for word in ("red", "green", "blue", "big", "small")), picture=scene(), size=(96, 128)
    )
    strongest = maps.default_words(12)
    assert len(strongest) == 12 < len(maps.default_words())
    assert (np.asarray(maps.contact_sheet()) == np.asarray(maps.contact_sheet(strongest))).all()


def test_a_notebook_shows_a_small_sheet() -> None:
    """A picture of a few words, whatever the size of the recording; nothing of a prompt is HTML."""
    shown = made("<script>alert(1)</script> house", picture=np.zeros((900, 300, 3), np.uint8), size=(900, 300))._repr_html_()
    assert "<script" not in shown and "&lt;script" in shown
    data = base64.b64decode(shown.split("base64,")[1].split('"')[0])
    with Image.open(io.BytesIO(data)) as sheet:
        assert max(sheet.size) < 2500
    assert "<img" in made()._repr_html_()  # no picture: on an even ground
    assert "<img" not in made("")._repr_html_()


def test_reports_become_pictures() -> None:
    row = WordReport("house", share=0.6, peak=0.1, contrast=2.0, spread=0.3, closest=("tree", 0.2))
    report = PromptReport((row,), neglected=("a",), entangled=(("house", "tree", 0.8),))
    assert render.report_table(report, "title").shape[1] == 960


def test_drawing_needs_no_torch() -> None:
    """A page or node that only draws starts quickly."""
    code = "import sys, daam_core.render; sys.exit('torch' in sys.modules)"
    root = Path(daam_core.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("name", ["opacity", "top"])
@pytest.mark.parametrize("value", [math.nan, math.inf, "1"])
def test_what_is_no_number_is_refused_before_it_is_drawn(name: str, value: Any) -> None:
    """A top of NaN was drawn, in colours that meant nothing."""
    picture, heat = np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=np.float32)
    with pytest.raises(BadArgument):
        render.overlay(picture, heat, **{name: value})


@pytest.mark.parametrize("columns", [0, -1, math.nan, "2", True])
def test_a_sheet_has_whole_columns(columns: Any) -> None:
    picture, heat = np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=np.float32)
    with pytest.raises(BadArgument, match="at least one column"):
        render.contact_sheet(picture, {"house": heat}, "a house", columns=columns)
    with pytest.raises(BadArgument, match="at least one column"):
        render.film_sheet([picture], {"house": [heat]}, columns=columns)
