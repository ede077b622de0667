"""Live heat: previews of the real sampler, with a word's heat; the picture and its maps stay what they are without."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.utils
import latent_preview
import numpy as np
import torch
from comfy.cli_args import LatentPreviewMethod, args
from encoders import text_encoder
from graphs import encode, ksampler, listen, refusal, runs
from zoo import PROMPT, clip, empty, transformer, unet

live = importlib.import_module("daam-lens.nodes.capture.live_preview")
session = importlib.import_module("daam-lens.nodes.capture.recording_session")
HONEST = comfy.utils.ProgressBar.update_absolute


class Watch:
    """What the page would get: (step, preview) of each update; the clock of the previews; what was said of them."""

    def __init__(self, seconds: float) -> None:
        self.updates: list[tuple[int, Any]] = []
        self.said: list[str] = []
        self.now = 0.0
        self.seconds = seconds

    def hook(self, value: int, total: int, preview: Any, **_: Any) -> None:
        self.updates.append((value, preview))

    @property
    def pictures(self) -> list[np.ndarray]:
        return [np.asarray(preview[1]) for _, preview in self.updates if preview is not None]


@contextmanager
def watched(seconds: float = 2.0, method: LatentPreviewMethod = LatentPreviewMethod.NoPreviews) -> Iterator[Watch]:
    """A step of the sampler lasts `seconds`."""
    watch, hook, before = Watch(seconds), comfy.utils.PROGRESS_BAR_HOOK, args.preview_method
    handler = logging.Handler()
    handler.emit = lambda record: watch.said.append(record.getMessage())  # type: ignore[method-assign]
    (init, during), level = (live.LivePreview.__init__, live.LivePreview.during), live.logger.level
    live.LivePreview.__init__ = lambda self, *given: init(self, *given, clock=lambda: watch.now)

    def step(self: Any, *given: Any) -> Any:
        try:
            return during(self, *given)
        finally:
            watch.now += watch.seconds

    live.LivePreview.during = step
    comfy.utils.set_progress_bar_global_hook(watch.hook)
    args.preview_method = method
    logger = logging.getLogger("daam_lens")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield watch
    finally:
        live.LivePreview.__init__, live.LivePreview.during = init, during
        comfy.utils.set_progress_bar_global_hook(hook)
        args.preview_method = before
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert comfy.utils.ProgressBar.update_absolute is HONEST, "the progress bar was left changed"


def _sample(model: Any, encoder: Any, steps: int = 4, text: str = PROMPT) -> torch.Tensor:
    return ksampler(model, encode(encoder, text), encode(encoder, ""), empty(128, 192), steps=steps)


def case_the_heat_is_that_of_the_steps_so_far() -> None:
    """The last preview's heat is the finished map's; the picture is the same bit for bit, and so are the maps but for order."""
    plain = _sample(unet("sd15"), clip("sd15"))
    without = runs.maps_of(_sample(*listen(unet("sd15"), clip("sd15"))))[0]
    heats: list[torch.Tensor] = []
    honest = session.RecordingSession.live_heat

    def kept(self: Any, word: str, size: Any) -> Any:
        heats.append(honest(self, word, size))
        return heats[-1]

    session.RecordingSession.live_heat = kept
    try:
        runs.RECORDINGS._kept.clear()
        with watched() as watch:
            heard = _sample(*listen(unet("sd15"), clip("sd15"), live_word="house"))
    finally:
        session.RecordingSession.live_heat = honest
    assert torch.equal(plain, heard)
    (maps,) = runs.maps_of(heard)
    torch.testing.assert_close(maps.heat_map("house"), without.heat_map("house"), rtol=1e-5, atol=1e-6)
    assert [step for step, preview in watch.updates if preview is not None] == [1, 2, 3, 4]
    assert tuple(heats[-1].shape) == (341, 512)
    expected = maps.heat_map("house", (341, 512)) / sum(maps.num_terms.values())
    torch.testing.assert_close(heats[-1], expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(heats[0], heats[-1], rtol=1e-3)
    picture = watch.pictures[-1]
    assert picture.shape[1] == 512 and picture.shape[0] > 341, "the word stands below"
    assert any("live heat of 'house': 4 pictures" in text for text in watch.said), watch.said


def case_off_by_default_and_a_picture_a_second() -> None:
    with watched() as watch:
        _sample(*listen(unet("sd15"), clip("sd15")))
    assert watch.pictures == []
    with watched(0.4) as watch:
        _sample(*listen(unet("sd15"), clip("sd15"), live_word="house"), steps=8)
    assert [step for step, preview in watch.updates if preview is not None] == [1, 4, 7]


def case_a_slow_drawing_is_rare() -> None:
    """A picture that takes 0.2 s is followed by none for 4 s."""
    with watched(1.0) as watch:
        honest = live.overlay

        def slow(*given: Any, **options: Any) -> Any:
            watch.now += 0.2
            return honest(*given, **options)

        live.overlay = slow
        try:
            _sample(*listen(unet("sd15"), clip("sd15"), live_word="house"), steps=9)
        finally:
            live.overlay = honest
    assert [step for step, preview in watch.updates if preview is not None] == [1, 5, 9]


def case_over_the_host_s_own_preview() -> None:
    """Where the host shows previews, theirs is the ground, and those between are left out."""
    with watched(0.6, LatentPreviewMethod.Latent2RGB) as watch:
        plain = _sample(unet("sd15"), clip("sd15"))
    own = watch.pictures
    assert len(own) == 4 and own[0].shape == (16, 24, 3)
    with watched(0.6, LatentPreviewMethod.Latent2RGB) as watch:
        heard = _sample(*listen(unet("sd15"), clip("sd15"), live_word="red house"))
    assert torch.equal(plain, heard)
    assert [step for step, preview in watch.updates if preview is not None] == [1, 3]
    assert (watch.updates[0][0], watch.updates[-1][0]) == (1, 4), "progress goes on"
    heated = watch.pictures[0][:341].astype(float)
    ground = np.asarray(latent_preview.Image.fromarray(own[0]).resize((512, 341), 2)).astype(float)
    assert 1 < np.abs(heated - ground).mean() < 120
    assert np.abs(heated - ground).max(2).min() < 3, "where there is no heat, the preview stays"


def case_what_a_user_does_wrong_is_a_sentence() -> None:
    """The host's previews go on, the picture and its maps are there."""
    model, encoder, nobody_s = unet("sd15"), clip("sd15"), "a blue house that no Record was told of"
    told, _ = listen(model, encoder, live_word="house")
    cases = [
        (
            PROMPT,
            listen(model, encoder, live_word="dragon"),
            "No live heat: 'dragon' is not in the prompt. Its words are: a, red",
        ),
        (nobody_s, (told, encoder), "No live heat: the words of this prompt are not known while it is sampled. Encode it"),
    ]
    for text, given, sentence in cases:
        plain = _sample(model, encoder, text=text)
        with watched(2.0, LatentPreviewMethod.Latent2RGB) as watch:
            heard = _sample(*given, text=text)
        assert torch.equal(plain, heard)
        assert len(watch.pictures) == 4 and all(one.shape == (16, 24, 3) for one in watch.pictures)
        assert sum(said.removeprefix("DAAM Lens: ").startswith(sentence) for said in watch.said) == 1, watch.said
        runs.RECORDINGS.recorded(heard[0])


