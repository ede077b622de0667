"""What masks are compared with: the right pictures, the right masks, one sentence where there is none."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from daam_core import trace
from daam_core.errors import BadArgument
from daam_core.studies import annotated_folder as folders
from daam_core.studies.ground_truth import ACCURACY, observe, segmented, truth_units, world_nouns
from daam_core.studies.model_runner import NOISE_LEVELS, ModelRunner
from daam_core.tiny.diffusion import noise_to
from daam_core.tiny.load import load_tiny
from daam_core.tiny.scenes import scene_at

from ..core.models import pipeline
from .fakes import options


def truth_options(out: Path, **changed: Any) -> argparse.Namespace:
    given: dict[str, Any] = {
        "truth": "generated", "style": "flat", "words": None, "judge_scenes": 2, "route": "painted", "noise_from": "cpu",
        "limit": 1,
    }  # fmt: skip
    return options(out, **{**given, **changed})


@pytest.fixture(scope="module")
def runner() -> ModelRunner:
    return ModelRunner(how={"num_inference_steps": 3})


def test_denoised_is_one_step_at_each_noise_level(runner: ModelRunner) -> None:
    """Against the steps written out with the embedded model's own formulas."""
    scene = scene_at(5, 2)
    sample = runner.denoised(scene.image, scene.caption, 11)
    pipe = load_tiny()
    latent = pipe.vae.encode(torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 127.5 - 1).latents
    dice = torch.Generator().manual_seed(11)
    with torch.no_grad(), trace(pipe) as recording:
        context = pipe.encode_prompt(scene.caption, "cpu", 1, False)[0]
        for level in NOISE_LEVELS:
            t = torch.tensor([level])
            noise = torch.randn(latent.shape, generator=dice)
            pipe.unet(noise_to(latent, noise, t), t, encoder_hidden_states=context)
        pipe.maybe_free_model_hooks()
    expected = recording.heat_maps()
    assert sample.maps.steps == len(NOISE_LEVELS)
    noun = scene.objects[0].noun
    torch.testing.assert_close(sample.maps.heat_map(noun), expected.heat_map(noun), rtol=1e-4, atol=1e-4)
    assert np.array_equal(sample.image, scene.image)


def test_denoised_works_with_sdxl_s_additional_conditions() -> None:
    runner = ModelRunner("sdxl")
    runner.__dict__["pipe"] = pipeline("sdxl")
    sample = runner.denoised(np.zeros((128, 192, 3), np.uint8), "a red house", 0, levels=(500,))
    assert sample.maps.heat_map("house", (128, 192)).shape == (128, 192)
    with pytest.raises(BadArgument, match="multiple of 8"):
        runner.denoised(np.zeros((100, 128, 3), np.uint8), "a red house", 0)


def test_the_same_seed_is_the_picture_of_the_command_line(runner: ModelRunner) -> None:
    pipe = load_tiny()
    picture = pipe("a red house", num_inference_steps=3, generator=torch.Generator().manual_seed(4)).images[0]
    sample = runner.picture("a red house", 4, keep=("heads",))
    assert np.array_equal(sample.image, np.asarray(picture))
    assert sample.castorini is not None and sample.maps is sample.paper
    assert ModelRunner(aggregation="castorini", how=runner.how).picture("a red house", 4).maps.aggregation == "castorini"


def test_rendered_scenes_have_their_exact_masks(runner: ModelRunner, tmp_path: Path) -> None:
    asked = truth_options(tmp_path, truth="rendered", style="shaded")
    units = truth_units(asked)
    assert [unit.content["split"] for unit in units[:-1]] == ["one object", "two objects", "held-out one", "held-out two"]
    assert units[-1].key == ACCURACY
    two = units[1]
    seen = observe(two, runner, asked)
    scene = two.content["scene"]
    drawn = scene_at(scene["seed"], scene["index"], two=1.0, style="shaded")
    assert two.content["prompt"] == drawn.caption
    assert list(seen.masks) == [one.noun for one in drawn.objects]
    for one in drawn.objects:
        assert np.array_equal(seen.masks[one.noun].numpy(), one.mask)
    assert seen.segmented is not None


