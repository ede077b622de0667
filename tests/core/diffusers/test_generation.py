"""Settings of a person, said to pipelines that call them by different names; folders of models, of parts and of blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from daam_core.diffusers import loading
from daam_core.diffusers.call_options import TRUE_GUIDANCE, call_options
from daam_core.diffusers.generation import Settings, defaults, generate_recorded
from daam_core.errors import BadArgument, UnsupportedModel

from . import detour_pipelines as detour
from . import transformer_pipelines as made


def test_guidance_goes_to_the_kind_that_a_negative_prompt_needs() -> None:
    flux, qwen, sd3 = made.flux(), made.qwen_image(), made.stable_diffusion_3()
    assert call_options(flux, Settings(guidance=3.0))["guidance_scale"] == 3.0
    both = call_options(flux, Settings(guidance=3.0, negative="dark"))
    assert both["true_cfg_scale"] == 3.0 and "guidance_scale" not in both
    assert call_options(flux, Settings(negative="dark"))["true_cfg_scale"] == TRUE_GUIDANCE
    assert "true_cfg_scale" not in call_options(qwen, Settings(negative="dark"))  # its own default heeds the negative prompt
    assert call_options(sd3, Settings(guidance=3.0, negative="dark"))["guidance_scale"] == 3.0


def test_what_a_pipeline_does_not_take_is_refused_by_a_sentence() -> None:
    with pytest.raises(BadArgument, match="Flux3ModularPipeline takes no guidance in its call: leave it out"):
        call_options(detour.flux3(), Settings(guidance=3.0))


@pytest.mark.parametrize("make", [made.flux, made.qwen_image, made.pixart, made.wan, detour.flux3, detour.ltx2])
def test_every_kind_of_pipeline_says_what_it_does_by_default(make: Any) -> None:
    usual = defaults(make())
    assert usual.steps and usual.guidance is not None and usual.size is not None and usual.size[0] >= 64


def test_the_picture_of_a_modular_pipeline_with_its_maps() -> None:
    pipe = detour.flux3()
    settings = Settings(steps=2, size=(64, 96), negative="dark")
    options = call_options(pipe, settings)
    pipe_call = type(pipe).__call__

    def with_layers(self: Any, *args: Any, **kwargs: Any) -> Any:  # the small encoder has three
        return pipe_call(self, *args, text_encoder_out_layers=(0, 1, 2), **kwargs)

    kind = type("Small", (type(pipe),), {"__call__": with_layers})
    pipe.__class__ = kind
    picture, recording = generate_recorded(pipe, "a red house", settings)
    assert picture.shape == (64, 96, 3) and picture.dtype == np.uint8 and "output" in options
    assert recording.heat_maps().words == ["a", "red", "house"]


class _Video:
    """A pipeline's output with two videos of three frames."""

    frames = [[Image.new("RGB", (96, 64), (10 * i, 0, 0)) for i in range(3)]] * 2


def test_of_a_video_the_middle_frame_is_shown() -> None:
    from daam_core.diffusers.generation import _one_picture

    assert _one_picture(None, _Video())[0, 0, 0] == 10
    frames = np.stack([np.full((64, 96, 3), i / 4, np.float32) for i in range(3)])
    assert _one_picture(None, (frames[None],))[0, 0, 0] == round(255 / 4)
    with pytest.raises(UnsupportedModel, match="gave out no picture"):
        _one_picture(None, ([],))


def test_what_stops_a_pipeline_while_it_paints_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged scheduler or tokenizer shows itself only here, as any kind of error."""
    pipe = made.flux()
    for error in (ZeroDivisionError("float division by zero"), TypeError("not all arguments"), RuntimeError("shape '[2]'")):

        def fails(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(type(pipe), "check_inputs", fails)
        with pytest.raises(UnsupportedModel, match=r"stopped while it painted \(\w+Error\), with .*: steps 2") as told:
            generate_recorded(pipe, "a red house", Settings(steps=2))
        assert str(error) not in str(told.value) and told.value.__cause__ is error
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
    monkeypatch.setattr(type(pipe), "check_inputs", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(RuntimeError, match="allocate memory"):  # whoever called says what to do about it
        generate_recorded(pipe, "a red house", Settings(steps=2))


# -- loading ------------------------------------------------------------------------------------------------------------


def test_a_folder_with_a_transformer_is_loaded_and_painted_from_the_command_line(tmp_path: Path) -> None:
    from daam_core.cli import main

    folder = tmp_path / "model"
    made.saved_pixart().save_pretrained(folder)
    where = ["--model", str(folder), "--out", str(tmp_path), "--device", "cpu"]
    assert main(["generate", "a red house", *where, "--negative", "dark", "--steps", "1", "--size", "64x64"]) == 0
    assert next(tmp_path.glob("*.png")).is_file()


def test_settings_that_a_pipeline_refuses_end_in_a_sentence() -> None:
    with pytest.raises(BadArgument, match="PixArtSigmaPipeline refused these settings: size 64 x 104"):
        generate_recorded(made.pixart(), "a red house", Settings(steps=1, size=(64, 104)))


def test_a_folder_of_blocks_is_known_by_its_index(tmp_path: Path) -> None:
    assert not loading._is_modular(str(tmp_path))
    (tmp_path / "modular_model_index.json").write_text(json.dumps({"_class_name": "Flux3ModularPipeline"}))
    assert loading._is_modular(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{}")
    assert not loading._is_modular(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "paints"),
    [
        ("FluxPipeline", True), ("FluxImg2ImgPipeline", True), ("StableDiffusionInpaintPipeline", True),
        ("WanPipeline", False), ("LTXPipeline", False), ("NobodysPipeline", False),
    ],
)  # fmt: skip
def test_which_saved_pipelines_paint_from_a_text(name: str, paints: bool) -> None:
    assert loading._paints_from_text({"_class_name": name}) == paints
