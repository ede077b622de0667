"""A word's heat over a WebUI's preview, with a stand-in for the host's state: when it is drawn, where, what it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from daam_core.errors import WordNotFound
from daam_core.render import overlay
from daam_webui import live_preview, preview_tiles
from daam_webui.live_preview import LivePreview
from daam_webui.preview_tiles import layout, tile_size
from daam_webui.replaced import replaced

HEAT = torch.linspace(0, 1, 384 * 512).reshape(384, 512)
LATENT = (12, 16)


class State:
    """The host's: its page shows `current_image` where the number went up."""

    def __init__(self) -> None:
        self.shown: list[Image.Image] = []

    def assign_current_image(self, image: Image.Image) -> None:
        self.shown.append(image)


class Run:
    """One run of a sampler whose clock stands still until it is told."""

    def __init__(self, heat: Callable[..., Any] = lambda image, size: HEAT, count: int = 1) -> None:
        self.now, self.state, self.asked, self.sampled = 0.0, State(), 0, 1
        self.live = LivePreview("house", self.state, clock=lambda: self.now)
        self._heat, self._count = heat, count

    def heat(self, image: int, size: Any) -> Any:
        self.asked += 1
        return self._heat(image, size)

    def step(self, seconds: float = 1.5, preview: tuple[int, int] | None = (64, 48), watched: bool = True) -> None:
        """A prediction, in which the page may ask for a preview of (width, height), and the end of its step."""
        self.live.attach(self.sampled)
        if watched and preview is not None:
            self.state.assign_current_image(Image.new("RGB", preview, (90, 90, 90)))
        self.now += seconds
        self.live.after_step(self.heat, self._count, LATENT)

    @property
    def drawn(self) -> list[bool]:
        return [image.width > 64 for image in self.state.shown]


def test_the_heat_is_over_the_host_s_own_picture() -> None:
    run = Run()
    for _ in range(3):
        run.step()
    assert run.drawn == [False, True, True], "before the first step is over there is no heat"
    ground = np.full((384, 512, 3), 90, np.uint8)
    assert (np.asarray(run.state.shown[1]) == overlay(ground, HEAT, label="house", bar=False)).all()
    run.live.release()
    assert "assign_current_image" not in vars(run.state) and not run.live.failure and run.live.pictures == 2


def test_a_picture_a_second_at_most_and_those_between_are_left_out() -> None:
    run = Run()
    for _ in range(12):
        run.step(0.25)
    assert run.drawn == [False, True, True, True] and run.live.pictures == 3  # at 0.25, 1.25 and 2.25 s


def test_a_slow_drawing_is_a_twentieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    honest = preview_tiles.with_heat

    def slow(*given: Any) -> Any:
        run.now += 0.3
        return honest(*given)

    def heat(image: int, size: Any) -> Any:
        run.now += 0.2
        return HEAT

    monkeypatch.setattr(live_preview, "with_heat", slow)
    run._heat = heat
    while run.now < 100:
        run.step(1.0)
    assert 8 <= run.live.pictures <= 10 and run.live.seconds <= 0.05 * run.now + 0.5


def test_nobody_looks_and_it_costs_one_heat() -> None:
    run = Run()
    for _ in range(9):
        run.step(watched=False)
    assert run.asked == 1 and run.live.pictures == 0


def test_no_previews_are_told_and_cost_nothing() -> None:
    live = LivePreview("house", None)
    live.after_step(lambda image, size: pytest.fail("nobody sees it"), 1, LATENT)
    live.attach(1)
    assert "shows no preview while it samples" in live.failure


def test_the_next_picture_has_no_heat_of_the_one_before() -> None:
    run = Run()
    for _ in range(2):
        run.step()
    run.sampled = 2
    for _ in range(2):
        run.step()
    assert run.drawn == [False, True, False, True]


