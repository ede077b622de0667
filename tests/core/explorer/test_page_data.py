"""Page data: what a browser gets must be the core's maps, small, and say where each typed word stands."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from daam_core import HeatMaps
from daam_core.attention.upsample import bicubic
from daam_core.errors import DetailMissing, WordNotFound
from daam_core.explorer.page_data import BUDGET, PageData, detail_data, page_data, word_places
from daam_core.maps.prompt_report import prompt_report

from ...web.samples import heat_maps
from ..maps.test_heatmaps import changed

SDXL = ((64, 64), (32, 32))


def decoded(data: PageData, layout: dict[str, object], tile: int, scales: list[float], size: tuple[int, int]) -> Tensor:
    """One word's map from the atlas alone, by the rule in page.py's docstring: `[H, W]`."""
    pixels = np.asarray(Image.open(io.BytesIO(data.atlas))).astype(float)
    top, total = layout["top"], torch.zeros(1, 1, *size)
    assert isinstance(top, int)
    half = pixels.shape[1] // 2
    values = pixels[:, :half] * 256 + pixels[:, half:] if top > 255 else pixels
    for (h, w), x, scale in zip(layout["grids"], layout["columns"], scales, strict=True):  # type: ignore[call-overload]
        native = torch.from_numpy(values[tile * h : (tile + 1) * h, x : x + w] / top * scale).float()
        total += F.interpolate(native[None, None], size, mode="bicubic", align_corners=False)
    return total[0, 0]


def furthest(data: PageData, maps: HeatMaps) -> float:
    """The largest error of any typed word's map, in its own maximum."""
    errors = []
    for i, entry in enumerate(data.header["words"]):
        if entry["kind"] == "word":
            wanted = maps.heat_map(entry["label"], maps.size)
            found = decoded(data, data.header["atlas"], i, entry["scales"], maps.size)
            errors.append(float((found - wanted).abs().max() / wanted.max()))
    return max(errors)


@pytest.mark.parametrize(
    ("size", "grids"),
    [((1024, 1024), SDXL), ((832, 1216), ((52, 76), (26, 38))), ((512, 512), ((64, 64), (32, 32), (16, 16), (8, 8)))],
)
def test_twenty_words_are_small_and_within_a_255th(size: tuple[int, int], grids: tuple[tuple[int, int], ...]) -> None:
    maps = heat_maps([f"w{i}" for i in range(20)], size, grids)
    data = page_data(maps)
    assert len(data.atlas) <= BUDGET
    assert furthest(data, maps) <= 1 / 255
    assert furthest(page_data(maps, budget=0), maps) <= 1 / 255


def test_few_words_are_exact_to_two_bytes() -> None:
    maps = heat_maps(["a", "red", "house", "and", "a", "green", "tree"], (128, 192), ((16, 24), (8, 12)))
    data = page_data(maps)
    assert data.header["atlas"]["top"] == 65535
    assert furthest(data, maps) < 2e-5


def test_numbers_of_the_words_are_the_core_s() -> None:
    maps = heat_maps(["a", "red", "house", "and", "a", "green", "tree"], (96, 160), ((12, 20), (6, 10)))
    header = page_data(maps).header
    shares = {r.word: r.share for r in prompt_report(maps).words}
    for entry in header["words"]:
        wanted = maps.heat_map(entry["label"], maps.size)
        assert entry["mean"] == pytest.approx(float(wanted.clamp(min=0).mean()), rel=1e-5)
        assert entry["peak"] == pytest.approx(float(wanted.max()), rel=1e-5)
        assert entry["low"] == pytest.approx(float(wanted.min()), rel=1e-5)
        assert entry["share"] == shares.get(entry["label"])
    assert [w["content"] for w in header["words"][:7]] == [False, True, True, False, False, True, True]
    assert [w["label"] for w in header["words"][7:]] == ["<start>", "<end>", "<padding>"]


def test_negative_words_come_along_with_their_own_resolutions() -> None:
    negative = heat_maps(["snow"], (64, 64), ((8, 8), (4, 4)), seed=3)
    maps = heat_maps(["house", "tree"], (64, 64), ((8, 8), (2, 2))).with_negative(negative)
    data = page_data(maps)
    assert data.header["negative"] == "snow"
    at = [w["kind"] for w in data.header["words"]].index("negative")
    found = decoded(data, data.header["atlas"], at, data.header["words"][at]["scales"], maps.size)
    assert torch.allclose(found, negative.heat_map("snow", maps.size), rtol=1e-3, atol=1e-3)


