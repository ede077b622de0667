"""What the tests ask of a running host: a picture with and without DAAM Lens, the maps, what an independent witness saw."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from daam_core import HeatMaps

from .explicit import Call
from .hosts import Server, picture

PROMPT = "a red house and a green tree"
OURS = re.compile(r",? ?DAAM Lens[^:,]*: (?:\"(?:\\.|[^\"\\])*\"|[^,\n]*)")


@dataclass
class Result:
    """One answer of the host's API."""

    images: list[NDArray[np.uint8]]
    info: dict[str, Any]
    maps: list[HeatMaps] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    encoded: dict[str, Any] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    hooks: int = 0

    @property
    def infotexts(self) -> list[str]:
        """Without our own fields."""
        return [OURS.sub("", text) for text in self.info["infotexts"]]

    @property
    def note(self) -> str:
        return str(self.info["extra_generation_params"].get("DAAM Lens note", ""))


class Live:
    """A host with shorthands."""

    def __init__(self, server: Server) -> None:
        self.server, self.name = server, server.host.name
        self.small = 128 if self.name == "a1111" else 64

    def make(
        self,
        page: str = "txt2img",
        lens: dict[str, Any] | None = None,
        watch: bool = False,
        texts: Sequence[str] = (),
        **body: Any,
    ) -> Result:
        """A picture; `lens` are DAAM Lens's arguments by name (recorded, so that maps come back), None is without it.

        Args:
            watch: note every query and key.
            texts: what the host's text encoder is asked to read beside it, noted with the weights of the keys.
        """
        asked: dict[str, Any] = {
            "prompt": PROMPT, "steps": 2, "width": self.small, "height": self.small, "seed": 7,
            "cfg_scale": 5, "sampler_name": "Euler",
            "save_images": True,
        }  # fmt: skip
        if body.get("enable_hr") and self.name in ("forge", "neo"):
            asked["hr_additional_modules"] = ["Use same choices"]  # its API has no default
        asked |= body
        before, known = self._records(), self.runs()
        if lens is not None:
            args = {"enabled": True, "record": True, "overlays": False, "report": False, **lens}
            asked["alwayson_scripts"] = {**asked.get("alwayson_scripts", {}), "DAAM Lens": {"args": [args]}}
        if watch:
            self.server.get(f"/witness/start?texts={urllib.parse.quote('|'.join(texts))}")
        self.server.get("/witness/seed")
        answer = self.server.post(f"/sdapi/v1/{page}", asked)
        result = Result([picture(x) for x in answer["images"]], json.loads(answer["info"]))
        path = self.server.data / "witness.pt" if watch else ""
        result.hooks = self.server.get(f"/witness/stop?path={urllib.parse.quote(str(path))}")["hooks"]
        if watch:
            noted = torch.load(path, weights_only=True)
            result.calls, result.encoded = noted["calls"], noted["encoded"] or {}
        new = sorted(self._records() - before, key=lambda p: p.stat().st_mtime_ns)
        result.maps = [HeatMaps.load(path) for path in new]
        result.runs = [run for run in self.runs() if run not in known]
        return result

    def compare(self, page: str = "txt2img", lens: dict[str, Any] | None = None, **body: Any) -> Result:
        """With and without DAAM Lens: asserts that pictures and infotexts are the same and nothing stays hooked."""
        if page == "img2img":
            # A checkpoint that has to be loaded first draws random numbers, too, and the start picture is encoded with noise.
            self.make(page, None, **body)
        bare = self.make(page, None, **body)
        seen = self.make(page, lens or {}, **body)
        assert len(seen.images) >= len(bare.images)
        for plain, ours in zip(bare.images, seen.images, strict=False):
            assert plain.shape == ours.shape and (plain == ours).all(), "the picture changed"
        assert seen.infotexts[: len(bare.infotexts)] == bare.infotexts
        assert seen.hooks == bare.hooks == 0, "something stayed hooked"
        for maps in seen.maps:
            whole(maps)
        return seen

    def runs(self) -> list[str]:
        """Ids of the recordings that the host still has, newest first."""
        try:
            return [str(run["id"]) for run in self.server.get("/daam-lens/v1/runs")["runs"]]
        except urllib.error.HTTPError:  # a host without our routes
            return []

    def _records(self) -> set[Path]:
        return set((self.server.data / "outputs").rglob("*.safetensors"))


def whole(maps: HeatMaps) -> None:
    """At each place the attention to all columns is 1 a head, layer and step: whatever is lost or doubled shows here.
    Places that were not sampled (inpaint "only masked") have none at all."""
    for side in filter(None, (maps, maps.negative)):
        for grid, sums in side.sums.items():
            found = sums.sum(0)
            found = found[found > 0]
            assert len(found) and torch.allclose(found, torch.tensor(float(side.num_terms[grid])), rtol=1e-4), (
                grid,
                side.num_terms[grid],
            )


def word_at(maps: HeatMaps, word: str) -> dict[int, torch.Tensor]:
    """A word's native sums by number of places: float32 `[h * w]`."""
    rows = list(maps.prompt.find(word).channels)
    return {grid[0] * grid[1]: sums[rows].sum(0).flatten() for grid, sums in maps.sums.items()}
