"""Presence by denoising error against the sum written out, on real pipelines with random weights."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F

from daam_core import load_tiny
from daam_core.diffusers.presence import presence_by_denoising
from daam_core.errors import BadArgument, UnsupportedModel
from tests.core import models


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (64, 128, 3), np.uint8)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_scores_are_the_errors_written_out(picture: np.ndarray, prediction: str) -> None:
    pipe = models.pipeline("small")
    pipe.scheduler.register_to_config(prediction_type=prediction)
    found = presence_by_denoising(pipe, picture, ["moon", "red boat"], noise=[500, 100], seed=4)
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    generator = torch.Generator().manual_seed(4)
    totals = []
    with torch.no_grad():
        clean = pipe.vae.encode(pixels).latents.double() * pipe.vae.config.scaling_factor
        states = pipe.encode_prompt(["a picture", "a moon", "a red boat"], "cpu", 1, False)[0]
        for level in (500, 100):
            share = float(pipe.scheduler.alphas_cumprod[level])
            noise = torch.randn(clean.shape, generator=generator).double()
            noisy = share**0.5 * clean + (1 - share) ** 0.5 * noise
            true = {
                "epsilon": noise,
                "v_prediction": share**0.5 * noise - (1 - share) ** 0.5 * clean,
                "sample": clean,
            }[prediction]
            each = [pipe.unet(noisy.float(), level, encoder_hidden_states=one[None]).sample.double() for one in states]
            totals.append(torch.stack([(x - true).square().mean(1)[0] for x in each]))
    total = torch.stack(totals).sum(0)
    for label, row in (("moon", 1), ("red boat", 2)):
        padded = F.pad((total[0] - total[row])[None], (1, 1, 1, 1), value=float("nan"))[0]
        windows = padded.unfold(0, 3, 1).unfold(1, 3, 1).flatten(-2)
        gained = windows.nanmean(-1).flatten().sort(descending=True).values
        best = float(gained[: round(0.04 * len(gained))].mean() / total[0].mean())
        assert found[label] == pytest.approx(best, rel=1e-3, abs=1e-5)


def test_the_model_inside_tells_a_house_from_what_is_not_there() -> None:
    from daam_core.tiny.scenes import scene_at

    scene = scene_at(990_002, 4, two=1.0)
    nouns = ["house", "tree", "sun", "moon", "star", "boat", "fish", "mushroom", "balloon", "flower", "car", "heart"]
    scores = presence_by_denoising(load_tiny(), PIL.Image.fromarray(scene.image), nouns)
    there = {one.noun for one in scene.objects}
    assert set(sorted(scores, key=scores.__getitem__)[-len(there) :]) == there


def test_sdxl_is_told_of_each_text_and_its_size(picture: np.ndarray) -> None:
    found = presence_by_denoising(models.pipeline("sdxl"), picture, [f"thing {i}" for i in range(20)], noise=[300])
    assert len(found) == 20 and len({round(x, 9) for x in found.values()}) > 1


def test_what_cannot_be_is_said(picture: np.ndarray) -> None:
    pipe = models.pipeline("small")
    with pytest.raises(BadArgument):
        presence_by_denoising(pipe, picture, [])
    with pytest.raises(BadArgument):
        presence_by_denoising(pipe, picture, "moon", noise=[0])
    with pytest.raises(BadArgument, match="size is"):
        presence_by_denoising(pipe, picture, "moon", size=(4, 4))
    pipe.scheduler.register_to_config(prediction_type="something")
    with pytest.raises(UnsupportedModel, match="predicts is not known"):
        presence_by_denoising(pipe, picture, "moon")
    pipe.unet = None
    with pytest.raises(UnsupportedModel, match="no UNet"):
        presence_by_denoising(pipe, picture, "moon")
