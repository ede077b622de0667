"""The hosts' own scripts work on with the pictures that a run gives back: with everything drawn, theirs stay the same."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
import pytest

from daam_webui import nested_runs as nesting

from .hosts import encoded
from .running import PROMPT, Live

LENS = {"overlays": True, "masks": True, "maps": True}


def _start(live: Live) -> dict[str, Any]:
    """What img2img begins with: a picture with something in it at every place."""
    rows, columns = np.mgrid[0 : live.small, 0 : live.small] / live.small * 255
    return {"init_images": [encoded(np.stack([rows, columns, rows * 0 + 90], -1).astype(np.uint8))], "denoising_strength": 0.6}


def _scripts(live: Live) -> dict[str, tuple[str, list[Any], dict[str, Any]]]:
    """Name -> (page, arguments of the script, more of the request)."""
    start = _start(live)
    large = np.asarray(np.kron(np.arange(16).reshape(4, 4, 1) * 16, np.ones((live.small // 2, live.small // 2, 3))), np.uint8)
    plot = ["", "", "", "", "", True, False, False, False, False, False, False, 0, False]
    return {
        "sd upscale": ("img2img", ["", 16, "None", 2.0], {**start, "init_images": [encoded(large)]}),
        "poor man's outpainting": ("img2img", [64, 4, "fill", ["left", "down"]], start),
        "outpainting mk2": ("img2img", ["", 64, 8, ["left"], 1.0, 0.05], start),
        "loopback": ("img2img", [2, 0.5, "Linear", "None"], start),
        "img2img alternative test": (
            "img2img", ["", True, True, PROMPT, "", True, 3, True, 1.0, 0.0, False], start
        ),
        "prompt matrix": ("txt2img", [False, False, "positive", "comma", 0], {"prompt": "a house|red|green", "batch_size": 2}),
        "prompts from file or textbox": ("txt2img", [False, False, "start", "a red house\na green tree"], {"prompt": ""}),
        "x/y/z plot": ("txt2img", [4, "2,3", "", 0, *plot], {}),
    }  # fmt: skip


@pytest.mark.host
@pytest.mark.slow
def test_every_script_of_the_host(live: Live) -> None:
    """Pixel by pixel the same pictures, as many of them, with every overlay, mask and map switched on."""
    offered = live.server.get("/sdapi/v1/scripts")
    ours = _scripts(live)
    selectable = {"txt2img": set(offered["txt2img"]), "img2img": set(offered["img2img"])}
    tried = []
    for name, (page, args, more) in ours.items():
        if name not in selectable[page]:
            continue
        tried.append(name)
        asked = {**more, "script_name": name, "script_args": args}
        if page == "img2img":
            live.make(page, None, **asked)
        bare = live.make(page, None, **asked)
        seen = live.make(page, LENS, **asked)
        assert len(seen.images) == len(bare.images), f"{name}: {len(seen.images)} images instead of {len(bare.images)}"
        for plain, found in zip(bare.images, seen.images, strict=True):
            assert plain.shape == found.shape and (plain == found).all(), f"{name}: the picture changed"
        assert seen.maps, f"{name}: nothing was recorded"
        assert "tab DAAM Lens" in str(seen.info), f"{name}: nobody says where the maps are"
    assert {"sd upscale", "prompt matrix"} <= set(tried)


@pytest.mark.host
@pytest.mark.slow
def test_a_run_without_a_script_shows_its_overlays(live: Live) -> None:
    bare, seen = live.make(), live.make(lens=LENS)
    assert len(seen.images) > len(bare.images)


# -- without a host ------------------------------------------------------------------------------------------------------


def _in_module(name: str, known: dict[str, Any], *functions: Any) -> dict[str, Any]:
    """Functions as if they stood in a module of that name."""
    space: dict[str, Any] = {"__name__": name, **known}
    space.update({f.__name__: FunctionType(f.__code__, space, f.__name__, f.__defaults__) for f in functions})
    return space


def process_images(again: bool = False) -> bool:
    return bool(process_images_inner(again))


def process_images_inner(again: bool) -> bool:
    return process_images() if again else nesting.is_inner_run()


def run(script: Callable[[], bool]) -> bool:
    return script()


@pytest.mark.parametrize(
    ("asked", "inner"), [("page", False), ("api of another tab", False), ("script", True), ("second pass", True)]
)
def test_who_asked_for_a_run(asked: str, inner: bool) -> None:
    """The page and other tabs call the host's function straight; scripts and second passes call it from inside a run."""
    host = _in_module("modules.processing", {"nesting": nesting}, process_images, process_images_inner)["process_images"]
    runner = _in_module("modules.scripts", {}, run)["run"]
    calls: dict[str, Callable[[], bool]] = {
        "page": host,
        "api of another tab": lambda: (lambda: bool(host()))(),
        "script": lambda: bool(runner(host)),
        "second pass": lambda: bool(host(True)),
    }
    assert calls[asked]() is inner
