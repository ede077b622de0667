"""The Explorer node and what it remembers for its page, in the real host."""

from __future__ import annotations

import importlib
import json
from typing import Any

import graphs
import torch
from cases_nodes import NODES, painted, run
from graphs import pack

shown = importlib.import_module(f"{pack.__name__}.nodes.explorer_store")


def _sentence(memory: Any, name: str, picture: int) -> str:
    try:
        memory.maps(name, picture)
    except graphs.errors.NothingRecorded as error:
        return str(error)
    raise AssertionError("it was found")


def case_explorer_remembers_a_few_runs() -> None:
    """The one that nobody asked for the longest goes first; equal maps keep their name, another picture has its own."""
    latent, image = painted()
    plain = run("HeatMaps", latent, None)[0]
    pictured = run("HeatMaps", latent, image)[0]
    other = run("HeatMaps", latent, 1 - image)[0]
    memory = shown.ExplorerStore(runs=2)
    first, second = memory.keep(plain), memory.keep(pictured)
    assert len({first, second, memory.keep(plain)}) == 2
    assert memory.keep(run("HeatMaps", latent, image.clone())[0]) == second
    assert memory.page(first, 1) is memory.page(first, 1)
    third = memory.keep(other)
    assert memory.maps(first, 0) is plain[0]
    assert memory.maps(third, 1).picture is other[1].picture
    assert "Queue the graph again" in _sentence(memory, second, 0)
    for picture in (2, -1):
        assert "no heat maps for this picture" in _sentence(memory, third, picture)
    small = shown.ExplorerStore(most_bytes=1)
    kept = [small.keep(handle) for handle in (plain, pictured)]
    assert small.maps(kept[1], 0) is pictured[0], "the newest stays, however large"
    assert _sentence(small, kept[0], 0)


def case_explorer_s_mask_joins_an_image() -> None:
    """The picture comes with the maps or beside them; without words the mask is empty and the picture as it was."""
    latent, image = painted()
    maps = run("HeatMaps", latent, None)[0]
    choice = json.dumps({"words": [["word:house"]], "settings": {"method": "guided"}})
    mask, preview = run("Explorer", maps, image, choice)
    assert mask.shape == image.shape[:3] == preview.shape[:3]
    wanted = [one.mask("house", "guided") for one in run("HeatMaps", latent, image)[0]]
    assert torch.equal(mask > 0.5, torch.stack(wanted))
    empty, same = run("Explorer", maps, image)
    assert not empty.any()
    assert float((same - image).abs().max()) < 1 / 254
    assert NODES["DaamLensExplorer"].validate_inputs(choice="") is True
    assert "Choose again" in NODES["DaamLensExplorer"].validate_inputs(choice="{")


def _refusal(call: Any, *args: Any) -> str:
    try:
        call(*args)
    except graphs.errors.DaamLensError as error:
        return str(error)
    raise AssertionError("it was answered")


def case_what_the_page_asks_for_and_is_missing_names_a_node() -> None:
    """No advice in Python, wherever the question comes from: steps, layers, masks of them, masks by a method."""
    routes = importlib.import_module(f"{pack.__name__}.nodes.routes")
    latent, _ = painted()
    maps = run("HeatMaps", latent, None)[0]
    name = shown.EXPLORED.keep(maps)

    def choice(method: str = "", axis: str = "") -> str:
        part = {"part": {"axis": axis, "frames": [0]}} if axis else {}
        return json.dumps({"words": [["word:house"]], "settings": {"method": method}, **part})

    for axis in ("steps", "layers"):
        asked = [(routes._detail, name, 0, axis), (routes._mask, name, 0, choice(axis=axis))]
        for told in (*(_refusal(*one) for one in asked), _refusal(run, "Explorer", maps, None, choice(axis=axis))):
            assert (
                told
                == f"The {axis} were not kept apart. Set `detail` to '{axis}' in the Record Attention node and queue again."
            )
    for told in (_refusal(routes._mask, name, 0, choice("guided")), _refusal(run, "Explorer", maps, None, choice("guided"))):
        assert "Connect `image`" in told
        assert "image=" not in told
    assert "of a video" in _refusal(routes._detail, name, 0, "frames")
    assert "frames" in _refusal(routes._detail, name, 0, "heads")