def test_the_header_is_json_whatever_the_prompt() -> None:
    words = ["</script>", "🏠", "日本", "\u2028", "x" * 500]
    header = json.loads(json.dumps(page_data(heat_maps(words, (64, 64), ((8, 8),))).header))
    assert [w["text"] for w in header["words"][:5]] == words


def test_a_map_without_any_heat() -> None:
    maps = heat_maps(["house"], (64, 64), ((8, 8),))
    maps = changed(maps, sums={g: torch.zeros_like(x) for g, x in maps.sums.items()})
    assert page_data(maps).header["words"][0]["scales"] == [0.0]


def test_words_stand_where_they_were_typed() -> None:
    text = "A (Red:1.2) house, 🏠 and a house"
    places = word_places(text, ["a", "red", "house", "🏠", "and", "a", "house", "gone"])
    utf16 = text.encode("utf-16-le")
    cut = [None if p is None else utf16[2 * p[0] : 2 * p[1]].decode("utf-16-le") for p in places]
    assert cut == ["A", "Red", "house", "🏠", "and", "a", "house", None]
    assert places[2] is not None and places[6] is not None and places[2][0] < places[6][0]


def test_detail_is_the_core_s_choice_of_steps_and_layers() -> None:
    maps = heat_maps(["a", "red", "house", "and", "a", "green", "tree"], (128, 128), ((16, 16), (8, 8)), detail=True)
    for axis in ("steps", "layers"):
        data = detail_data(maps, axis)  # type: ignore[arg-type]
        words = data.header["words"]
        assert words == maps.content_words
        for frame in range(data.header["frames"]):
            tile = frame * len(words) + words.index("tree")
            found = decoded(data, data.header, tile, data.header["scales"][tile], maps.size)
            part = maps.select(steps=[frame]) if axis == "steps" else maps.select(layers=[frame])
            wanted = part.heat_map("tree", maps.size)
            assert float((found - wanted).abs().max()) <= float(wanted.max()) / 255


def test_detail_that_was_not_kept_is_said() -> None:
    maps = heat_maps(["house"], (64, 64), ((8, 8),))
    assert page_data(maps).header["detail"] == {"steps": False, "layers": False, "frames": False}
    with pytest.raises(DetailMissing, match="Record with"):
        detail_data(maps, "steps")
    with pytest.raises(WordNotFound):
        detail_data(heat_maps(["house"], (64, 64), ((8, 8),), detail=True), "steps", ["boat"])


def test_words_of_a_large_picture_are_upscaled_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record may promise a picture of 134 million pixels; a word of it takes half a gigabyte, and no two are held at once."""
    seen: list[int] = []

    def counted(levels: Any, size: Any) -> Any:
        seen.append(len(levels[0]))
        return bicubic(levels, (8, 8))

    monkeypatch.setattr("daam_core.explorer.page_data.bicubic", counted)
    page_data(heat_maps(["house", "tree"], (64, 64), ((8, 8),)))
    assert max(seen) == 3  # words and specials, each together
    seen.clear()
    maps = heat_maps(["house", "tree"], (64, 64), ((8, 8),))
    page_data(dataclasses.replace(maps, size=(2**13, 2**14), picture=None))
    assert set(seen) == {1}


def test_what_each_of_two_encoders_read_has_maps_of_its_own() -> None:
    """CLIP read both words, T5 the first alone; start, end and padding are those of no encoder."""
    made = heat_maps(["red", "house", "red"], (64, 64), ((8, 8), (4, 4)))
    assert page_data(made).header["encoders"] == []
    prompt = made.prompt
    words = tuple(dataclasses.replace(w, channels=c) for w, c in zip(prompt.words, ((1, 3), (2,)), strict=False))
    tokens = tuple(dataclasses.replace(t, encoder=e) for t, e in zip(prompt.tokens, ("CLIP", "CLIP", "T5"), strict=True))
    maps = made.each_side(
        lambda side: dataclasses.replace(side, prompt=dataclasses.replace(prompt, words=words, tokens=tokens))
    )
    header = page_data(maps).header
    assert [one["name"] for one in header["encoders"]] == ["CLIP", "T5"]
    for one in header["encoders"]:
        atlas = PageData({}, base64.b64decode(one["atlas"]))
        for i, entry in enumerate(header["words"]):
            found = decoded(atlas, one, i, one["words"][i]["scales"], maps.size)
            read = entry["kind"] == "word" and (one["name"] == "CLIP" or entry["label"] == "red")
            wanted = maps.heat_map(entry["label"], maps.size, encoder=one["name"]) if read else torch.zeros(maps.size)
            assert (found - wanted).abs().max() <= 1e-4 * max(1.0, float(wanted.max()))
            assert one["words"][i]["peak"] == pytest.approx(float(wanted.max()), rel=1e-4, abs=1e-6)
