"""The page's pure functions under Node's own test runner, held against values that the core and PyTorch compute here."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daam_core import HeatMaps, masks
from daam_core.explorer.page_data import detail_data, page_data
from daam_core.explorer.standalone import ORDER, script, web_folder
from daam_core.maps.statistics import rank_region
from daam_core.render.colormaps import PATHS, colour_table

from .samples import heat_maps

NODE = shutil.which("node")
HERE = Path(__file__).parent
needs_node = pytest.mark.skipif(NODE is None, reason="no Node here: looked for `node`")


class Cases:
    """A folder of arrays, and the JSON that names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = itertools.count()

    def file(self, data: bytes) -> str:
        name = f"{next(self.numbers)}.bin"
        (self.folder / name).write_bytes(data)
        return name

    def tensor(self, x: Tensor) -> str:
        array = x.numpy()
        return self.file(array.astype("<f4" if array.dtype == np.float32 else np.uint8).tobytes())


@needs_node
def test_functions_of_the_page(tmp_path: Path) -> None:
    assert NODE is not None
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < 18:
        pytest.skip(f"Node 18 or newer is needed, here is {version}")
    cases = Cases(tmp_path)
    words = ["a", "red", "house", "and", "a", "green", "tree,", "old", "oak"]
    small = heat_maps(words, (96, 136), ((12, 17), (6, 9)), detail=True)
    fine = heat_maps(words, (128, 128), ((16, 16), (8, 8), (4, 4)), seed=2).with_negative(
        heat_maps(["snow", "fog"], (128, 128), ((16, 16), (8, 8)), seed=5)
    )
    large = heat_maps([f"w{i}" for i in range(20)], (512, 512), ((64, 64), (32, 32)), seed=3)
    data = {
        "upscale": [_upscaling(cases, *case) for case in _SIZES],
        "pages": [_page(cases, "small", small), _page(cases, "three grids", fine), _page(cases, "SDXL", large)],
        "cleanup": [_cleanup(cases, h, w, radius) for h, w, radius in ((24, 31, 1.0), (40, 17, 3.5), (9, 9, 20.0))],
        "colours": {name: colour_table(name).tolist() for name in PATHS},  # type: ignore[arg-type]
        "pngs": [_png(cases, kind) for kind in range(5)],
    }
    (tmp_path / "cases.json").write_text(json.dumps(data), encoding="utf-8")
    done = subprocess.run(
        [NODE, "--test", str(HERE / "explorer.test.mjs")],
        env={**os.environ, "DAAM_LENS_CASES": str(tmp_path)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_all_modules_are_in_the_one_file() -> None:
    """The rule of the self-contained page: every file in ORDER, imports only of earlier ones, each name once."""
    files = {p.stem: p.read_text(encoding="utf-8") for p in web_folder().glob("*.js")}
    assert set(files) == set(ORDER)
    names: list[str] = []
    for i, name in enumerate(ORDER):
        lines = files[name].splitlines()
        for line in lines:
            if line.startswith("import "):
                assert line.split('"./')[1].removesuffix('.js";') in ORDER[:i], f"{name}: {line}"
            words = line.removeprefix("export ").removeprefix("async ").split(" ")
            if words[0] in ("const", "function", "class", "let") and len(words) > 1:
                names.append(words[1].split("(")[0])
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)
    assert "import {" not in script()
    assert "\nexport " not in script()


_SIZES = [
    (((8, 8),), (64, 64)),
    (((64, 64), (32, 32)), (512, 512)),
    (((13, 20), (7, 10), (4, 5)), (104, 160)),
    (((5, 9),), (77, 31)),
    (((1, 1), (1, 3)), (8, 24)),
    (((16, 16),), (11, 7)),
]


def _upscaling(cases: Cases, grids: tuple[tuple[int, int], ...], size: tuple[int, int]) -> dict[str, Any]:
    levels = [torch.rand(1, 1, *grid, generator=torch.Generator().manual_seed(i)) for i, grid in enumerate(grids)]
    wanted = sum(F.interpolate(x, size=size, mode="bicubic", align_corners=False) for x in levels)
    return {
        "grids": grids, "size": size, "levels": [cases.tensor(x) for x in levels],
        "wanted": cases.tensor(torch.as_tensor(wanted)),
    }  # fmt: skip


def _page(cases: Cases, name: str, maps: HeatMaps) -> dict[str, Any]:
    page = page_data(maps)
    exact = page.header["atlas"]["top"] == 65535
    both = {"word": maps, "special": maps, "negative": maps.negative}
    every = [both[w["kind"]].heat_map(w["label"], maps.size) for w in page.header["words"]]  # type: ignore[union-attr]
    # Coarser steps move a mask's edge where the map is that close to the level: so then the core is asked about maps of
    # the same steps. With the finest it is asked about the record itself.
    asked = maps if exact else _stepped(maps, page.header["atlas"]["top"])
    return {
        "name": name,
        "exact": exact,
        "header": page.header,
        "atlas": cases.file(page.atlas),
        "maps": [cases.tensor(x) for x in every],
        "masks": _masks(cases, asked),
        "places": _places(cases, asked),
        "rivals": [{"members": [i], "wanted": maps.prompt.rivals(w)} for i, w in enumerate(maps.words)],
        "details": _details(cases, maps),
    }


def _stepped(maps: HeatMaps, steps: int) -> HeatMaps:
    """The maps after a round trip through that many steps a value."""
    sums = {}
    for grid, x in maps.sums.items():
        top = x.amax((1, 2), keepdim=True)
        sums[grid] = (x.double() / top * steps).round().div(steps).mul(top).float()
    side = dataclasses.replace(maps.positive, sums=sums)
    return dataclasses.replace(maps, sides={**maps.sides, "prompt": side})


def _masks(cases: Cases, maps: HeatMaps) -> list[dict[str, Any]]:
    found = []
    for i, word in enumerate(maps.words[:8]):
        for tau in (0.4, 0.73):
            for method in ("threshold", "compete"):
                wanted = cases.tensor(maps.mask(word, method, tau=tau).byte())
                found.append({"picks": [[i]], "settings": {"tau": tau, "compete": method == "compete"}, "wanted": wanted})
        rest = cases.tensor(masks.invert(masks.grow(maps.mask(word, "threshold", tau=0.5), 3)).byte())
        found.append({"picks": [[i]], "settings": {"tau": 0.5, "grow": 3, "invert": True}, "wanted": rest})
        soft = {"picks": [[i]], "settings": {"soft": True}, "kind": "float"}
        found.append({**soft, "wanted": cases.tensor(masks.soft(maps.heat_map(word, maps.size)))})
    phrase = " ".join(word.text for word in maps.prompt.words[1:3])
    both = maps.mask(phrase, "compete") | maps.mask(maps.words[5], "compete")
    found.append({"picks": [[1, 2], [5]], "settings": {"compete": True}, "wanted": cases.tensor(both.byte())})
    return found


def _places(cases: Cases, maps: HeatMaps) -> list[dict[str, Any]]:
    chance = np.random.default_rng(4)
    h, w = maps.size
    found = []
    for i in range(40):
        y, x = int(chance.integers(h - 30)), int(chance.integers(w - 30))
        height, width = (1, 1) if i < 30 else (int(chance.integers(1, 30)), int(chance.integers(1, 30)))
        region = torch.zeros(h, w)
        region[y : y + height, x : x + width] = 1
        place: dict[str, Any] = {"box": {"x": x, "y": y, "w": width, "h": height}}
        if i >= 35:
            region *= torch.rand(h, w, generator=torch.Generator().manual_seed(i)) > 0.3
            region[y, x] = 1
            place["inside"] = cases.tensor(region[y : y + height, x : x + width].bool().byte())
        rows = rank_region(maps, region)
        place |= {"words": [r.word for r in rows], "scores": [r.score for r in rows], "lifts": [r.lift for r in rows]}
        found.append(place)
    return found


def _details(cases: Cases, maps: HeatMaps) -> list[dict[str, Any]]:
    if maps.detail is None:
        return []
    found = []
    for axis, frames in (("steps", [[0], [3], [1, 2]]), ("layers", [[0], [1], [0, 1]])):
        data = detail_data(maps, axis)  # type: ignore[arg-type]
        ask = [
            {
                "words": list(words), "frames": part,
                "wanted": cases.tensor(_part(maps, axis, part).heat_map(" ".join(words), maps.size)),
            }
            for part in frames
            for words in (("house",), ("red", "house"))
        ]  # fmt: skip
        found.append({"header": data.header, "atlas": cases.file(data.atlas), "maps": ask})
    return found


def _part(maps: HeatMaps, axis: str, frames: list[int]) -> HeatMaps:
    return maps.select(steps=frames) if axis == "steps" else maps.select(layers=frames)


def _cleanup(cases: Cases, h: int, w: int, radius: float) -> dict[str, Any]:
    mask = torch.rand(h, w, generator=torch.Generator().manual_seed(h)) > 0.93
    mask[h // 3 : h // 2 + 3, w // 3 : w // 2 + 3] = True
    return {
        "h": h, "w": w, "radius": radius, "mask": cases.tensor(mask.byte()),
        "grown": cases.tensor(masks.grow(mask, radius).byte()),
        "shrunk": cases.tensor(masks.shrink(mask, radius).byte()),
        "feathered": cases.tensor(masks.feather(mask, radius)),
    }  # fmt: skip


def _png(cases: Cases, kind: int) -> dict[str, str]:
    """A PNG written by hand, every row with one filter, straight from the specification."""
    h, w = 7, 11
    pixels = np.random.default_rng(kind).integers(0, 256, (h, w))
    rows = bytearray()
    for y in range(h):
        rows.append(kind)
        for x in range(w):
            a = int(pixels[y, x - 1]) if x else 0
            b = int(pixels[y - 1, x]) if y else 0
            c = int(pixels[y - 1, x - 1]) if x and y else 0
            paeth = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            rows.append((int(pixels[y, x]) - (0, a, b, (a + b) // 2, paeth)[kind]) % 256)
    head = struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(rows))
    chunks = [(b"IHDR", head), (b"IDAT", packed[:9]), (b"IDAT", packed[9:]), (b"IEND", b"")]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in chunks)
    return {"file": cases.file(file), "pixels": cases.file(pixels.astype(np.uint8).tobytes())}


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
