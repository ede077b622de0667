"""What the map nodes draw: overlays of words, and their maps as soft masks. No more is made at once than memory takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import comfy.utils
import numpy as np
import torch
from torch import Tensor

from ..daam_core.defaults import DEFAULT_TAU
from ..daam_core.errors import BadArgument
from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.masks import minmax
from ..daam_core.render import outline, overlay
from .convert import MapsHandle, Picture, frames_shown, ground, grounds, image_of
from .mask import united
from .parse_inputs import side_of

COLOURS = ["ember", "lagoon", "gray"]
MOST_PIXELS = 2**27
"""Pixels of all overlays of one run: 128 of 1024 x 1024, 1.5 GB."""
CAPTION_HELP = "Write the word and the range of its heat below each picture; without, overlays have the picture's own size."


def soft_masks(handle: MapsHandle, names: Sequence[str]) -> Tensor:
    """MASK `[pictures x words, H, W]` float32 0..1, every word of the first picture first; of videos `[frames, H, W]` for each
    word, on one scale."""
    height, width = handle[0].size
    counts = [frames_shown(maps) for maps in handle]
    check_amount(sum(counts) * len(names), height, width)
    out = torch.empty(sum(counts) * len(names), height, width)
    at = 0
    for maps, count in zip(handle, counts, strict=True):
        for name in names:
            side, query = side_of(name, maps)
            heat = side.heat_map(query, (height, width), count if maps.num_frames > 1 else None)
            out[at : at + count] = minmax(heat.reshape(count * height, width)).reshape(count, height, width)
            at += count
    return out


def drawn_overlays(
    handle: MapsHandle, names: Sequence[str], opacity: float, colour_map: str, caption: bool, edge: bool = False
) -> Tensor:
    """IMAGE `[pictures x words, H, W, 3]` float32 0..1, every word of the first picture first; without `caption` of the
    pictures' own size. Of videos, all frames of the first word, then of the second. Only one picture more than what is given
    out is held."""
    count = sum(frames_shown(maps) for maps in handle) * len(names)
    bar = comfy.utils.ProgressBar(len(handle) * len(names))
    check_amount(count, *max(maps.size for maps in handle))
    among = [_label(*side_of(name, maps), name) for maps in handle for name in names] if caption else []

    def one_by_one() -> Iterator[Picture]:
        for maps in handle:
            for name in names:
                shown = edged(maps, name) if edge else maps
                if maps.num_frames > 1:
                    yield from video_overlays(shown, name, opacity, colour_map, caption, among)
                else:
                    yield word_overlay(shown, name, opacity, colour_map, caption, among)
                bar.update(1)

    return image_of(one_by_one(), count)


def edged(maps: HeatMaps, name: str) -> HeatMaps:
    """Maps whose picture has the edge of a word's best mask."""
    mask = united(maps, [name], "best", DEFAULT_TAU, None)
    if maps.num_frames == 1:
        return dataclasses.replace(maps, picture=outline(ground(maps), mask.float().numpy()))
    return dataclasses.replace(
        maps, video=np.stack([outline(g, m.float().numpy()) for g, m in zip(grounds(maps), mask, strict=True)])
    )


def check_amount(pictures: int, height: int, width: int) -> None:
    """Raises BadArgument for more than can be made at once; the text says what to do."""
    if pictures * height * width > MOST_PIXELS:
        raise BadArgument(
            f"{pictures} overlays of {width} x {height} pixels would take {pictures * height * width * 12 / 2**30:.0f} GB. Ask "
            f"for fewer words (at most {MOST_PIXELS // (height * width)} overlays fit), or for fewer pictures at once."
        )


def video_overlays(
    maps: HeatMaps, name: str, opacity: float, colour_map: str, caption: bool = True, among: Sequence[str] = ()
) -> Iterator[Picture]:
    """One word's heat on every frame of its video, on one scale; as `word_overlay`."""
    side, query = side_of(name, maps)
    film = grounds(maps)
    heats = side.heat_map(query, frames=len(film)) / max(1, sum(side.num_terms.values()))
    top = float(heats.max()) or None
    label = _label(side, query, name) if caption else None
    unit = unit_of(side)
    for picture, heat in zip(film, heats, strict=True):
        yield overlay(picture, heat, opacity, colour_map, label, caption, top=top, unit=unit, among=among)  # type: ignore[arg-type]


def word_overlay(
    maps: HeatMaps, name: str, opacity: float, colour_map: str, caption: bool = True, among: Sequence[str] = ()
) -> Picture:
    """One word's heat on its picture: uint8 `[H, W, 3]`, with a label and a colour bar below where there is a `caption`, of
    one height with those of the labels `among` which it stands."""
    side, query = side_of(name, maps)
    heat = side.heat_map(query, maps.size) / max(1, sum(side.num_terms.values()))
    label = _label(side, query, name) if caption else None
    unit = unit_of(side)
    return overlay(ground(maps), heat, opacity, colour_map, label, caption, unit=unit, among=among)  # type: ignore[arg-type]


def unit_of(side: HeatMaps) -> str:
    """What a word's heat is counted in: per cent of the attention, or nothing that has a unit."""
    return "%" if side.aggregation == "sum" else ""


def _label(side: HeatMaps, query: str, name: str) -> str:
    """A word as it was asked for; a concept with how likely it is in the picture."""
    return side.caption(query) if side.is_concept(query) else name
