"""The transformer inside: it learns what its card says, and its pipeline reads prompts as it was trained to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0

from daam_core import trace
from daam_core.diffusers.reading import read_picture
from daam_core.errors import BadArgument, UnsupportedModel
from daam_core.studies.model_runner import ModelRunner
from daam_core.tiny import checkpoint, latents, load_tiny, loop, transformer
from daam_core.tiny.load import WEIGHTS
from daam_core.tiny.scenes import scene_at
from daam_core.tiny.transformer_pipeline import TinyTransformerPipeline, assemble_transformer, save_transformer
from daam_core.tiny.transformer_shape import PATCH, SHIFT, TOKENS
from daam_core.tiny.transformer_train import FILE, TransformerSettings, train_transformer, trained_transformer

CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for the power going off."""


@pytest.fixture(scope="module")
def pipe() -> TinyTransformerPipeline:
    """The pipeline with random weights: what it draws is noise, what it reads is not."""
    parts = load_tiny()
    torch.manual_seed(5)
    model = transformer.make_transformer().eval()
    for name, parameter in model.named_parameters():  # modulations begin at zero, which would hide the words
        if "norm" in name and ".linear" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    made = assemble_transformer(model, parts.text_encoder, parts.tokenizer, parts.vae)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def cache() -> tuple[latents.LatentCache, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    count = 12
    made = latents.LatentCache(
        torch.randn(count, 4, 16, 16, generator=draw).half(),
        torch.ones(count, dtype=torch.uint8),
        torch.randn(count, 32, 128, generator=draw).half(),
        torch.randn(32, 128, generator=draw).half(),
    )
    return made, torch.full((count,), 9)


def stage_of(cache: tuple[latents.LatentCache, torch.Tensor], images: int = 8) -> transformer.TransformerStage:
    recipe = replace(transformer.RECIPE, images=images, batch=2, warm_up=2)
    return transformer.TransformerStage(*cache, CPU, recipe, compiled=False)


def four_steps(cache: Any, work: Path, kill_at: int | None = None) -> dict[str, torch.Tensor]:
    stage = stage_of(cache)
    inner, count = stage.loss, iter(range(100))

    def loss(*args: Any) -> Any:
        if next(count) == kill_at:
            raise Killed
        return inner(*args)

    stage.loss = loss  # type: ignore[method-assign]
    loop.train_stage(stage, work, lambda _: None, every=0.0)
    return checkpoint.module_tensors({"model": stage.model, "ema": stage.average})


def test_a_killed_run_goes_on_to_the_same_numbers(cache: Any, tmp_path: Path) -> None:
    straight = four_steps(cache, tmp_path / "straight")
    with pytest.raises(Killed):
        four_steps(cache, tmp_path / "killed", kill_at=2)
    resumed = four_steps(cache, tmp_path / "killed")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    torch.manual_seed(transformer.RECIPE.seed)
    start = transformer.make_transformer().state_dict()
    assert not torch.equal(start["proj_out.weight"], straight["model/proj_out.weight"])


def test_every_parameter_learns(cache: Any) -> None:
    stage = stage_of(cache)
    for step in range(5):  # modulations begin at zero: what stands behind them hears of the loss some steps later
        for optimiser in stage.optimisers:
            optimiser.step()
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = 1e-3
        stage.loss(loop.Generators.of(1, step), 8, 0.0)[0].backward()
    silent = [name for name, p in stage.model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    # The last block drops the words behind its attention, so nobody hears of what they ask there.
    unheard = ("attn.add_q_proj.weight", "attn.add_q_proj.bias", "attn.norm_added_q.weight")
    assert silent == [f"transformer_blocks.3.{name}" for name in unheard]


def test_training_attention_is_the_library_s_own() -> None:
    torch.manual_seed(0)
    for last in (False, True):
        attention = Attention(
            query_dim=128, added_kv_proj_dim=128, dim_head=64, heads=2, out_dim=128, context_pre_only=last, bias=True,
            processor=JointAttnProcessor2_0(), qk_norm="rms_norm", eps=1e-6,
        )  # fmt: skip
        picture, words = torch.randn(2, 12, 128), torch.randn(2, 5, 128)
        theirs = attention(hidden_states=picture, encoder_hidden_states=words)
        ours = transformer.PlainJointAttention()(attention, picture, words)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_noise_levels_are_the_sampler_s() -> None:
    """The sampler's shifted levels at u, and the same mix of picture and noise."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    found = transformer.noise_levels(torch.Generator().manual_seed(0), 4000)
    assert bool(((found > 0) & (found < 1)).all())
    even = (torch.arange(1000, 0, -1)) / 1000
    torch.testing.assert_close(scheduler.sigmas, SHIFT * even / (1 + (SHIFT - 1) * even), atol=1e-6, rtol=1e-6)
    # Half of the drawn levels lie above the shifted middle, 2/3.
    assert abs(float((found > 2 / 3).float().mean()) - 0.5) < 0.01


def test_prompts_are_read_as_in_training(pipe: Any) -> None:
    states, against, pooled, pooled_against = pipe.encode_prompt(["a red house", "a blue fish at sea"], num_images_per_prompt=2)
    ids = pipe.tokenizer(["a red house"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    whole = pipe.text_encoder(ids)
    assert states.shape == against.shape == (4, TOKENS, 128)
    torch.testing.assert_close(
        states[0], whole.last_hidden_state[0, :TOKENS], atol=1e-5, rtol=1e-5
    )  # causal: no token looks on
    torch.testing.assert_close(pooled[1], whole.pooler_output[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    assert pooled.shape == pooled_against.shape == (4, 128)


def test_long_prompts_have_as_many_columns_as_they_need(pipe: Any) -> None:
    long = "a red house and a green tree " * 4
    states, against, _, _ = pipe.encode_prompt(long)
    assert states.shape == against.shape == (1, 30, 128)
    assert pipe.encode_prompt(long * 9)[0].shape[1] == 77
    # An embedding of the longer text and a negative prompt beside it.
    ours = pipe.encode_prompt(None, prompt_embeds=states, pooled_prompt_embeds=states[:, 0], negative_prompt="a tree")
    assert torch.equal(ours[0], states) and ours[1].shape == states.shape


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prompt": "a house", "prompt_2": "a tree"}, "has one text encoder"),
        ({"prompt": "a house", "clip_skip": 1}, "has one text encoder"),
        ({"prompt": ["a house", "a tree"], "negative_prompt": ["a fish"]}, "1 negative prompts for 2 prompts"),
    ],
)
def test_what_it_cannot_read_is_said(pipe: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadArgument, match=sentence):
        pipe(**arguments, num_inference_steps=1)


def test_a_size_without_positions_is_refused(pipe: Any) -> None:
    with pytest.raises(ValueError, match="up to 256 x 256 pixels, not 512 x 128"):
        pipe("a house", height=128, width=512)


def test_maps_are_the_attention_s_own_and_the_picture_stays(pipe: Any) -> None:
    """Eq. 6 from the weights that a plain attention sees; at the end of the prompt and in padding there are no words."""
    seen: list[torch.Tensor] = []
    text = "a red house and a green tree"

    class Watching(transformer.PlainJointAttention):
        def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any) -> Any:
            def heads(x: torch.Tensor, norm: Any) -> torch.Tensor:
                return norm(x.unflatten(-1, (attn.heads, -1)).transpose(1, 2))

            n = hidden_states.shape[1]
            q = heads(attn.to_q(hidden_states), attn.norm_q)
            keys = [heads(attn.to_k(hidden_states), attn.norm_k)]
            keys.append(heads(attn.add_k_proj(encoder_hidden_states), attn.norm_added_k))
            weights = torch.softmax(q.double() @ torch.cat(keys, 2).double().mT / 64**0.5, -1)
            seen.append(weights[-1, :, :, n:].sum(0))  # of the two rows the prompt's is the second
            return super().__call__(attn, hidden_states, encoder_hidden_states)

    def draw() -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        return torch.from_numpy(pipe(text, num_inference_steps=2, generator=generator, output_type="np").images)

    own = pipe.transformer.attn_processors
    plain = draw()
    with trace(pipe) as recording:
        assert torch.equal(draw(), plain)
    pipe.transformer.set_attn_processor(Watching())
    draw()
    pipe.transformer.set_attn_processor(own)
    expected = torch.stack(seen).sum(0)  # [positions, tokens]
    maps = recording.heat_maps()
    assert maps.words == ["a", "red", "house", "and", "a#2", "green", "tree"]
    for place, word in ((3, "house"), (7, "tree"), (2, "red")):
        side = 16 // PATCH
        torch.testing.assert_close(maps[word].double(), expected[:, place].view(side, side), atol=1e-5, rtol=1e-3)


def test_a_run_of_the_machinery_can_be_loaded(tmp_path: Path) -> None:
    lines: list[str] = []
    settings = TransformerSettings(tmp_path / "work", images=4, scenes=64, scale=0.001, compiled=False)
    out = train_transformer(settings, lines.append)
    assert "transformer: done" in "\n".join(lines)
    (out / "pipeline").symlink_to(WEIGHTS / "pipeline")
    made = load_tiny("transformer", weights=out)
    assert isinstance(made, TinyTransformerPipeline)
    assert made.transformer.dtype == torch.float32
    for name, value in trained_transformer(tmp_path / "work").state_dict().items():
        torch.testing.assert_close(made.transformer.state_dict()[name], value.half().float())
    train_transformer(settings, lines.append)  # finished already: nothing but the folder is written again
    assert lines[-3].startswith("transformer: goes on after")
    further = replace(settings, work=tmp_path / "more", weights=out, images=2, from_shipped=True)
    (tmp_path / "more").mkdir()
    (tmp_path / "work" / FILE).rename(tmp_path / "more" / FILE)
    train_transformer(further, lines.append)
    assert "transformer: taken as it ships" in lines
    one, other = (trained_transformer(tmp_path / name).state_dict()["proj_out.weight"] for name in ("work", "more"))
    torch.testing.assert_close(one, other, atol=0.02, rtol=0)  # one step on


def test_missing_weights_are_said(tmp_path: Path) -> None:
    (tmp_path / "pipeline").symlink_to(WEIGHTS / "pipeline")
    with pytest.raises(UnsupportedModel, match="No transformer lies in"):
        load_tiny("transformer", weights=tmp_path)
    with pytest.raises(BadArgument, match="no model 'flow' inside; there are unet, transformer"):
        load_tiny("flow")  # type: ignore[call-overload]
    with pytest.raises(BadArgument, match="'nope' is no device; there are cpu, cuda"):
        load_tiny(device="nope")
    with pytest.raises(UnsupportedModel, match="No model lies in nowhere"):
        load_tiny(weights="nowhere")


def test_the_shipped_one_sees_where_drawn_things_are() -> None:
    """Its pictures are poor, see its card; what its nouns say of a drawn scene is what it is there for."""
    made = load_tiny("transformer")
    made.set_progress_bar_config(disable=True)
    for k in range(6):
        scene = scene_at(660_066, k, two=0.0)
        heat = read_picture(made, scene.image, scene.caption, noise=(700, 400)).heat_map(scene.objects[0].noun, (128, 128))
        mask = torch.from_numpy(scene.objects[0].mask)
        assert float(heat[mask].mean()) > 1.5 * float(heat[~mask].mean())


def test_saving_replaces_the_folder_whole(pipe: Any, tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "old").write_text("old")
    save_transformer(pipe, tmp_path)
    assert sorted(p.name for p in (tmp_path / "transformer").iterdir()) == ["scheduler", "text_encoder", "transformer"]
    assert [p.name for p in tmp_path.iterdir()] == ["transformer"]


def test_studies_read_drawn_scenes_with_it(pipe: Any) -> None:
    """One pass at each level of noise, the caption's words, no rule of UNets; what it is shown is proved by `read_picture`."""
    runner = ModelRunner("tiny-transformer")
    vars(runner)["pipe"] = pipe
    scene = scene_at(5, 0, two=0.0)
    sample = runner.denoised(scene.image, scene.caption, seed=1, keep=("heads",), levels=(700, 300))
    assert sample.castorini is None and (sample.image == scene.image).all()
    assert sample.maps.timesteps == (700.0, 300.0)
    assert sample.maps[scene.objects[0].noun].shape == (8, 8)
