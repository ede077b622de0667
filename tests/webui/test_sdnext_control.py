"""SD.Next's tab Control: it runs DAAM Lens where a user put it on the host's list, and leaves it out where not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from daam_core import HeatMaps

from .hosts import find, picture
from .running import whole
from .sdnext_server import SDNextServer

WORDS = ["a", "red", "house", "and", "a#2", "green", "tree"]
ASKED: dict[str, Any] = {
    "control_prompt": "a red house and a green tree", "control_neg_prompt": "star", "control_steps": 2, "control_seed": 7,
    "control_before_resize_width": 128, "control_before_resize_height": 128, "control_sampling": "Euler",
}  # fmt: skip
PANEL = "script_control_daam_lens_daam_lens_"


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SDNextServer]:
    """The host with DAAM Lens on its list."""
    host, why = find("sdnext")
    if host is None:
        pytest.skip(why)
    running = SDNextServer(host, tmp_path_factory.mktemp("sdnext-control"), control=True, kinds=("tiny",))
    try:
        yield running.wait(600)  # type: ignore[misc]
    finally:
        running.stop()


def press(server: SDNextServer, **values: Any) -> tuple[list[NDArray[np.uint8]], str, list[HeatMaps]]:
    """Pictures, what is told below them, and the records, of "Generate" with the panel's values by name."""
    before = set(server.records())
    answer = server.post("/press-control", {**ASKED, **values})
    new = sorted(set(server.records()) - before, key=lambda path: path.stat().st_mtime_ns)
    return [picture(image) for image in answer["images"]], answer["told"], [HeatMaps.load(path) for path in new]


def ticked(**values: Any) -> dict[str, Any]:
    return {f"{PANEL}{name}": value for name, value in {"enabled": True, "record": True, **values}.items()}


@pytest.mark.parametrize("batch", [{}, {"control_batch_size": 2}, {"control_batch_count": 2}], ids=["one", "pair", "twice"])
def test_on_the_list_it_records_and_the_picture_stays(listed: SDNextServer, batch: dict[str, Any]) -> None:
    bare, _, none = press(listed, **batch)
    ours, told, maps = press(listed, **batch, **ticked(words="house"))
    count = 2 if batch else 1
    assert not none and len(bare) == count + (count > 1), "a batch has a sheet before its pictures"
    assert len(ours) == len(bare) + count, "an overlay of each stands behind them"
    assert all((a == b).all() for a, b in zip(bare, ours, strict=False)), "the picture changed"
    assert "DAAM Lens note" not in told and [one.words for one in maps] == [WORDS] * count
    for one, shown in zip(maps, bare[-count:], strict=True):
        whole(one)
        assert one.steps == 2 and one.picture is not None and (one.picture == shown).all()
    assert maps[0].negative is None


def test_a_refusal_stands_among_what_is_told_there(listed: SDNextServer) -> None:
    bare, _, _ = press(listed, control_prompt="a [red:blue:0.5] house")
    ours, told, maps = press(listed, control_prompt="a [red:blue:0.5] house", **ticked())
    assert not maps and len(ours) == len(bare) == 1 and (ours[0] == bare[0]).all()
    assert "This prompt changes while the picture is sampled" in told


def test_off_the_list_the_tab_leaves_it_out(sdnext: SDNextServer) -> None:
    scripts = sdnext.get("/sdapi/v1/scripts")
    assert "daam lens" in scripts["txt2img"] and "daam lens" in scripts["img2img"] and "daam lens" not in scripts["control"]