def case_a_failure_ends_the_preview_and_nothing_else() -> None:
    """In the drawing: maps are there. In the sums: they may be half done, so there are none. The picture is always made."""
    plain = _sample(unet("sd15"), clip("sd15"))

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no ink")

    for owner, name, has_maps in ((live, "overlay", True), (session, "heat_so_far", False)):
        honest = getattr(owner, name)
        setattr(owner, name, broken)
        try:
            with watched(2.0, LatentPreviewMethod.Latent2RGB) as watch:
                heard = _sample(*listen(unet("sd15"), clip("sd15"), live_word="house"))
        finally:
            setattr(owner, name, honest)
        assert torch.equal(plain, heard)
        assert len(watch.pictures) == 4
        assert any("No live heat" in text and "RuntimeError" in text for text in watch.said)
        assert len(runs.maps_of(heard)) == 1 if has_maps else "RuntimeError" in refusal(heard)
        runs.RECORDINGS._kept.clear()


def case_an_interrupt_goes_through() -> None:
    """It arrives out of the progress bar, as in the host; afterwards everything is as it was."""
    with watched() as watch:

        def stop(value: int, total: int, preview: Any, **_: Any) -> None:
            watch.hook(value, total, preview)
            if value == 2:
                raise comfy.model_management.InterruptProcessingException

        comfy.utils.set_progress_bar_global_hook(stop)
        try:
            _sample(*listen(unet("sd15"), clip("sd15"), live_word="house"))
        except comfy.model_management.InterruptProcessingException:
            assert len(watch.updates) == 2
        else:
            raise AssertionError("the interrupt was lost")
    assert not live._EXCHANGE.locked()
    plain = _sample(unet("sd15"), clip("sd15"))
    with watched() as watch:
        assert torch.equal(plain, _sample(*listen(unet("sd15"), clip("sd15"), live_word="house")))
    assert len(watch.pictures) == 4


def case_a_transformer_and_a_video() -> None:
    """Of a video, the first frame's heat over its first frame."""
    model, encoder = transformer("flux")[0], text_encoder("flux")

    def flux(changed: Any, told: Any) -> torch.Tensor:
        latent = empty(64, 96, 1, 16)
        return ksampler(changed, encode(told, PROMPT), encode(told, ""), latent, cfg=1.0, scheduler="simple")

    plain = flux(model, encoder)
    with watched() as watch:
        assert torch.equal(plain, flux(*listen(model, encoder, live_word="house")))
    assert len(watch.pictures) == 2 and watch.pictures[0].shape[1] == 512
    model, encoder = transformer("wan")[0], text_encoder("wan")
    latent = {"samples": torch.zeros(1, 16, 3, 12, 20)}
    heats: list[torch.Tensor] = []
    honest = session.heat_so_far

    def kept(*given: Any) -> Any:
        heats.append(honest(*given))
        return heats[-1]

    def wan(changed: Any, told: Any) -> torch.Tensor:
        return ksampler(changed, encode(told, PROMPT), encode(told, ""), latent, cfg=3.0, scheduler="simple")

    plain = wan(model, encoder)
    session.heat_so_far = kept
    try:
        with watched() as watch:
            heard = wan(*listen(model, encoder, live_word="house"))
    finally:
        session.heat_so_far = honest
    assert torch.equal(plain, heard)
    assert len(watch.pictures) == 2
    first = runs.maps_of(heard)[0].select(frames=[0])
    expected = first.heat_map("house", tuple(heats[-1].shape)) / sum(first.num_terms.values())
    torch.testing.assert_close(heats[-1], expected, rtol=1e-4, atol=1e-7)
