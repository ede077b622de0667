"""What people give to the verbs of maps in place of lists, names and numbers: the value is taken as it was meant, or told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from daam_core.errors import BadArgument, quoted
from daam_core.maps.heatmaps import HeatMaps
from daam_core.masks import Cleanup, otsu

from .test_heatmaps import changed, detailed, made
from .test_statistics import drawn, left, right
from .videos import random_video


def test_one_word_where_a_list_belongs_is_that_word() -> None:
    """A text was taken for the list of its letters, and "a" is a word of this prompt."""
    maps = drawn(house=left(), tree=right())
    assert torch.equal(maps.heat_maps("house"), maps.heat_maps(["house"]))
    assert torch.equal(maps.heat_maps(maps.prompt.find("house")), maps.heat_maps(["house"]))
    assert torch.equal(maps.mask("house", "compete", competitors="tree"), maps.mask("house", "compete", competitors=["tree"]))
    figures = maps.statistics()
    assert [row.word for row in figures.report("house").words] == ["house"]
    assert torch.equal(figures.share("house"), figures.share(["house"]))
    assert [row.word for row in figures.rank(torch.ones(maps.size), "tree")] == ["tree"]
    assert [change.word for change in maps.compare(maps, "tree").changes] == ["tree"]
    assert maps.sheet_title("house") == maps.prompt.text


def test_numpy_s_numbers_masks_and_pillow_s_pictures_are_taken() -> None:
    kept = detailed()
    assert torch.equal(kept.select(steps=np.arange(1))["house"], kept.select(steps=[0])["house"])
    assert torch.equal(kept.select(heads=np.array([0]))["house"], kept.select(heads=[0])["house"])
    maps = made(picture=np.zeros((32, 64, 3), np.uint8), size=(32, 64))
    region = np.zeros((32, 64), bool)
    region[:, :20] = True
    assert maps.statistics().rank(region) == maps.statistics().rank(torch.from_numpy(region))
    picture = np.random.default_rng(0).integers(0, 255, (32, 64, 3), dtype=np.uint8)
    shown = PIL.Image.fromarray(picture)
    assert torch.equal(maps.mask("house", "guided", image=shown), maps.mask("house", "guided", image=picture))


@pytest.mark.parametrize(
    "call",
    [
        lambda maps: maps.heat_maps(3),
        lambda maps: maps.heat_maps(b"house"),
        lambda maps: maps.mask("house", competitors=1),
        lambda maps: maps.mask("house", ["best"]),
        lambda maps: maps.mask("house", frames=np.array([1, 2])),
        lambda maps: maps.aggregate(["sum"]),
        lambda maps: maps.aggregate("castorini", 0),
        lambda maps: maps.select(layers="up"),
        lambda maps: maps.select(layers=[np.zeros(2)]),
        lambda maps: maps.select(steps=np.array(1)),
        lambda maps: maps.select(steps=[True]),
        lambda maps: maps.token(True),
        lambda maps: maps.default_words("two"),
        lambda maps: maps.with_negative(None),
        lambda maps: maps.with_prompt("a red house"),
        lambda maps: maps.relation(np.zeros(2)),
        lambda maps: maps.overlay("house", label=3),
        lambda maps: maps.overlay("house", label=np.zeros(2)),
        lambda maps: maps.overlay("house", colormap=np.zeros(2)),
        lambda maps: maps.overlay("house", top="hot"),
        lambda maps: HeatMaps.load(None),
        lambda maps: maps.overlay("house", colormap=["ember"]),
        lambda maps: maps.overlay("house", theme=["dark"]),
        lambda maps: maps.overlay("house", enlarge=np.zeros(2)),
        lambda maps: maps.contact_sheet(title=3),
        lambda maps: maps.contact_sheet(3),
        lambda maps: maps.statistics().rank("all of it"),
        lambda maps: maps.statistics().rank(torch.full((32, 64), float("nan"))),
        lambda maps: maps.statistics().rank_box(0.5, 0, 8, 8),
        lambda maps: maps.statistics().rank_box(0, 0, 0, 10**400),
        lambda maps: maps.statistics().rank(np.ones((32, 64), complex)),
        lambda maps: maps.statistics().rank(torch.ones(32, 64).to_sparse()),
        lambda maps: maps.statistics().difference(None, "house"),
        lambda maps: maps.statistics().difference(maps, "house", np.array([8, 8])),
        lambda maps: maps.statistics().difference(random_video(), "house"),
        lambda maps: maps.overlay("house", bar=np.zeros(2)),
        lambda maps: maps.contact_sheet(same_scale=torch.zeros(2)),
        lambda maps: maps.save(3),
        lambda maps: maps.with_picture(PIL.Image.new("RGB", (0, 3))),
        lambda maps: Cleanup(fill=np.zeros(2)),  # type: ignore[arg-type]
        lambda maps: Cleanup().apply(torch.zeros(2, 2, dtype=torch.bool).to_sparse()),
        lambda maps: otsu(torch.zeros(2, 2, device="meta")),
    ],
)
def test_what_is_none_of_them_is_told(call: Callable[[HeatMaps], Any]) -> None:
    maps = changed(detailed(), picture=np.zeros((32, 64, 3), np.uint8), size=(32, 64))
    with pytest.raises(BadArgument) as told:
        call(maps)
    assert str(told.value).endswith(".") and len(str(told.value)) < 400 and " at 0x" not in str(told.value)


def test_a_box_of_any_whole_numbers_is_cut_to_the_picture() -> None:
    """Its bound was told as "at least -4611686018427387904"."""
    figures = drawn(house=left(), tree=right()).statistics()
    assert figures.rank_box(-(10**30), 0, 10**40, 10**40) == figures.rank_box(0, 0, *figures.maps.size[::-1])


def test_what_has_no_text_of_its_own_is_quoted_without_its_place_in_memory() -> None:
    for value in (object(), PIL.Image.new("RGB", (4, 3)), [object()], len, lambda: 1):
        assert "0x" not in quoted(value)
    assert quoted("house at 0x12") == "'house at 0x12'"


@pytest.mark.parametrize(
    "given",
    ["x" * 5000, np.zeros((64, 64)), list(range(5000)), {"a": "b" * 5000}, 10**400, pytest.param(10**5000, id="digits")],
)
def test_what_is_quoted_is_one_line_of_a_bounded_length(given: Any) -> None:
    maps = made()
    for call in (maps.mask, maps.token, maps.aggregate, lambda x: maps.select(layers=[x])):
        with pytest.raises((BadArgument, KeyError)) as told:
            call(given)
        assert len(str(told.value)) < 600 and "\n" not in str(told.value)
    assert len(quoted(given)) <= 122