def test_generated_pictures_have_the_segmenter_s_masks(runner: ModelRunner, tmp_path: Path) -> None:
    """Only nouns of the prompt count; those that are not to be seen are named."""
    asked = truth_options(tmp_path)
    unit = truth_units(asked)[1]
    seen = observe(unit, runner, asked)
    judged = segmented(seen.sample.image)
    nouns = world_nouns(unit.content["prompt"])
    assert len(nouns) == 2
    assert set(seen.masks) | set(seen.unseen) == set(nouns)
    for word, mask in seen.masks.items():
        assert torch.equal(mask, judged[word])


def test_words_limit_what_is_scored(runner: ModelRunner, tmp_path: Path) -> None:
    asked = truth_options(tmp_path, truth="rendered")
    unit = truth_units(asked)[1]
    first = next(iter(observe(unit, runner, asked).masks))
    only = argparse.Namespace(**{**vars(asked), "words": [first]})
    assert list(observe(unit, runner, only).masks) == [first]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"words": ["dragon", "unicorn"]}, "None of the 4 prompts has a word of --words"),
        ({"words": []}, "holds no word"),
        ({"truth": "imagined"}, "no folder 'imagined'"),
        ({"truth": "rendered", "prompts": Path("x.txt")}, "captions of their own"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_painted(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        truth_units(truth_options(tmp_path, **changed))


def test_pictures_of_another_size_are_not_of_the_segmenter_s_world() -> None:
    with pytest.raises(BadArgument, match="--truth FOLDER"):
        segmented(np.zeros((512, 512, 3), np.uint8))


def test_nouns_of_a_prompt() -> None:
    assert world_nouns("A red House, and the tree-house; a dragon") == ["house", "tree"]


# -- folders ---------------------------------------------------------------------------------------------------------


def own_folder(folder: Path, size: tuple[int, int] = (128, 128)) -> Path:
    """A rendered scene as a user's picture with its masks; the picture's sides need not be multiples of 8."""
    scene = scene_at(3, 1, two=1.0)
    folder.mkdir()
    Image.fromarray(scene.image).resize((size[1], size[0])).save(folder / "one.png")
    (folder / "one.txt").write_text(scene.caption + "\n", encoding="utf-8")
    for one in scene.objects:
        Image.fromarray((one.mask * 255).astype(np.uint8)).resize((size[1], size[0])).save(folder / f"one.{one.noun}.png")
    Image.fromarray(np.full((128, 128), 255, np.uint8)).save(folder / "one.dragon.png")
    (folder / "readme.txt").write_text("not a prompt of a picture", encoding="utf-8")
    return folder


def test_own_pictures_with_masks(runner: ModelRunner, tmp_path: Path) -> None:
    asked = truth_options(tmp_path, truth=str(own_folder(tmp_path / "mine", (130, 133))))
    (unit,) = truth_units(asked)
    assert unit.key == "one"
    seen = observe(unit, runner, asked)
    assert seen.sample.image.shape == (128, 128, 3)
    assert {mask.shape for mask in seen.masks.values()} == {(128, 128)}
    scene = scene_at(3, 1, two=1.0)
    assert set(seen.masks) == {one.noun for one in scene.objects} | {"dragon"}
    noun = scene.objects[0]
    agree = (seen.masks[noun.noun].numpy() == noun.mask).mean()
    assert agree > 0.97  # resized there and back
    assert seen.segmented is None


def test_a_changed_mask_is_other_content(tmp_path: Path) -> None:
    """Results of old masks are not taken for results of new ones."""
    folder = own_folder(tmp_path / "mine")
    asked = truth_options(tmp_path, truth=str(folder))
    before = truth_units(asked)[0].content
    Image.fromarray(np.zeros((128, 128), np.uint8)).save(folder / "one.dragon.png")
    assert truth_units(asked)[0].content != before


def experiment(folder: Path, runner: ModelRunner, prompt: str, seed: int) -> Path:
    """One picture in the layout of castorini/daam's experiments: a mask's alpha channel is what counts."""
    folder.mkdir(parents=True)
    (folder / "prompt.txt").write_text(prompt, encoding="utf-8")
    (folder / "seed.txt").write_text(str(seed), encoding="utf-8")
    mask = np.zeros((128, 128, 4), np.uint8)
    mask[:64, :, 3] = 255
    mask[..., :3] = 255  # colour everywhere: only opacity tells
    Image.fromarray(mask).save(folder / "house.gt.png")
    Image.fromarray(runner.picture(prompt, seed).image).save(folder / "output.png")
    return folder


def test_castorini_experiments_are_painted_again(runner: ModelRunner, tmp_path: Path) -> None:
    experiment(tmp_path / "gen" / "17", runner, "a red house", 4)
    asked = truth_options(tmp_path, truth=str(tmp_path / "gen"))
    (unit,) = truth_units(asked)
    seen = observe(unit, runner, asked)
    assert unit.key == "17"
    assert seen.difference == 0.0
    expected = torch.zeros(128, 128, dtype=torch.bool)
    expected[:64] = True
    assert torch.equal(seen.masks["house"], expected)
    other = dataclasses.replace(unit, content={**unit.content, "seed": 5})
    assert observe(other, runner, asked).difference > 1


def test_castorini_experiments_can_be_taken_as_they_are(runner: ModelRunner, tmp_path: Path) -> None:
    folder = experiment(tmp_path / "gen" / "17", runner, "a red house", 4)
    (folder / "seed.txt").unlink()
    with pytest.raises(BadArgument, match=r"no seed\.txt"):
        truth_units(truth_options(tmp_path, truth=str(tmp_path / "gen")))
    asked = truth_options(tmp_path, truth=str(tmp_path / "gen"), route="denoised")
    seen = observe(truth_units(asked)[0], runner, asked)
    assert seen.sample.maps.steps == len(NOISE_LEVELS)
    (folder / "output.png").unlink()
    with pytest.raises(BadArgument, match=r"no output\.png"):
        truth_units(asked)


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="no picture with a mask"):
        truth_units(truth_options(tmp_path, truth=str(tmp_path)))


def test_a_mask_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(BadArgument, match=r"can be read|cannot be read"):
        folders.read_mask(tmp_path / "x.png", (8, 8))


def test_a_picture_and_its_mask_are_seen_as_a_viewer_shows_them(tmp_path: Path) -> None:
    """Turned by their camera, of 16 bits, with a palette, with a broken end: the same rules as for a picture that is read."""
    drawn = np.zeros((4, 8), np.uint8)
    drawn[:, :2] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # the top of the file is the right of what is shown
    Image.fromarray(drawn).save(tmp_path / "turned.png", exif=turned)
    shown = folders.read_mask(tmp_path / "turned.png", (8, 4))
    assert shown[:2].all() and not shown[2:].any()
    Image.fromarray(np.where(drawn, 65535, 300).astype(np.uint16)).save(tmp_path / "deep.png")
    palette = Image.fromarray((drawn > 0).astype(np.uint8))
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.save(tmp_path / "clear.png", transparency=0)
    for name in ("deep.png", "clear.png"):
        assert torch.equal(folders.read_mask(tmp_path / name, (4, 8)), torch.from_numpy(drawn > 0)), name
    whole = (tmp_path / "deep.png").read_bytes()
    for end in range(0, len(whole) - 24, 3):  # without its last part it has all pixels
        (tmp_path / "cut.png").write_bytes(whole[:end])
        with pytest.raises(BadArgument, match=r"can be read|cannot be read"):
            folders.read_mask(tmp_path / "cut.png", (4, 8))