def test_a_run_inside_a_run_comes_first_and_a_run_that_is_gone_leaves_nothing() -> None:
    outer = Run()
    outer.step()
    inner = LivePreview("tree", outer.state, clock=lambda: outer.now)
    owner = State()
    inner.attach(1, owner)
    outer.state.assign_current_image(Image.new("RGB", (64, 48)))
    assert outer.drawn == [False, False], "the inner run has no heat yet, and the outer one's is not drawn over its picture"
    del owner
    assert "assign_current_image" not in vars(outer.state) and live_preview._watching is None
    outer.step()
    assert outer.drawn == [False, False, True]
    live_preview.release()
    assert "assign_current_image" not in vars(outer.state)


def _missing(image: int, size: Any) -> Any:
    raise WordNotFound("'house' is not in the prompt.")


def test_a_word_that_is_not_there_is_a_sentence_and_previews_go_on() -> None:
    run = Run(_missing)
    for _ in range(4):
        run.step()
    assert run.live.failure == "No live heat: 'house' is not in the prompt." and run.drawn == [False] * 4 and run.asked == 1


def test_a_drawing_that_fails_is_a_sentence_and_previews_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    run.step()
    monkeypatch.setattr(live_preview, "with_heat", lambda *_: 1 / 0)
    run.step()
    run.step()
    assert "could not be drawn" in run.live.failure and "division" not in run.live.failure and run.drawn == [False] * 3


def test_other_pictures_than_the_sampler_s_stay() -> None:
    run = Run()
    for preview in ((64, 48), (64, 64), (64, 64), (64, 64), (64, 48)):
        run.step(preview=preview)
    assert run.drawn == [False] * 5 and "64 x 64 pixels, which is not the shape of 16 x 12 latents" in run.live.failure


def test_of_a_batch_every_picture_has_its_own_heat() -> None:
    """Three side by side in a grid of two columns, the second with another prompt."""
    heats = [HEAT[::2, ::2], None, HEAT[::2, ::2].flip(1)]

    def heat(image: int, size: Any) -> Any:
        assert size == (192, 256)
        return heats[image] if image != 1 else _missing(image, size)

    run = Run(heat, 3)
    for _ in range(2):
        run.step(preview=(32, 24))
    seen = np.asarray(run.state.shown[1])
    assert seen.shape == (384, 512, 3)
    ground = np.full((192, 256, 3), 90, np.uint8)
    assert (seen[:192, :256] == overlay(ground, heats[0], bar=False)).all()
    assert (seen[192:, :256] == overlay(ground, heats[2], bar=False)).all()
    assert (seen[:192, 256:] == 90).all() and (seen[192:, 256:] == 90).all() and not run.live.failure


@pytest.mark.parametrize("count", range(1, 17))
def test_grids_are_laid_out_as_the_hosts_do(count: int) -> None:
    """A1111's `image_grid`: rows chosen, or the rounded root; columns as many as it takes."""
    for rows in {1, round(math.sqrt(count)), count}:
        columns = math.ceil(count / rows)
        for scale in (1, 8):
            assert layout((rows * 12 * scale, columns * 16 * scale), (12, 16), count) == (rows, columns)
    assert layout((96, 128), (12, 16), count) == layout((12, 16), (12, 16), count) == (1, 1), "the first alone"
    assert layout((96, 100), (12, 16), 1) is None


def test_sizes_keep_the_latent_s_shape() -> None:
    assert tile_size((64, 96), 1) == (341, 512) and tile_size((96, 64), 4) == (256, 171)


def test_somebody_else_s_wrapper_stays() -> None:
    """Another extension wraps the method after us and keeps it: ours only passes calls on then."""
    state, calls = State(), []
    with replaced(state, "assign_current_image", lambda below: lambda image: calls.append(image)):
        ours = state.assign_current_image
        state.assign_current_image = lambda image: ours(image)  # type: ignore[method-assign]
        state.assign_current_image("first")  # type: ignore[arg-type]
    state.assign_current_image("second")  # type: ignore[arg-type]
    assert calls == ["first"] and state.shown == ["second"]
    owner = SimpleNamespace(name=len)
    with replaced(owner, "name", lambda below: lambda x: 7):
        assert owner.name("x") == 7
    assert owner.name is len
