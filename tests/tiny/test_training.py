"""Training can be killed: what was resumed equals what was not. The formulas it learns by are the papers'."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from daam_core.errors import BadArgument, CannotWrite
from daam_core.tiny import autoencoder, checkpoint, diffusion, latents, loop, optim, unet
from daam_core.tiny import text_encoder as text
from daam_core.tiny.checkpoint import read_state, write_state
from daam_core.tiny.load import load_tiny
from daam_core.tiny.tokenizer import build_tokenizer
from daam_core.tiny.train import Settings, finished, load_autoencoder, load_unet, rest, train
from daam_core.tiny.warm_start import TEACHER, start_from_shipped

CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for the power going off."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> latents.LatentCache:
    folder = tmp_path_factory.mktemp("cache")
    tokenizer = build_tokenizer(folder / "tokenizer")
    torch.manual_seed(0)
    path = folder / latents.FILE
    latents.write_latents(path, autoencoder.make_autoencoder(8), tokenizer, CPU, print, count=12, batch=8)
    return latents.LatentCache.load(path, text.make_text_encoder(tokenizer), tokenizer)


def four_steps(cache: latents.LatentCache, work: Path, kill_at: int | None = None) -> dict[str, torch.Tensor]:
    stage = unet.UNetStage(cache, CPU, replace(unet.RECIPE, images=8, batch=2, warm_up=2), compiled=False)
    inner, count = stage.loss, iter(range(100))

    def loss(*args: Any) -> Any:
        if next(count) == kill_at:
            raise Killed
        return inner(*args)

    stage.loss = loss
    loop.train_stage(stage, work, lambda _: None, every=0.0)
    return checkpoint.module_tensors({"unet": stage.unet, "ema": stage.average})


def test_a_killed_run_goes_on_to_the_same_numbers(cache: latents.LatentCache, tmp_path: Path) -> None:
    straight = four_steps(cache, tmp_path / "straight")
    with pytest.raises(Killed):
        four_steps(cache, tmp_path / "killed", kill_at=2)
    resumed = four_steps(cache, tmp_path / "killed")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    torch.manual_seed(unet.RECIPE.seed)
    start = unet.make_unet().state_dict()
    assert not torch.equal(start["conv_in.weight"], straight["unet/conv_in.weight"])


def test_fewer_images_end_a_run_at_once(cache: latents.LatentCache, tmp_path: Path) -> None:
    four_steps(cache, tmp_path)
    lines: list[str] = []
    stage = unet.UNetStage(cache, CPU, replace(unet.RECIPE, images=4, batch=2), compiled=False)
    progress = loop.train_stage(stage, tmp_path, lines.append)
    assert progress.images == 8
    assert "done" in lines[-1]


def test_the_text_stage_learns(tmp_path: Path) -> None:
    stage = text.TextStage(build_tokenizer(tmp_path / "tokenizer"), CPU, replace(text.RECIPE, images=32 * 24, batch=32))
    first = float(stage.loss(loop.Generators.of(5, 0), 32, 0.0)[0].detach())
    loop.train_stage(stage, tmp_path, lambda _: None)
    assert float(stage.loss(loop.Generators.of(5, 0), 32, 0.0)[0].detach()) < 0.75 * first


def test_checkpoints_hold_no_pickle_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    layer = torch.nn.Linear(3, 2)
    optimiser = optim.adamw(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    checkpoint.write_state(path, {**checkpoint.optimiser_tensors([optimiser])}, {"step": 3, "seconds": 1.5})
    tensors, facts = checkpoint.read_state(path)
    other = optim.adamw(torch.nn.Linear(3, 2).parameters())
    checkpoint.load_optimisers([other], tensors)
    assert facts == {"step": 3, "seconds": 1.5}
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
    kept, found = (list(o.state.values()) for o in (optimiser, other))
    assert all(torch.equal(a[k], b[k]) for a, b in zip(kept, found, strict=True) for k in a)


def test_muon_steps_along_an_orthogonal_matrix() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(6, 20) * torch.logspace(0, -2, 6)[:, None]
    update = optim.orthogonalise(torch.stack([matrix, -matrix]), iterations=8)
    assert update.shape == (2, 6, 20)
    tall = optim.orthogonalise(matrix.T[None], iterations=8)
    torch.testing.assert_close(tall[0].T, update[0], atol=0.05, rtol=0.05)
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_the_rate_rises_holds_and_falls() -> None:
    rates = [optim.cosine(step, step / 1000, 1e-3, 100, 0.35) for step in range(1001)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[150] == rates[340] == pytest.approx(1e-3)
    assert rates[1000] == pytest.approx(1e-5)
    assert all(a >= b for a, b in zip(rates[350:], rates[351:], strict=False))


def test_noise_and_velocity_are_those_of_diffusers() -> None:
    scheduler = DDPMScheduler(
        beta_start=diffusion.BETA_START,
        beta_end=diffusion.BETA_END,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
    )
    x0, noise = torch.randn(5, 4, 16, 16), torch.randn(5, 4, 16, 16)
    t = torch.tensor([0, 100, 500, 900, 999])
    noisy, v = diffusion.noise_to(x0, noise, t), diffusion.velocity(x0, noise, t)
    torch.testing.assert_close(noisy, scheduler.add_noise(x0, noise, t), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(v, scheduler.get_velocity(x0, noise, t), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(diffusion.clean_from(noisy, v, t), x0, rtol=1e-3, atol=1e-3)


def test_training_times_are_stratified_and_tilted_to_noise() -> None:
    t = diffusion.sample_times(torch.Generator().manual_seed(0), 1000)
    assert t.min() >= 0
    assert t.max() <= 999
    assert (t >= 500).float().mean() == pytest.approx(1 - 0.5 ** (4 / 3), abs=0.01)


def test_training_attention_equals_the_pipelines(cache: latents.LatentCache) -> None:
    torch.manual_seed(0)
    model = unet.make_unet().eval()
    x, t, context = torch.randn(2, 4, 16, 16), torch.tensor([10, 900]), torch.randn(2, 77, 128)
    with torch.no_grad():
        usual = model(x, t, context).sample
        model.set_attn_processor(unet.PlainAttention())
        plain = model(x, t, context).sample
    torch.testing.assert_close(plain, usual, rtol=1e-4, atol=1e-4)


def test_the_cache_shows_scenes_as_often_as_their_weights_say(cache: latents.LatentCache) -> None:
    weights = torch.zeros(len(cache.latents))
    weights[3], weights[5] = 1.0, 3.0
    shown = replace(cache, weights=weights).batch(loop.Generators.of(1, 1), 400, singles=False, drop=0.0).pick
    assert set(shown.tolist()) == {3, 5}
    assert 270 < int((shown == 5).sum()) < 330


def test_captions_that_place_their_things_are_found() -> None:
    tokenizer = load_tiny().tokenizer
    texts = ["a red house above a green tree", "a car next to a sun", "a star below a fish", "a red house and a tree", "a moon"]
    ids = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    assert latents.placed(ids, tokenizer).tolist() == [True, True, True, False, False]


def test_the_cache_drops_captions_and_picks_single_objects(cache: latents.LatentCache) -> None:
    all_dropped = cache.batch(loop.Generators.of(0, 0), 4, singles=True, drop=1.0)
    assert torch.equal(all_dropped.context[0], all_dropped.context[3])
    assert all_dropped.dropped.all()
    shown = cache.batch(loop.Generators.of(0, 0), 4, singles=True, drop=0.0)
    assert not torch.equal(shown.context[0], all_dropped.context[0])
    singles = cache.latents[cache.objects == 1].float()
    assert all(any(torch.equal(one, known) for known in singles) for one in shown.latents)
    assert torch.equal(shown.context, cache.context[shown.pick].float())


def test_half_of_the_pictures_have_colours_in_colour_words_alone(cache: latents.LatentCache) -> None:
    both = replace(cache, bare=cache.context + 1)
    shown = both.batch(loop.Generators.of(0, 0), 400, singles=False, drop=0.0)
    bare = (shown.context == both.bare[shown.pick].float()).all(2).all(1)
    named = (shown.context == both.context[shown.pick].float()).all(2).all(1)
    assert (bare ^ named).all()
    assert bare.float().mean() == pytest.approx(latents.BARE, abs=0.08)


def test_a_teacher_is_half_of_the_target_and_fades(cache: latents.LatentCache) -> None:
    torch.manual_seed(0)
    guide = unet.Teacher(unet.make_unet().eval(), cache.context + 1, cache.empty, share=1.0)
    recipe = replace(unet.RECIPE, images=8, batch=4)
    stage = unet.UNetStage(cache, CPU, recipe, compiled=False, teacher=guide)
    stage.unet.load_state_dict(guide.unet.state_dict())
    told_apart = float(stage.loss(loop.Generators.of(0, 0), 4, 0.0)[0].detach())
    same = unet.UNetStage(cache, CPU, recipe, compiled=False, teacher=replace(guide, context=cache.context))
    same.unet.load_state_dict(guide.unet.state_dict())
    assert float(same.loss(loop.Generators.of(0, 0), 4, 0.0)[0].detach()) < 1e-3 < told_apart
    assert [guide.share_at(done) for done in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.5, 0.0, 0.0]


def test_training_stands_still_while_the_file_exists(cache: latents.LatentCache, tmp_path: Path, monkeypatch: Any) -> None:
    pause, waits = tmp_path / "pause", []
    pause.touch()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            pause.unlink()

    monkeypatch.setattr("time.sleep", sleep)
    stage = unet.UNetStage(cache, CPU, replace(unet.RECIPE, images=2, batch=2), compiled=False)
    assert loop.train_stage(stage, tmp_path / "work", lambda _: None, pause=pause).images == 2
    assert waits == [loop.PAUSE_SECONDS] * 3


def test_a_compiled_network_that_loses_gradients_is_not_used(
    cache: latents.LatentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_the_coarse_half(model: Any) -> Any:
        def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            hook = model.mid_block.register_forward_hook(lambda module, inputs, output: output.detach())
            try:
                return model(x, *args, **kwargs)
            finally:
                hook.remove()

        return forward

    monkeypatch.setattr(torch, "compile", without_the_coarse_half)
    lines: list[str] = []
    stage = unet.UNetStage(cache, CPU, replace(unet.RECIPE, images=2, batch=2), log=lines.append)
    loss, _ = stage.loss(loop.Generators.of(0, 0), 2, 0.5)
    loss.backward()
    assert "torch.compile loses the gradient of" in lines[0]
    assert "training goes on without it" in lines[0]
    assert all(p.grad is not None and p.grad.any() for p in stage.unet.parameters() if p.requires_grad)


def test_a_compiled_network_with_right_gradients_is_used(cache: latents.LatentCache, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def faithful(model: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return model(*args, **kwargs)

        return forward

    monkeypatch.setattr(torch, "compile", faithful)
    lines: list[str] = []
    stage = unet.UNetStage(cache, CPU, replace(unet.RECIPE, images=2, batch=2), log=lines.append)
    stage.loss(loop.Generators.of(0, 0), 2, 0.5)
    stage.loss(loop.Generators.of(0, 1), 2, 0.5)
    assert lines == []
    assert len(calls) == 3  # one for the check, one a step


def test_latents_are_standardised_without_changing_the_picture() -> None:
    torch.manual_seed(0)
    model = autoencoder.make_autoencoder(8).eval()
    pictures = autoencoder.render(3, 8)
    with torch.no_grad():
        before = model.decode(0.01 * model.encode(autoencoder.to_signed(pictures)).latents).sample
        autoencoder.standardise(model, pictures)
        _, mean, std = autoencoder.quality(model, pictures)
    assert mean.abs().max() < 1e-2
    assert (std - 1).abs().max() < 1e-2
    assert before.shape == (8, 3, 128, 128)


def test_the_decoder_learns_from_shifted_latents() -> None:
    """Half of its crops have errors of whole parts, as guidance makes them: they cost more than the same crops without."""
    model, recipe = autoencoder.make_autoencoder(), replace(autoencoder.DECODER_RECIPE, images=8, batch=8)
    model.load_state_dict(load_tiny().vae.state_dict())
    errors = [
        autoencoder.DecoderStage(model, CPU, recipe, 16, shift).loss(loop.Generators.of(3, 0), 8, 0.0)[1]["dB"]
        for shift in (0.0, autoencoder.SHIFT)
    ]
    assert errors[0] > errors[1] + 0.5


def test_decibels() -> None:
    assert autoencoder.decibels(0.04) == pytest.approx(20.0)
    assert math.isinf(autoencoder.decibels(0.0))


def test_filler_never_changes_what_is_said() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        filled = text.with_filler(rng, "a red house and a green tree").split()
        assert [w for w in filled if w in ("red", "house", "and", "green", "tree")] == ["red", "house", "and", "green", "tree"]
        assert len(filled) > 7


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"only": ("texts",)}, "no training stage 'texts'"),
        ({"images": 0}, "at least 1, got 0"),
        ({"scenes": 0}, "scenes must be at least 1, got 0"),
        ({"only": ("unet",)}, "holds no state of the stage 'words'"),
        ({"only": ("latents",)}, "holds no trained autoencoder"),
    ],
)
def test_what_cannot_be_trained_is_said(tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadArgument, match=sentence):
        train(Settings(tmp_path, **settings), print)


def test_a_work_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot be made"):
        train(Settings(tmp_path / "file" / "work"), print)


def test_training_goes_on_from_the_weights_that_ship(tmp_path: Path) -> None:
    lines: list[str] = []
    start_from_shipped(tmp_path, lines.append)
    shipped: Any = load_tiny()
    assert "unet: taken as it ships" in lines
    for name in ("text", "decoder", "segmenter", TEACHER):
        assert finished(tmp_path, name, 1)
    assert not finished(tmp_path, "unet", 1)  # a warm start has a budget of its own
    assert not finished(tmp_path, "words", 1)
    stage = unet.UNetStage(empty_cache(), CPU, replace(unet.RECIPE, images=2, batch=2), compiled=False)
    progress = loop.resume(stage, loop.state_file(tmp_path, "unet"))
    assert progress == loop.Progress(0, 0, 0.0)
    assert all(torch.equal(t, shipped.unet.state_dict()[k]) for k, t in stage.unet.state_dict().items())
    assert all(torch.equal(t, shipped.unet.state_dict()[k]) for k, t in load_unet(tmp_path).state_dict().items())
    decoder = load_autoencoder(tmp_path).decoder.state_dict()
    assert all(torch.equal(t, shipped.vae.decoder.state_dict()[k]) for k, t in decoder.items())
    start_from_shipped(tmp_path, lines.append)
    assert len(lines) == 5  # the second time there is nothing to put


def test_a_warm_start_rests_on_the_start_token_as_its_text_encoder_gives_it(tmp_path: Path) -> None:
    """Once, before its first picture; a run that goes on keeps what it learnt."""
    start_from_shipped(tmp_path, lambda _: None)
    shipped: Any = load_tiny()
    ids = shipped.tokenizer(["a red house above a blue tree"], padding="max_length", return_tensors="pt").input_ids
    write_state(tmp_path / latents.FILE, {"ids": ids.to(torch.int16)}, {})
    other = text.make_text_encoder(shipped.tokenizer).eval().requires_grad_(False)
    stage = unet.UNetStage(empty_cache(), CPU, replace(unet.RECIPE, images=2, batch=2), compiled=False)
    rest(stage, tmp_path, shipped.tokenizer, other, other)
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight"
    rested = load_unet(tmp_path).state_dict()[name]
    assert not torch.equal(rested, shipped.unet.state_dict()[name])
    assert torch.equal(stage.unet.state_dict()[name], rested) and not finished(tmp_path, "unet", 1)
    tensors, _ = read_state(loop.state_file(tmp_path, "unet"))
    write_state(loop.state_file(tmp_path, "unet"), tensors, {"step": 1, "images": 2, "seconds": 0.0})
    rest(stage, tmp_path, shipped.tokenizer, shipped.text_encoder, shipped.text_encoder)
    assert torch.equal(load_unet(tmp_path).state_dict()[name], rested)


def empty_cache() -> latents.LatentCache:
    states = torch.zeros(1, 77, 128, dtype=torch.float16)
    return latents.LatentCache(torch.zeros(1, 4, 16, 16), torch.ones(1, dtype=torch.uint8), states, states[0])


def test_a_third_of_the_steps_shows_large_pictures_and_those_without_the_teacher(
    cache: latents.LatentCache, tmp_path: Path
) -> None:
    path = tmp_path / latents.LARGE_FILE
    tokenizer = build_tokenizer(tmp_path / "tokenizer")
    latents.write_latents(path, autoencoder.make_autoencoder(8), tokenizer, CPU, print, count=4, batch=4, side=latents.LARGE)
    large = latents.LatentCache.load(path, text.make_text_encoder(tokenizer), tokenizer)
    assert large.latents.shape == (4, 4, 32, 32)
    seen: list[int] = []
    asked: list[int] = []

    class Watched(unet.Teacher):
        def velocity(self, x_t: torch.Tensor, t: torch.Tensor, batch: latents.Batch) -> torch.Tensor:
            asked.append(x_t.shape[-1])
            return x_t

    guide = Watched(unet.make_unet(), cache.context, cache.empty, share=1.0)
    stage = unet.UNetStage(cache, CPU, replace(unet.RECIPE, images=8, batch=8), compiled=False, teacher=guide, large=large)

    def error(forward: Any, x_t: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(x_t.shape[-1])
        assert len(x_t) == (2 if x_t.shape[-1] == 32 else 8)
        return torch.zeros(len(x_t), requires_grad=True) + 0

    stage._error, stage._checked = error, True  # type: ignore[method-assign]
    for step in range(90):
        stage.loss(loop.Generators.of(0, step), 8, 0.0)
    assert 20 <= seen.count(32) <= 40
    assert asked == [16] * seen.count(16)
