"""What the explorer's page gets of one picture: a JSON header and an 8-bit PNG atlas of native maps.

The page upscales and adds the levels itself (Eq. 6), so maps travel at the resolutions they were recorded in. A value
v of a tile stands for `v / top * scale`. Above a `top` of 255 it has two bytes, and the low ones stand in a second half
to the right of the high ones. Tile k of grid g lies at column `columns[g]`, row `k * h`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..attention.upsample import bicubic
from ..errors import DetailMissing
from ..files import png_bytes
from ..maps.heatmaps import RULES, HeatMaps
from ..maps.prompt_report import prompt_report
from ..maps.queries import PRESENCE_NOTE
from ..prompt.alignment import search_key
from ..prompt.search import several
from ..prompt.tokenization import SPECIALS

FORMAT = "daam-lens page"
VERSION = 1
BUDGET = 150_000
"""Bytes an atlas may have to be finer than one byte a value, which is within 1/255 already."""
TOPS = (65535, 8191, 2047, 255)
"""How finely maps may be stepped; the finest that the budget allows is taken, so that a page's masks are the core's."""
_MATRIX_WORDS = 64
"""Words of the matrix of which leans on which: 64 x 64 numbers are some 30 kB."""
MOST_PARTS = 1000
"""Steps, layers or frames that a page shows apart: models are trained on as many steps, and each takes milliseconds."""
_PIXELS_AT_ONCE = 2**23
"""Of all words that are upscaled together: some 30 MB, or one word where the picture is larger."""

Axis = Literal["steps", "layers", "frames"]


@dataclass(frozen=True)
class PageData:
    """`header` is plain JSON; `atlas` the bytes of an 8-bit grey PNG."""

    header: dict[str, Any]
    atlas: bytes

    def as_json(self) -> dict[str, Any]:
        """Both in plain JSON, the atlas in base64."""
        return {"header": self.header, "atlas": base64.b64encode(self.atlas).decode("ascii")}


def page_data(maps: HeatMaps, budget: int = BUDGET) -> PageData:
    """Everything the page shows at once: the prompt's words, start, end and padding, the negative prompt's words."""
    detail, frames, maps = maps.detail, maps.num_frames, maps.sum_frames()
    entries, levels = _entries(maps, "word")
    if maps.specials:
        more, more_levels = _specials(maps)
        entries, levels = entries + more, _joined(levels, more_levels)
    if maps.negative is not None:
        more, more_levels = _entries(maps.negative, "negative")
        entries, levels = entries + more, _joined(levels, more_levels)
    if maps.concepts:
        more, more_levels = _concepts(maps)
        entries, levels = entries + more, _joined(levels, more_levels)
    atlas, layout = _smallest(levels, budget)
    for entry, scales in zip(entries, layout.pop("scales"), strict=True):
        entry["scales"] = scales
    header = {
        "format": FORMAT,
        "version": VERSION,
        "size": list(maps.size),
        "prompt": maps.prompt.text,
        "negative": None if maps.negative is None else maps.negative.prompt.text,
        "truncated": list(maps.prompt.truncated),
        "tokens": [token.text for token in maps.prompt.tokens],
        "words": entries,
        "rule": RULES[maps.aggregation],
        "steps": maps.steps,
        "terms": sum(maps.num_terms.values()),
        "layers": [{"name": x.name, "place": x.block, "grid": list(x.grid)} for x in maps.layers],
        "frames": frames,
        "detail": {
            "steps": detail is not None and detail.by_step and maps.steps <= MOST_PARTS,
            "layers": detail is not None and bool(detail.layers) and len(maps.layers) <= MOST_PARTS,
            "frames": 1 < frames <= MOST_PARTS,
        },
        "relations": _relations(maps, [(entry["kind"], entry["label"]) for entry in entries], budget),
        "encoders": _encoders(maps, [(entry["kind"], entry["label"]) for entry in entries], budget),
        "notes": _notes(maps),
        "atlas": layout,
    }
    return PageData(header, atlas)


def detail_data(maps: HeatMaps, axis: Axis, words: Sequence[str] | None = None) -> PageData:
    """Steps, layers or the frames of a video apart, one byte a value: tile `frame * words + word` (content words by default).

    Raises:
        DetailMissing: they were not kept apart, or are more than a page shows.
        WordNotFound: no such word.
    """
    names = several(words) if words is not None else detail_words(maps)
    count = {"steps": maps.steps, "layers": len(maps.layers), "frames": maps.num_frames}[axis]
    if not names:
        raise DetailMissing("The prompt has no words to show by step or layer.")
    if count > MOST_PARTS:
        raise DetailMissing(f"The page shows up to {MOST_PARTS} {axis} apart, and this recording has {count}.")
    levels: dict[tuple[int, int], list[Tensor]] = {grid: [] for grid in maps.sums}
    for i in range(count):
        part = part_of(maps, axis, [i]).sum_frames()
        # A layer has one resolution; in the others it has a tile of zeros, which costs next to nothing.
        here = _levels(part, names)
        for grid, rows in levels.items():
            rows.append(here[grid] if grid in here else torch.zeros(len(names), *grid))
    atlas, layout = _encode({grid: torch.cat(rows) for grid, rows in levels.items()}, 255)
    names = [maps.prompt.find(name).label for name in names]
    return PageData({"format": FORMAT, "version": VERSION, "axis": axis, "frames": count, "words": names, **layout}, atlas)


def part_of(maps: HeatMaps, axis: Axis, numbers: Sequence[int]) -> HeatMaps:
    """Some steps, layers or frames.

    Raises:
        DetailMissing, BadArgument: see `HeatMaps.select`.
    """
    match axis:
        case "steps":
            return maps.select(steps=numbers)
        case "layers":
            return maps.select(layers=numbers)
        case "frames":
            return maps.select(frames=numbers)


def detail_words(maps: HeatMaps) -> list[str]:
    """The words whose steps and layers a page can show: those that can be seen, or all where there are none of these."""
    return maps.default_words()


def word_places(text: str, words: Sequence[str]) -> list[tuple[int, int] | None]:
    """Where each word stands in the text as typed, in UTF-16 units as a page counts them; None where it does not.

    Words are looked for in order, without regard to case, and each after the one before it.
    """
    folded = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    units = np.cumsum([0, *(2 if ord(c) > 0xFFFF else 1 for c in text)])
    places: list[tuple[int, int] | None] = []
    at = 0
    for word in words:
        found = folded.find("".join(c.lower() if len(c.lower()) == 1 else c for c in word), at)
        if found < 0:
            places.append(None)
            continue
        at = found + len(word)
        places.append((int(units[found]), int(units[at])))
    return places


# -- words ----------------------------------------------------------------------------------------------------------


def _entries(maps: HeatMaps, kind: str) -> tuple[list[dict[str, Any]], dict[tuple[int, int], Tensor]]:
    words = maps.prompt.words
    content = set(maps.content_words)
    places = word_places(maps.prompt.text, [word.text for word in words])
    shares = {r.word: r.share for r in prompt_report(maps).words}
    levels = _levels(maps, maps.words)
    entries = [
        {
            "label": word.label,
            "text": word.text,
            "kind": kind,
            "at": place,
            "content": word.label in content,
            "share": shares.get(word.label),
            "weight": word.weight,
            "tokens": len(word.channels),
            "key": search_key(word.text),
            **figures,
        }
        for word, place, figures in zip(words, places, _figures(levels, maps.size), strict=True)
    ]
    return entries, levels


def _specials(maps: HeatMaps) -> tuple[list[dict[str, Any]], dict[tuple[int, int], Tensor]]:
    prompt = maps.prompt
    names = [n for n, columns in zip(SPECIALS, (prompt.start, prompt.end, prompt.padding), strict=True) if columns]
    levels = _levels(maps, names)
    blank = {"kind": "special", "at": None, "content": False, "share": None, "weight": 1.0, "tokens": 1}
    figures = _figures(levels, maps.size)
    return [{"label": n, "text": n, "key": n, **blank, **f} for n, f in zip(names, figures, strict=True)], levels


def _concepts(maps: HeatMaps) -> tuple[list[dict[str, Any]], dict[tuple[int, int], Tensor]]:
    """What is not in the prompt; wherever the page names one, it says so, and how likely it is in the picture."""
    names = maps.concepts
    levels = _levels(maps, names)
    blank = {"kind": "concept", "at": None, "content": False, "share": None, "weight": 1.0, "tokens": 1}
    figures = _figures(levels, maps.size)
    return [
        {"label": n, "text": maps.caption(n), "key": search_key(n), **blank, **f} for n, f in zip(names, figures, strict=True)
    ], levels


def _levels(maps: HeatMaps, names: Sequence[str]) -> dict[tuple[int, int], Tensor]:
    """Native word maps `[words, h, w]` for each recorded resolution."""
    return {grid: maps.select(grids=[grid]).heat_maps(names, grid) for grid in maps.sums}


def _joined(first: dict[tuple[int, int], Tensor], second: dict[tuple[int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
    grids = [*first, *(g for g in second if g not in first)]
    counts = [len(next(iter(part.values()))) for part in (first, second)]
    blank = [{g: torch.zeros(n, *g) for g in grids} for n in counts]
    return {g: torch.cat([first.get(g, blank[0][g]), second.get(g, blank[1][g])]) for g in grids}


def _figures(levels: dict[tuple[int, int], Tensor], size: tuple[int, int]) -> list[dict[str, float]]:
    """Of each word's map at the picture's size: its mean (undershoot taken as 0), minimum and maximum."""
    found = []
    words = max(1, _PIXELS_AT_ONCE // (size[0] * size[1]))
    for group in zip(*(x.split(words) for x in levels.values()), strict=True):
        for one in bicubic(group, size):
            found.append({"mean": float(one.clamp(min=0).mean()), "low": float(one.min()), "peak": float(one.max())})
    return found


def _relations(maps: HeatMaps, entries: Sequence[tuple[str, str]], budget: int) -> dict[str, Any]:
    """What of it was recorded: which word leans on which, "words" and "text_to_text" `[query][key]`, 0 to 1; and "looks"."""
    kept = maps.relations
    found: dict[str, Any] = {}
    if kept is not None and kept.text_to_text is not None:
        found["words"] = names = maps.words[:_MATRIX_WORDS]
        found["text_to_text"] = [[round(x, 4) for x in row] for row in maps.word_matrix(names).tolist()]
    if kept is not None and kept.text_to_image:
        found["looks"] = _looks(maps, entries, budget)
    return found


def _looks(maps: HeatMaps, names: Sequence[tuple[str, str]], budget: int) -> dict[str, Any]:
    """Where each word looks (text->image), see `_other`."""
    where = maps.relation("text->image").sum_frames()
    return _other({"word": where, "special": where, "negative": where.negative}, names, maps.size, budget)


def _encoders(maps: HeatMaps, names: Sequence[tuple[str, str]], budget: int) -> list[dict[str, Any]]:
    """For each of several text encoders its "name" and the maps of the tokens that it read, see `_other`; start, end, padding
    and concepts are those of no encoder."""
    if len(maps.encoders) < 2:
        return []
    parts = {name: maps.select(encoder=name) for name in maps.encoders}
    return [
        {"name": name, **_other({"word": part, "negative": part.negative}, names, maps.size, budget)}
        for name, part in parts.items()
    ]


def _other(
    sides: Mapping[str, HeatMaps | None], names: Sequence[tuple[str, str]], size: tuple[int, int], budget: int
) -> dict[str, Any]:
    """Other maps of the words of the header, an atlas of their own like that of the header: "terms", the layout, "words" with
    the figures of each entry, "atlas" in base64. Of what has no such map all is 0.

    Args:
        sides: the maps by kind of entry; those of kind "word" are always there.
        names: (kind, label) of each entry of the header.
    """
    whole = sides["word"]
    assert whole is not None
    levels = {grid: torch.zeros(len(names), *grid) for grid in whole.sums}
    for kind, side in sides.items():
        own = [i for i, (k, label) in enumerate(names) if k == kind and side and (kind == "special" or label in side.words)]
        if side is not None and own:
            for grid, tiles in _levels(side, [names[i][1] for i in own]).items():
                if grid in levels:
                    levels[grid][own] = tiles
    atlas, layout = _smallest(levels, budget)
    words = [
        {"scales": scales, **figures} for scales, figures in zip(layout.pop("scales"), _figures(levels, size), strict=True)
    ]
    terms = sum(whole.num_terms.values())
    return {"terms": terms, **layout, "words": words, "atlas": base64.b64encode(atlas).decode("ascii")}


def _notes(maps: HeatMaps) -> list[str]:
    return [*prompt_report(maps).notes(), *([PRESENCE_NOTE] if maps.concepts else [])]


# -- the atlas ------------------------------------------------------------------------------------------------------


def _smallest(levels: dict[tuple[int, int], Tensor], budget: int) -> tuple[bytes, dict[str, Any]]:
    """The finest steps that stay within the budget, or one byte a value."""
    # Low bytes are noise and do not compress: what is too large by them alone need not be tried.
    hopeless = sum(x.numel() for x in levels.values()) > budget
    for top in TOPS[-1:] if hopeless else TOPS:
        atlas, layout = _encode(levels, top)
        if len(atlas) <= budget:
            break
    return atlas, layout


def _encode(levels: dict[tuple[int, int], Tensor], top: int) -> tuple[bytes, dict[str, Any]]:
    """The atlas and its layout with the `scales` `[tiles][grids]`; `levels` are `[tiles, h, w]` for each grid."""
    grids = sorted(levels, key=lambda g: g[0] * g[1])
    widths = [w for _, w in grids]
    columns = [sum(widths[:i]) for i in range(len(grids))]
    tiles = len(levels[grids[0]])
    plane: NDArray[np.uint16] = np.zeros((max(1, tiles * max(h for h, _ in grids)), sum(widths)), np.uint16)
    scales = np.zeros((tiles, len(grids)))
    for g, (h, w) in enumerate(grids):
        values = levels[h, w].clamp(min=0).double().numpy()
        scales[:, g] = values.max((1, 2), initial=0.0)
        unit = values / np.where(scales[:, g] > 0, scales[:, g], 1)[:, None, None]
        plane[: tiles * h, columns[g] : columns[g] + w] = np.rint(unit * top).reshape(tiles * h, w)
    pixels = plane.astype(np.uint8) if top <= 255 else np.hstack([plane >> 8, plane & 255]).astype(np.uint8)
    layout = {"top": top, "grids": [list(g) for g in grids], "columns": columns, "scales": scales.tolist()}
    return png_bytes(pixels, 9), layout
