"""Videos that are written are read back: every frame there, of the right size and colours, in every kind of file."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from daam_core.errors import BadArgument, CannotWrite
from daam_core.render import animation, contact_sheet, film_sheet, video, video_frames, word_sheet, word_video, write_video

from ..maps.test_heatmaps import made
from ..maps.videos import LEFTS, moving_house, random_video


def frames(count: int = 6, height: int = 48, width: int = 64) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """A light square that moves over a gradient; far apart in colour, so that no coding hides a wrong order."""
    ground = np.linspace(20, 120, width, dtype=np.uint8)[None, :, None] * np.ones((height, 1, 3), np.uint8)
    out = [ground.astype(np.uint8).copy() for _ in range(count)]
    for i, one in enumerate(out):
        one[8:24, 4 + 8 * i : 20 + 8 * i] = (230, 140, 30)
    return out


def read(path: Path) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    if path.suffix == ".mp4":
        import av

        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.streams.video[0].pix_fmt == "yuv420p", "what browsers play"
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    image: Any = Image.open(path)
    found = []
    for i in range(image.n_frames):
        image.seek(i)
        found.append(np.asarray(image.convert("RGB")))
    return found


@pytest.mark.parametrize("kind", ["mp4", "webp", "gif"])
def test_what_is_written_is_read_back(kind: str, tmp_path: Path) -> None:
    if kind == "mp4":
        pytest.importorskip("av")
    wanted = frames()
    got = read(write_video(iter(wanted), tmp_path / f"film.{kind}", fps=8))
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 6
        assert np.abs(a[10:22, :].astype(int) - b[10:22, :]).mean() < 9


def test_odd_sides_get_a_line_more_and_fractions_of_a_rate_are_kept(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = write_video(frames(3, 33, 45), tmp_path / "odd.mp4", fps=23.976)
    assert read(path)[0].shape == (34, 46, 3)
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(23.976, abs=0.01)


def test_without_pyav_it_is_a_webp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "av" else find(name, *rest))
    path = write_video(frames(), tmp_path / "film.mp4")
    assert path.name == "film.webp" and len(read(path)) == 6 and not (tmp_path / "film.mp4").exists()


def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, fps, said in (("film.avi", 16, "A video is .mp4, .webp or .gif"), ("film.mp4", 0, "1 to 60 frames a second")):
        with pytest.raises(BadArgument, match=said):
            write_video(frames(), tmp_path / name, fps)
    with pytest.raises(BadArgument, match="at least one frame"):
        write_video([], tmp_path / "film.webp")
    with pytest.raises(BadArgument, match="frame 1 has another"):
        write_video([frames()[0], frames(1, 50)[0]], tmp_path / "film.webp")
    with pytest.raises(BadArgument, match="up to 4096 pixels a side"):
        write_video([np.zeros((2, 5000, 3), np.uint8)], tmp_path / "film.webp")
    monkeypatch.setattr(video, "MOST_FRAMES", 3)
    with pytest.raises(BadArgument, match="at most 3 frames"):
        write_video(frames(), tmp_path / "film.mp4")
    monkeypatch.setattr(video, "MOST_HELD", 48 * 64)
    with pytest.raises(BadArgument, match="A WebP or GIF has at most 3072 pixels"):
        write_video(frames(), tmp_path / "film.gif")
    with pytest.raises(CannotWrite):
        write_video(frames(2), tmp_path / "nowhere" / "film.mp4")
    assert list(tmp_path.iterdir()) == [], "whole or not at all"


def test_frames_are_drawn_one_by_one_and_never_all_held(tmp_path: Path) -> None:
    pytest.importorskip("av")
    held: list[int] = []

    def one_by_one() -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
        for i, frame in enumerate(frames()):
            held.append(i)
            yield frame

    write_video(one_by_one(), tmp_path / "film.mp4")
    assert held == list(range(6)) and animation.MOST_FRAMES >= 1000


def test_a_word_s_frames_share_one_scale() -> None:
    maps = moving_house((1.0, 0.5, 0.5, 0.5))
    cards = list(word_video(maps, "house", opacity=1.0))
    assert len(cards) == 4 and len({card.shape for card in cards}) == 1
    scale = cards[0].shape[1] / 128
    middle = [
        card[round(48 * scale), round((8 * left + 16) * scale)].astype(int).sum()
        for card, left in zip(cards, LEFTS, strict=True)
    ]
    assert middle[0] > middle[1] + 60, "a frame with half the heat is darker"
    done = [int((card[-2] == card[-2, 0]).all(-1).sum()) for card in cards]
    assert done == sorted(done) and done[0] < done[-1], "a line grows with the time"


def test_maps_write_their_own_video(tmp_path: Path) -> None:
    maps = moving_house()
    path = maps.save_video("house", tmp_path / "house.webp", fps=4, colormap="lagoon")
    assert len(read(path)) == 4
    assert len(list(word_video(random_video(), "house"))) == 4, "on grey where the video is not known"
    with pytest.raises(BadArgument, match="maps are of one picture"):
        made().save_video("house", tmp_path / "house.webp")
    with pytest.raises(BadArgument, match="takes as many maps, not 2"):
        list(video_frames(frames(), [np.zeros((2, 2))] * 2, "house"))


def test_a_sheet_of_a_video_has_strips() -> None:
    maps = moving_house()
    sheet = word_sheet(maps, ["red", "house"])
    assert sheet.shape[1] > sheet.shape[0] and sheet.dtype == np.uint8
    pictures = film_sheet(list(maps.video), {}, columns=2)
    assert pictures.shape[0] < sheet.shape[0]
    assert contact_sheet(np.zeros((64, 64, 3), np.uint8), {}).ndim == 3
    with pytest.raises(BadArgument, match="at least one column"):
        film_sheet(list(maps.video), {}, columns=0)
    with pytest.raises(BadArgument, match="as many maps of each word"):
        film_sheet(list(maps.video), {"house": [np.zeros((2, 2))]})
    with pytest.raises(BadArgument, match="choose fewer words"):
        film_sheet(list(maps.video), {str(i): [np.zeros((2, 2))] * 4 for i in range(400)})
