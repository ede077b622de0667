"""`read_picture`: what the model is shown, by explicit arithmetic; what it finds in drawn scenes; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
)
from PIL import Image
from torch import Tensor

from daam_core import load_tiny, read_picture, trace
from daam_core.diffusers.noise_levels import process_of
from daam_core.diffusers.reading import _said
from daam_core.errors import BadArgument, BadPrompt, UnsupportedModel
from daam_core.prompt.concepts import concepts_prompt
from daam_core.studies.mask_bed_scenes import bed_scene
from daam_core.types import Image as Pixels

from .. import models
from . import transformer_pipelines as made

HEIGHT, WIDTH = 64, 96
LEVELS = [700, 300, 50]
PROMPT = made.PROMPTS[0]


def photo(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# -- what the model is shown ---------------------------------------------------------------------------------------------


class Shown:
    """What a model was called with: its latents and timesteps."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.latents: list[Tensor] = []
        self.times: list[float] = []
        self.contexts: list[Any] = []
        model.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, module: Any, args: Any, kwargs: Any) -> None:
        given = list(args) + [None] * 3
        latent = given[0] if given[0] is not None else kwargs.get("hidden_states", kwargs.get("x"))
        time = given[1] if given[1] is not None else kwargs.get("timestep", kwargs.get("t"))
        self.latents.append((torch.stack(list(latent)) if isinstance(latent, (list, tuple)) else latent).detach().clone())
        self.times.append(float(torch.as_tensor(time).flatten()[0]))
        self.contexts.append(kwargs.get("encoder_hidden_states"))


