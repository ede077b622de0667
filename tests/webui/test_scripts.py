"""The hosts' own scripts work on with the pictures that a run gives back: with everything drawn, theirs stay the same."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from daam_webui import nested_runs as nesting

from .hosts import encoded
from .running import PROMPT, Live

LENS = {"overlays": True, "masks": True, "maps": True}


def _start(live: Live) -> dict[str, Any]:
    """What img2img begins with: a picture with something in it at every place."""
    rows, columns = np.mgrid[0 : live.small, 0 : live.small] / live.small * 255
    return {"init_images": [encoded(np.stack([rows, columns, rows * 0 + 90], -1).astype(np.uint8))], "denoising_strength": 0.6}


def _asked(live: Live, script: dict[str, Any]) -> dict[str, Any]:
    """A request for one of the host's scripts: what its page would send, with less to do and something to see."""
    labels = [str(arg["label"]).capitalize() for arg in script["args"]]  # Forge Neo writes "Tile Overlap"
    axes = script["args"][0]["choices"] if "X type" in labels else []
    chosen = {
        "Loops": 2, "Tile overlap": 16, "Pixels to expand": live.small // 2, "Decode steps": 3, "Original prompt": PROMPT,
        "Original negative prompt": "",
        "Outpainting direction": ["left", "up"], "List of prompt inputs": "a red house\na green tree",
        "X type": axes.index("Steps") if axes else 0, "X values": "2,3", "Y type": 0, "Z type": 0,
    }  # fmt: skip
    if script["name"] == "ultimate sd upscale":  # twice the picture's size, in tiles of its size; lists by number
        chosen |= {"Target size type": 2, "Scale": 2, "Upscaler": 0, "Type": 0, "Tile width": live.small, "Padding": 16}
    args = [chosen.get(label, arg["value"]) for label, arg in zip(labels, script["args"], strict=True)]
    if axes:  # two components of this name: the text, then the dropdown
        args[labels.index("X values") + 1] = []
    more: dict[str, Any] = _start(live) if script["is_img2img"] else {}
    if script["name"] == "sd upscale":
        large = np.kron(np.arange(16).reshape(4, 4, 1) * 16, np.ones((live.small // 2, live.small // 2, 3)))
        more["init_images"] = [encoded(np.asarray(large, np.uint8))]
    if script["name"] == "prompt matrix":
        more |= {"prompt": "a house|red|green", "batch_size": 2}
    return {**more, "script_name": script["name"], "script_args": args}


def _selectable(live: Live) -> list[dict[str, Any]]:
    """What stands in the lists of scripts below txt2img and img2img, in every host its own."""
    return [script for script in live.server.get("/sdapi/v1/script-info") if not script["is_alwayson"]]


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.host
@pytest.mark.slow
def test_every_script_of_the_host(live: Live) -> None:
    """Pixel by pixel the same pictures, as many of them, with every overlay, mask and map switched on."""
    tried, broken = [], []
    for script in _selectable(live):
        page, name = ("img2img" if script["is_img2img"] else "txt2img"), str(script["name"])
        asked = _asked(live, script)
        try:
            live.make(page, None, **asked)  # what is loaded on demand is there from now on
            bare, again = live.make(page, None, **asked), live.make(page, None, **asked)
        except urllib.error.HTTPError:
            broken.append(name)  # without us
            continue
        seen = live.make(page, LENS, **asked)
        tried.append(name)
        assert len(seen.images) == len(bare.images), f"{name}: {len(seen.images)} images instead of {len(bare.images)}"
        for plain, repeated, found in zip(bare.images, again.images, seen.images, strict=True):
            # Forge's Loopback differs from itself in the last bit now and then, without us; nothing else may differ at all.
            least = 1 if name == "loopback" and live.name != "a1111" else 0
            assert _difference(plain, found) <= max(least, _difference(plain, repeated)), f"{name}: the picture changed"
        assert seen.runs, f"{name}: nothing was recorded"
        assert "tab DAAM Lens" in str(seen.info), f"{name}: nobody says where the maps are"
    # Forge and its relatives still carry a script that reads what their models no longer have; the other is an extension's
    # and wants a schedule that its page makes.
    known = {"differential regional prompter"} | (set() if live.name == "a1111" else {"img2img alternative test"})
    assert set(broken) <= known
    assert {"sd upscale", "prompt matrix", "prompts from file or textbox", "loopback"} <= set(tried)


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


@pytest.mark.parametrize("around", ["nothing", "run", "script"])
def test_whose_run_it_is(around: str) -> None:
    """A script's own processing object (ADetailer's) has no user; that of the run around it has."""

    def process_images_inner(p: Any, then: Callable[[], str] | None = None) -> str:
        return then() if then else str(nesting.asked_by(p))

    def run(_self: Any, p: Any, then: Callable[[], str]) -> str:
        return then()

    host = _in_module("modules.processing", {"nesting": nesting}, process_images_inner)["process_images_inner"]
    runner = _in_module("modules.scripts", {}, run)["run"]
    asked, made = SimpleNamespace(user="ann"), SimpleNamespace(user=None)
    found = {
        "nothing": lambda: host(made) + host(asked),
        "run": lambda: host(asked, lambda: host(made)),
        "script": lambda: runner(None, asked, lambda: host(made)),
    }[around]()
    assert found == "ann"
