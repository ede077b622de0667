"""What is no picture, map, word, number or path is told in a sentence by every function that draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daam_core import render
from daam_core.errors import BadArgument

P, H = np.zeros((32, 48, 3), np.uint8), np.eye(8, dtype=np.float32)
RAGGED: Any = [[1, 2], [3]]


def frames(**changed: Any) -> list[Any]:
    return list(render.video_frames(**{"video": [P], "heats": [H], "label": "a", **changed}))


WRONG: list[tuple[Any, dict[str, Any], dict[str, list[Any]]]] = [
    (render.overlay, {"picture": P, "heat": H, "label": "a"}, {
        "picture": [RAGGED], "heat": [RAGGED], "top": [10**400], "unit": ["€", H], "among": [3, [3]],
    }),
    (render.contact_sheet, {"picture": P, "heats": {"a": H}}, {
        "heats": [None, [H], {1: H}, {"a": "x"}], "colormap": [H], "unit": [H],
    }),
    (render.film_sheet, {"video": [P], "heats": {"a": [H]}}, {
        "video": [3, np.array(3)], "heats": [None, {"a": 3}], "enlarge": [H],
    }),
    (render.step_frames, {"picture": P, "heats": [H], "label": "a"}, {"heats": [3], "unit": [H]}),
    (render.animate, {"frames": [P], "path": "a.gif"}, {
        "frames": [3], "path": [3, ""], "seconds": ["x", 10**400, H], "hold": [None],
    }),
    (frames, {}, {"video": [None], "heats": [3], "top": ["x"], "unit": [H]}),
    (render.write_video, {"frames": [P], "path": "a.gif"}, {"frames": [3, np.array(3)], "path": [None], "fps": ["x", H]}),
    (render.table, {"headings": ["a"], "rows": [["a"]]}, {
        "headings": [3, [3]], "rows": [3, [3], [[None]], [[10**400]]], "notes": [3], "width": ["x", 10**400], "colormap": [H],
    }),
    (render.word_matrix, {"labels": ["a"], "values": np.eye(1)}, {"labels": [3, [3]], "values": [None, np.array([["x"]])]}),
    (render.outline, {"picture": P, "mask": H}, {
        "mask": [RAGGED], "colour": ["x", (1, 2), (1, 2, 10**400)], "width": ["x", 10**9], "dim": [None],
    }),
    (render.enlarged, {"picture": P, "least": 9}, {"least": ["x", float("nan")]}),
    (render.colour_bar, {"width": 9, "height": 9, "colormap": "ember"}, {
        "width": [-1, "x"], "height": [10**9], "colormap": [["ember"]],
    }),
    (render.colour_table, {}, {"name": [["ember"]]}),
    (render.apply_colormap, {"name": "ember"}, {"values": [None, np.array("x")]}),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "given", "wrong"), WRONG, ids=lambda one: getattr(one, "__name__", ""))
def test_what_is_wrong_is_told(
    draw: Any, given: dict[str, Any], wrong: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These were errors of Python, NumPy and OpenCV."""
    monkeypatch.chdir(tmp_path)
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(BadArgument) as told:
                draw(**{**given, name: value})
            assert str(told.value).endswith(".") and len(str(told.value)) < 500


class Frames:
    """A video that is read frame by frame, by their numbers alone."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> Any:
        return [P, P][number]


@pytest.mark.parametrize(
    "video", [Frames(), {0: P, 1: P}.values(), np.stack([P, P]), (P, P)], ids=lambda one: type(one).__name__
)
def test_a_video_is_any_row_of_frames(video: Any, tmp_path: Path) -> None:
    """One that is read by numbers alone was refused, and one without numbers was an error of Python."""
    assert len(list(render.video_frames(video, [H, H], "a"))) == 2
    assert render.film_sheet(video, {"a": [H, H]}).size
    assert render.write_video(video, tmp_path / "a.gif", fps=4).stat().st_size > 0