def patches(latent: Tensor) -> Tensor:
    """[1, c, h, w] -> [1, h/2 * w/2, 4 c], by loops: channel, then row and column inside the patch of 2 x 2."""
    _, c, h, w = latent.shape
    out = torch.zeros(1, (h // 2) * (w // 2), 4 * c)
    for y in range(h // 2):
        for x in range(w // 2):
            for channel in range(c):
                for dy in range(2):
                    for dx in range(2):
                        value = latent[0, channel, 2 * y + dy, 2 * x + dx]
                        out[0, y * (w // 2) + x, channel * 4 + dy * 2 + dx] = value
    return out


def plain(latent: Tensor) -> Tensor:
    return latent


def autoencoder_kl(**config: Any) -> AutoencoderKL:
    torch.manual_seed(2)
    return AutoencoderKL(
        block_out_channels=(8,) * 4, latent_channels=4, norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, **config,
    ).eval()  # fmt: skip


MEAN, DEVIATION = [0.1, -0.2, 0.3, 0.0], [0.5, 1.5, 2.0, 1.0]


def video_autoencoder(kind: Any) -> Any:
    torch.manual_seed(2)
    return kind(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=MEAN, latents_std=DEVIATION,
    ).eval()  # fmt: skip


def by_channel(raw: Tensor) -> Tensor:
    return torch.stack([(raw[0, i] - MEAN[i]) / DEVIATION[i] for i in range(4)])[None]


@dataclass
class Case:
    """A family: how to make it, (raw latent -> what stands for it in the model's call), and the time it is told at a level."""

    make: Callable[[], Any]
    autoencoder: Callable[[], Any]
    packed: Callable[[Tensor], Tensor]
    time: Callable[[float], float]
    flow: bool = True


CASES = {
    "flux": Case(
        made.flux, lambda: autoencoder_kl(scaling_factor=0.36, shift_factor=0.12),
        lambda raw: patches((raw - 0.12) * 0.36), lambda level: level / 1000,
    ),
    "sd3": Case(
        made.stable_diffusion_3, lambda: autoencoder_kl(scaling_factor=1.53, shift_factor=0.06),
        lambda raw: (raw - 0.06) * 1.53, lambda level: level,
    ),
    "qwen": Case(
        made.qwen_image, lambda: video_autoencoder(AutoencoderKLQwenImage),
        lambda raw: patches(by_channel(raw)[:, :, 0]), lambda level: level / 1000,
    ),
    "z-image": Case(
        made.z_image, lambda: autoencoder_kl(scaling_factor=0.36, shift_factor=0.12),
        lambda raw: ((raw - 0.12) * 0.36)[:, :, None], lambda level: 1 - level / 1000,
    ),
    "wan": Case(made.wan, lambda: video_autoencoder(AutoencoderKLWan), by_channel, lambda level: level),
    "pixart": Case(
        made.pixart, lambda: autoencoder_kl(scaling_factor=0.13), lambda raw: raw * 0.13, lambda level: level, flow=False
    ),
    "sd15": Case(lambda: models.pipeline("sd15"), lambda: None, plain, lambda level: level, flow=False),
    "sdxl": Case(lambda: models.pipeline("sdxl"), lambda: None, plain, lambda level: level, flow=False),
}  # fmt: skip


def pipeline_of(case: Case) -> Any:
    pipe = case.make()
    if (vae := case.autoencoder()) is not None:
        pipe.vae = vae
    return pipe


def raw_of(pipe: Any, picture: Pixels) -> Tensor:
    pixels = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    coded = pipe.vae.encode(pixels[:, :, None] if hasattr(pipe.vae.config, "z_dim") else pixels)
    return coded.latents if hasattr(coded, "latents") else coded.latent_dist.mode()


def kept_share(scheduler: Any, level: int) -> float:
    """sqrt of the product of 1 - beta up to a step, in float64, from the configuration alone."""
    config = scheduler.config
    ends = np.array([config.beta_start, config.beta_end], np.float64)
    roots = ends**0.5 if config.beta_schedule == "scaled_linear" else ends
    power = 2 if config.beta_schedule == "scaled_linear" else 1
    betas = np.linspace(float(roots[0]), float(roots[1]), config.num_train_timesteps) ** power
    return float(np.prod(1 - betas[: level + 1]) ** 0.5)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_model_is_shown_the_picture_at_each_level(name: str) -> None:
    case = CASES[name]
    pipe, picture = pipeline_of(case), photo()
    shown = Shown(pipe.unet if hasattr(pipe, "unet") else pipe.transformer)
    maps = read_picture(pipe, picture, PROMPT, noise=LEVELS, seed=5, size=(HEIGHT, WIDTH))
    clean = case.packed(raw_of(pipe, picture).float())
    generator = torch.Generator().manual_seed(5)
    assert len(shown.latents) == len(LEVELS)  # one pass each: nobody guides
    for latent, time, level in zip(shown.latents, shown.times, LEVELS, strict=True):
        noise = torch.randn(clean.shape if name != "z-image" else clean[:, :, 0].shape, generator=generator)
        noise = noise if name != "z-image" else noise[:, :, None]
        a = 1 - level / 1000 if case.flow else kept_share(pipe.scheduler, level)
        b = level / 1000 if case.flow else (1 - a * a) ** 0.5
        torch.testing.assert_close(latent, a * clean + b * noise, atol=1e-4, rtol=1e-4)
        assert time == pytest.approx(case.time(level), abs=1e-5)
    assert maps.words == ["a", "red", "house", "and", "a#2", "green", "tree"]
    assert maps.size == (HEIGHT, WIDTH) and np.array_equal(maps.picture, picture)
    assert maps.steps == len(LEVELS) and maps.timesteps == tuple(LEVELS)


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_the_pipeline_is_left_as_it_was(name: str) -> None:
    pipe = pipeline_of(CASES[name])

    def paint() -> Tensor:
        how = {"num_inference_steps": 2, "height": HEIGHT, "width": WIDTH, "output_type": "pt"}
        return torch.as_tensor(pipe(PROMPT, generator=torch.Generator().manual_seed(1), **how).images)

    before, held, config = paint(), dict(vars(pipe)), dict(pipe.config)
    inside = dict(vars(pipe.vae))
    read_picture(pipe, photo(), PROMPT, noise=[300], size=(HEIGHT, WIDTH))
    assert {k: v for k, v in vars(pipe).items() if k in held and not k.startswith("_")} == {
        k: v for k, v in held.items() if not k.startswith("_")
    }
    assert "prepare_latents" not in vars(pipe) and dict(pipe.config) == config and vars(pipe.vae).keys() == inside.keys()
    assert torch.equal(paint(), before)


def test_a_pipeline_that_starts_from_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would decode another latent than the autoencoder's: a wrong picture, so no map."""
    pipe = models.pipeline("sd15")
    below = type(pipe).prepare_latents
    monkeypatch.setattr(type(pipe), "prepare_latents", lambda *args, **kwargs: 2 * below(*args, **kwargs))
    held = dict(vars(pipe))
    with pytest.raises(UnsupportedModel, match="StableDiffusionPipeline decodes something else where its autoencoder makes"):
        read_picture(pipe, photo(), PROMPT, noise=[300], size=(HEIGHT, WIDTH))
    assert "prepare_latents" not in vars(pipe) and vars(pipe)["scheduler"] is held["scheduler"]


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (RuntimeError("unsupported memory format option ChannelsLast"), UnsupportedModel),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), RuntimeError),
        (MemoryError(), MemoryError),
    ],
)
def test_only_a_lack_of_memory_is_told_as_one(raised: Exception, seen: type[Exception]) -> None:
    """Every error whose text held the word passed through as the library's own."""
    with pytest.raises(seen) as told, _said(SimpleNamespace(), (8, 8)):
        raise raised
    assert type(told.value) is seen


def test_maps_are_those_of_a_trace_of_the_same_passes() -> None:
    """The recording is `trace`'s own: the same model called by hand with what it was shown gives the same maps."""
    pipe, picture = models.pipeline("sd15"), photo()
    maps = read_picture(pipe, picture, PROMPT, noise=[300, 100], seed=3, size=(HEIGHT, WIDTH))
    latent = raw_of(pipe, picture)
    generator = torch.Generator().manual_seed(3)
    with trace(pipe) as recording, torch.no_grad():
        context, _ = pipe.encode_prompt(PROMPT, "cpu", 1, False)
        for level in (300, 100):
            a = kept_share(pipe.scheduler, level)
            noisy = a * latent + (1 - a * a) ** 0.5 * torch.randn(latent.shape, generator=generator)
            pipe.unet(noisy, torch.tensor(level), encoder_hidden_states=context)
    by_hand = recording.heat_maps()
    for grid, sums in by_hand.sums.items():
        torch.testing.assert_close(maps.sums[grid], sums, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("scheduler", "process"), [(EulerDiscreteScheduler, "diffusion"), (DPMSolverMultistepScheduler, "diffusion")]
)
def test_the_sampler_makes_no_difference(scheduler: Any, process: str) -> None:
    pipe = models.pipeline("sd15")
    first = read_picture(pipe, photo(), PROMPT, noise=[300], size=(HEIGHT, WIDTH))
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    assert process_of(pipe.scheduler) == process
    again = read_picture(pipe, photo(), PROMPT, noise=[300], size=(HEIGHT, WIDTH))
    assert all(torch.equal(first.sums[grid], again.sums[grid]) for grid in first.sums)


def test_seeds_samples_and_details() -> None:
    pipe = models.pipeline("sd15")

    def read(**how: Any) -> Any:
        return read_picture(pipe, photo(), PROMPT, size=(HEIGHT, WIDTH), **{"noise": [200, 500], **how})

    one, same, other = read(seed=1), read(seed=1), read(seed=2)
    assert torch.equal(one["house"], same["house"]) and not torch.equal(one["house"], other["house"])
    assert one.timesteps == (500, 200)  # high noise first, whatever the order
    assert read(samples=2).timesteps == (500, 500, 200, 200)
    kept = read(seed=1, keep=("layers", "steps", "heads"))
    assert kept.heads is not None and kept.detail is not None
    torch.testing.assert_close(kept.steps_of("house").sum(0), one["house"], atol=1e-2, rtol=1e-2)


# -- what it finds -------------------------------------------------------------------------------------------------------


def iou(one: Tensor, truth: np.ndarray) -> float:
    mask = one.numpy()
    return float((mask & truth).sum() / max(1, (mask | truth).sum()))


@pytest.fixture(scope="module")
def tiny() -> Any:
    pipe = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(("kind", "least"), [("flat", 0.90), ("photo-like", 0.75)])
def test_drawn_scenes_are_found(tiny: Any, kind: str, least: float) -> None:
    found = []
    for number in (100, 101, 102):
        scene = bed_scene(kind, number)
        maps = read_picture(tiny, scene.image, scene.caption)
        found += [iou(maps.mask(word), mask) for word, mask in scene.masks.items()]
    assert np.mean(found) >= least


@pytest.mark.parametrize("size", [(121, 125), (90, 150)])
def test_sizes_that_fit_no_model_are_padded_and_cut_back(tiny: Any, size: tuple[int, int]) -> None:
    found = []
    for number in (100, 101):
        scene = bed_scene("flat", number, size)
        maps = read_picture(tiny, scene.image, scene.caption, size=size)
        assert maps.size == size and np.array_equal(maps.picture, scene.image)
        found += [iou(maps.mask(word), mask) for word, mask in scene.masks.items()]
    assert np.mean(found) >= 0.85


def test_a_large_picture_is_read_at_the_models_own_size(tiny: Any) -> None:
    scene = bed_scene("flat", 103, (300, 420))
    maps = read_picture(tiny, Image.fromarray(scene.image), scene.caption)
    assert maps.size == (300, 420) and maps.grid == (14, 19)  # 112 x 152 pixels, padded from 108 x 151
    assert np.mean([iou(maps.mask(word), mask) for word, mask in scene.masks.items()]) >= 0.85


def test_concepts_beside_a_prompt_and_alone(tiny: Any) -> None:
    scene = bed_scene("touching two colours", 104)
    first, second = scene.masks
    beside = read_picture(tiny, scene.image, f"a {first}", concepts=[second])
    assert beside.words == ["a", first] and beside.concepts == [second]
    assert beside.mask(second).shape == (128, 128) and beside.presence(second).score > 0
    alone = read_picture(tiny, scene.image, concepts=[first, second], seed=1)
    written = read_picture(tiny, scene.image, f"a {first}, a {second}", seed=1)
    assert alone.words == written.words and torch.equal(alone[second], written[second])
    assert concepts_prompt({"sky": "a photo of the sky", "x": "y"}) == "a photo of the sky, x"
    odd = read_picture(tiny, scene.image[:121, :125], f"a {first}", concepts=[second], size=(121, 125))
    assert odd.size == (121, 125) and tuple(odd.heat_map(second, (121, 125)).shape) == (121, 125)


# -- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"image": "house.png"}, BadArgument, "not str"),
        ({"image": np.zeros((8, 8, 4), np.uint8)}, BadArgument, r"not uint8 \[8, 8, 4\]"),
        ({"image": np.zeros((8, 8, 3), np.float32)}, BadArgument, "not float32"),
        ({"image": np.zeros((0, 8, 3), np.uint8)}, BadArgument, "not uint8"),
        ({"image": np.broadcast_to(np.uint8(0), (2**14, 2**14, 3))}, BadArgument, "16384 x 16384"),
        ({"image": np.zeros((1, 4000, 3), np.uint8)}, BadArgument, "too long and thin"),
        ({"prompt": " "}, BadPrompt, "empty"),
        ({"prompt": "", "concepts": []}, BadArgument, "concepts"),
        ({"noise": []}, BadArgument, "levels"),
        ({"noise": [0]}, BadArgument, "levels"),
        ({"noise": [float("nan")]}, BadArgument, "levels"),
        ({"noise": ["300"]}, BadArgument, "levels"),
        ({"samples": 0}, BadArgument, "samples"),
        ({"samples": 1000}, BadArgument, "256 passes"),
        ({"size": (4, 64)}, BadArgument, "size"),
        ({"size": (2**13, 2**13)}, BadArgument, "size"),
        ({"keep": "everything"}, BadArgument, "keep"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(how: dict[str, Any], error: type[Exception], says: str) -> None:
    given = {"image": photo(), "prompt": PROMPT, "size": None, **how}
    with pytest.raises(error, match=says):
        read_picture(models.pipeline("sd15"), given.pop("image"), given.pop("prompt"), **given)


def test_pipelines_that_cannot_read_are_refused() -> None:
    pipe = models.pipeline("sd15")
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    others = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    with pytest.raises(UnsupportedModel, match="from text to picture"):
        read_picture(others, photo(), PROMPT, size=(HEIGHT, WIDTH))
    pipe.scheduler = EDMEulerScheduler()
    with pytest.raises(UnsupportedModel, match="EDMEulerScheduler adds noise in a way"):
        read_picture(pipe, photo(), PROMPT, size=(HEIGHT, WIDTH))
    without = made.flux()
    with pytest.raises(UnsupportedModel, match="no autoencoder"):
        read_picture(without, photo(), PROMPT, size=(HEIGHT, WIDTH))


def test_an_autoencoder_that_is_not_the_pipelines_is_refused() -> None:
    """Its latents have other channels than the noise that the pipeline draws."""
    pipe = pipeline_of(CASES["sd3"])
    torch.manual_seed(0)
    pipe.vae = AutoencoderKL(
        block_out_channels=(8,) * 4, latent_channels=8, norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    with pytest.raises(UnsupportedModel, match=r"noise of shape \[1, 4, 8, 12\] where its autoencoder makes \[1, 8, 8, 12\]"):
        read_picture(pipe, photo(), PROMPT, noise=[300], size=(HEIGHT, WIDTH))


def test_a_size_that_a_model_cannot_take_is_told_with_its_own() -> None:
    """A long picture has a side that the transformer inside has no place for, although nobody asked for a size."""
    pipe = load_tiny("transformer")
    pipe.set_progress_bar_config(disable=True)
    says = r"a picture of 368 x 48 pixels .* \(ValueError\)\. Its own size is 128 x 128: give another size, or cut a long"
    with pytest.raises(UnsupportedModel, match=says):
        read_picture(pipe, np.zeros((50, 400, 3), np.uint8), "a red house", noise=[100])
