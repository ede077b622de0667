"""Read Picture in the real host: what the model is shown, what is found, what is left behind, what is refused."""

from __future__ import annotations

import importlib
from typing import Any

import graphs
import torch
import zoo
from cases_nodes import refused, run

pack = "daam-lens"
bed = importlib.import_module(f"{pack}.daam_core.studies.mask_bed_scenes")
level_sampler = importlib.import_module(f"{pack}.nodes.capture.level_sampler")
Options = importlib.import_module(f"{pack}.nodes.capture.record_options").Options
StoreOptions = importlib.import_module(f"{pack}.daam_core.capture.buffers").StoreOptions


def picture(scene: Any) -> torch.Tensor:
    """IMAGE of a drawn scene."""
    return torch.from_numpy(scene.image.copy()).float()[None] / 255


def overlap(mask: torch.Tensor, truth: Any) -> float:
    ours, theirs = mask > 0.5, torch.from_numpy(truth.copy())
    return float((ours & theirs).sum() / (ours | theirs).sum())


class Shown:
    """What a diffusion model is called with while this is entered."""

    def __init__(self, model: Any) -> None:
        self._network = model.model.diffusion_model
        self.latents: list[torch.Tensor] = []

    def __enter__(self) -> list[torch.Tensor]:
        self._hook = self._network.register_forward_pre_hook(lambda _m, args: self.latents.append(args[0].clone()))
        return self.latents

    def __exit__(self, *_: object) -> None:
        self._hook.remove()


def case_drawn_scenes_are_found() -> None:
    model, clip, vae = run("TinyModel")
    run("ReadPicture", model, clip, vae, torch.zeros(1, 64, 64, 3), "a house", "100")  # ComfyUI loads the model
    for kind, least in (("flat", 0.85), ("photo-like", 0.75)):
        found = []
        for number in (120, 121):
            scene = bed.bed_scene(kind, number)
            before = graphs.state(model)
            (maps,) = run("ReadPicture", model, clip, vae, picture(scene), scene.caption)
            assert graphs.state(model) == before
            assert maps[0].steps == 4 and (maps[0].picture == scene.image).all()
            for noun, truth in scene.masks.items():
                (mask, *_) = run("Mask", maps, noun)
                found.append(overlap(mask[0], truth))
        assert sum(found) / len(found) >= least, (kind, found)


def case_odd_sizes_and_batches_are_cut_back() -> None:
    model, clip, vae = run("TinyModel")
    scenes = [bed.bed_scene("flat", number, (121, 141)) for number in (122, 123)]
    images = torch.cat([picture(scene) for scene in scenes])
    (maps,) = run("ReadPicture", model, clip, vae, images, scenes[0].caption, "300 100", detail="steps")
    assert [one.size for one in maps] == [(121, 141)] * 2
    assert tuple(maps[0].mask(next(iter(scenes[0].masks))).shape) == (121, 141)
    assert maps[0].timesteps[0] > maps[0].timesteps[1]
    (alone,) = run("ReadPicture", model, clip, vae, images[:1], scenes[0].caption, "300 100")
    word = next(iter(scenes[0].masks))
    # The noise of the first of two pictures is another one's than that of one alone: the maps are alike, not the same.
    assert overlap(maps[0].mask(word).float(), alone[0].mask(word).numpy()) > 0.8
    (small,) = run("ReadPicture", model, clip, vae, images[:1], scenes[0].caption, megapixels=0.01)
    assert small[0].size == (121, 141) and small[0].grid[0] < maps[0].grid[0]


def case_the_model_is_shown_the_picture_at_each_level() -> None:
    model, clip, vae = run("TinyModel")
    scene = bed.bed_scene("flat", 124)
    clean = vae.encode(picture(scene))
    alphas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square().neg().add(1).cumprod(0)
    with Shown(model) as latents:
        run("ReadPicture", model, clip, vae, picture(scene), scene.caption, "300, 100", seed=7)
    assert len(latents) == 2
    generator = torch.Generator().manual_seed(7)
    for latent, level in zip(latents, (300, 100), strict=True):
        noise = torch.randn(clean.shape, generator=generator)
        expected = alphas[level] ** 0.5 * clean + (1 - alphas[level]) ** 0.5 * noise
        assert torch.allclose(latent.double(), expected.double(), atol=1e-3), float((latent - expected).abs().max())


def case_models_of_flow_are_shown_it_too() -> None:
    for kind in ("flux", "sd3", "zimage"):
        built = zoo.transformer(kind)
        if built is None:  # older versions do not have them all
            assert kind == "zimage"
            continue
        model, channels, width, pooled = built
        generator = torch.Generator().manual_seed(1)
        extra = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
        conditioning = [[torch.randn(1, zoo.TEXT, width, generator=generator), extra]]
        clean = torch.randn(2, channels, 12, 20, generator=generator)
        with Shown(model) as latents:
            maps, _ = level_sampler.read_latent(
                model, clean, conditioning, [600, 300], 3, Options(StoreOptions(False, False, False, True))
            )
        assert len(maps) == 2 and maps[0].steps == 2 and maps[0].grid == (6, 10)
        start = model.get_model_object("latent_format").process_in(clean)
        own = torch.Generator().manual_seed(3)
        for latent, share in zip(latents, (0.6, 0.3), strict=True):
            noise = torch.randn(clean.shape, generator=own)
            assert torch.allclose(latent.float(), (1 - share) * start + share * noise, atol=1e-4), kind


def case_a_record_before_it_gives_way_and_finds_nothing_of_it() -> None:
    model, clip, vae = run("TinyModel")
    recorded, told = run("Record", model, clip)
    scene = bed.bed_scene("flat", 125)
    (maps,) = run("ReadPicture", recorded, told, vae, picture(scene), scene.caption)
    assert maps[0].words
    latent = {"samples": vae.encode(picture(scene))}
    assert "No recording belongs to this latent" in refused("HeatMaps", latent)


def case_what_cannot_be_read_is_said() -> None:
    model, clip, vae = run("TinyModel")
    image = torch.zeros(1, 64, 64, 3)
    assert "The text is empty; say what is in the picture" in refused("ReadPicture", model, clip, vae, image, " ")
    assert "levels from 1 to 999" in refused("ReadPicture", model, clip, vae, image, "a house", "many")
    assert "levels from 1" in refused("ReadPicture", model, clip, vae, image, "a house", "0, 300")
    assert "passes in all" in refused("ReadPicture", model, clip, vae, image, "a house", "500, 300, 200, 100, 50", samples=64)
    assert "too much to read at once" in refused("ReadPicture", model, clip, vae, torch.zeros(8, 1024, 1024, 3), "a house")
    grey = torch.rand(1, 64, 64, 1)
    (read,) = run("ReadPicture", model, clip, vae, grey, "a house", "100")
    (same,) = run("ReadPicture", model, clip, vae, grey.expand(-1, -1, -1, 3), "a house", "100")
    assert torch.equal(read[0]["house"], same[0]["house"]), "a picture of one channel is grey"
    edm = graphs.node("nodes_model_advanced", "ModelSamplingContinuousEDM")(model, "v_prediction", 120.0, 0.002)[0]
    assert "adds noise in a way that is not known" in refused("ReadPicture", edm, clip, vae, image, "a house")
