"""Recording: true (equals Eq. 6), harmless (the picture is bit-identical), and gone afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention

from daam_core import trace
from daam_core.capture.accumulator import Accumulator
from daam_core.capture.buffers import StoreOptions
from daam_core.errors import BadArgument, DetailMissing, NothingRecorded, UnsupportedModel

from ..models import PROMPT, paint, pipeline


class Explicit:
    """Eq. 6 written out: every head, layer and step is upscaled on its own and added; nothing of ours is used."""

    def __init__(self, sums: dict[int, torch.Tensor], size: tuple[int, int], grids: dict[int, tuple[int, int]]) -> None:
        self.sums, self.size, self.grids = sums, size, grids

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: Any = None, *rest: Any, **options: Any
    ) -> torch.Tensor:
        rows, n, _ = hidden_states.shape
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        d = q.shape[-1] // attn.heads
        out = torch.zeros_like(q)
        for row in range(rows):
            for head in range(attn.heads):
                part = slice(head * d, (head + 1) * d)
                scores = q[row, :, part].double() @ k[row, :, part].double().T / d**0.5
                p = scores.exp() / scores.exp().sum(-1, keepdim=True)
                out[row, :, part] = (p @ v[row, :, part].double()).to(out.dtype)
                if encoder_hidden_states is not None and row >= rows // 2:
                    h, w = self.grids[n]
                    maps = p.T.reshape(1, -1, h, w)
                    up = F.interpolate(maps, size=self.size, mode="bicubic", align_corners=False)[0]
                    picture = row - rows // 2
                    self.sums[picture] = self.sums[picture] + up if picture in self.sums else up
        return attn.to_out[0](out)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["sd15", "sd2", "sdxl"])
def test_maps_equal_the_equation_at_a_non_square_size(kind: str) -> None:
    """A researcher compares our maps with Eq. 6 computed head by head: they agree to 1e-6 of the largest value."""
    size = (88, 136)
    pipe = pipeline(kind)
    latent = (11, 17)
    levels = [(-(-latent[0] // 2**i), -(-latent[1] // 2**i)) for i in range(4)]
    sums: dict[int, torch.Tensor] = {}
    pipe.unet.set_attn_processor(Explicit(sums, size, {h * w: (h, w) for h, w in levels}))
    with trace(pipe) as recording:
        paint(pipe, [PROMPT, "a star"], height=size[0], width=size[1])
    for picture, words in enumerate(([*PROMPT.split()], ["a", "star"])):
        maps = recording.heat_maps(picture)
        true = sums[picture][1 : len(words) + 1].float()
        ours = maps.heat_maps(size=size)
        assert ours.shape == true.shape
        assert (ours - true).abs().max() <= 1e-6 * true.abs().max()
        specials = maps.heat_maps(["<start>", "<end>", "<padding>"], size)
        rest = torch.stack([sums[picture][0], sums[picture][len(words) + 1], sums[picture][len(words) + 2 :].sum(0)])
        assert (specials - rest).abs().max() <= 4e-6 * rest.abs().max()  # sums of 70 columns in float32


def test_rows_add_up_to_one_probability_a_place() -> None:
    """Shares are honest: words, start, end and padding of one place sum to 1 for each head, layer and step."""
    pipe = pipeline()
    with trace(pipe) as recording:
        paint(pipe)
    maps = recording.heat_maps()
    for grid, rows in maps.sums.items():
        assert torch.allclose(rows.sum(0), torch.full(grid, float(maps.num_terms[grid])), rtol=1e-5)


def test_late_steps_weigh_with_the_square_of_their_place() -> None:
    pipe = pipeline()
    with trace(pipe, keep="steps") as recording:
        paint(pipe, num_inference_steps=3)
    maps = recording.heat_maps()
    assert maps.detail is not None
    for grid, values in maps.detail.values.items():
        by_step = values[:, 0].float()
        expected = sum((j + 1) ** 2 * by_step[j] for j in range(3))
        assert torch.allclose(maps.time_weighted[grid][1:-2], torch.as_tensor(expected), rtol=4e-3, atol=1e-3)


def test_detail_adds_up_to_the_sums_and_can_be_chosen() -> None:
    """Layers, steps and heads kept apart are parts of the same whole."""
    pipe = pipeline()
    with trace(pipe, keep=("layers", "steps", "heads")) as recording:
        paint(pipe, num_inference_steps=3)
    maps = recording.heat_maps()
    everything = maps.select(steps=range(3))
    assert torch.allclose(everything.heat_maps(), maps.heat_maps(), rtol=5e-3, atol=1e-2)
    parts = [
        maps.select(layers=[block]).heat_maps(["house"], (64, 64))
        for block in ("down", "mid", "up")
        if any(layer.block == block for layer in maps.layers)
    ]
    assert torch.allclose(torch.stack(parts).sum(0), maps.heat_maps(["house"], (64, 64)), rtol=5e-3, atol=1e-2)
    heads = maps.select(heads=range(8))
    assert torch.allclose(heads.heat_maps(size=(64, 64)), maps.heat_maps(size=(64, 64)), rtol=1e-5, atol=1e-5)
    assert maps.select(heads=[0]).heat_map("house").sum() < maps.heat_map("house").sum()
    with pytest.raises(BadArgument):
        maps.select(steps=[3])


def test_negative_prompt_has_maps_of_its_own() -> None:
    pipe = pipeline()
    with trace(pipe, negative=True) as recording:
        paint(pipe, negative_prompt="a blue moon")
    maps = recording.heat_maps()
    assert maps.negative is not None
    assert maps.negative.words == ["a", "blue", "moon"]
    assert maps.words == ["a", "red", "house", "and", "a#2", "green", "tree"]
    # Swapping the two prompts at guidance 1 (a mix of both) would swap the maps; here they must simply differ.
    assert not torch.equal(maps.heat_map("a"), maps.negative.heat_map("a"))


def test_each_picture_has_its_own_prompt_and_maps() -> None:
    """Two prompts, two pictures each: picture 3 is the second prompt's second; one alone gives the same maps."""
    pipe = pipeline()
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    with trace(pipe) as recording:
        paint(pipe, [PROMPT, "a star"], num_images_per_prompt=2, latents=latents)
        paint(pipe, "a star", latents=latents[3:])
    batch, alone = recording.heat_maps(3, generation=0), recording.heat_maps()
    assert recording.num_generations == 2
    assert recording.num_images == 1
    assert recording.heat_maps(1, generation=0).words[2] == "house"
    assert batch.words == alone.words == ["a", "star"]
    assert torch.allclose(batch.heat_maps(), alone.heat_maps(), rtol=1e-4, atol=1e-5)


def test_prompt_embeds_by_hand_give_words_by_index() -> None:
    pipe = pipeline()
    embeds = torch.randn(1, 154, 32)
    with trace(pipe) as recording:
        paint(pipe, None, prompt_embeds=embeds, negative_prompt_embeds=torch.zeros_like(embeds))
    maps = recording.heat_maps()
    assert len(maps.words) == 154
    assert maps.heat_maps(["0", "153"]).shape == (2, *maps.grid)


def test_without_guidance_every_row_is_the_prompt() -> None:
    pipe = pipeline()
    with trace(pipe, negative=True) as recording:
        paint(pipe, guidance_scale=1.0)
    assert recording.heat_maps().negative is None
    assert recording.heat_maps().heat_map("house").sum() > 0


def test_hooks_come_off_after_an_interrupt() -> None:
    """Ctrl-C in the middle of sampling leaves the pipeline as it was."""
    pipe = pipeline()
    clean = _hooks(pipe)

    def interrupt(*_: Any) -> dict[str, Any]:
        assert _hooks(pipe) > clean
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), trace(pipe) as recording:
        paint(pipe, num_inference_steps=3, callback_on_step_end=interrupt)
    assert _hooks(pipe) == clean
    assert "encode_prompt" not in vars(pipe)
    assert "postprocess" not in vars(pipe.image_processor)
    assert recording.heat_maps().steps == 1  # what was finished is still there


def test_traces_nest_repeat_and_leave_in_any_order() -> None:
    pipe = pipeline()
    clean = _hooks(pipe)
    first, second = trace(pipe), trace(pipe)
    first.__enter__()
    second.__enter__()
    paint(pipe)
    first.__exit__()
    paint(pipe, "a star")
    second.__exit__()
    assert (first.num_generations, second.num_generations) == (1, 2)
    assert second.heat_maps().words == ["a", "star"]
    assert torch.equal(first.heat_maps().heat_maps(), second.heat_maps(generation=0).heat_maps())
    assert _hooks(pipe) == clean
    assert "encode_prompt" not in vars(pipe)
    with first:
        paint(pipe)
    assert first.num_generations == 2


def test_two_pipelines_at_once_do_not_mix() -> None:
    one, other = pipeline(seed=0), pipeline("sdxl", seed=1)
    with trace(one) as a, trace(other) as b:
        paint(one)
        paint(other, "a star")
    assert a.heat_maps().words[2] == "house"
    assert b.heat_maps().words == ["a", "star"]


def test_a_pipeline_that_shares_the_unet_is_not_recorded() -> None:
    """`from_pipe` shares one UNet between pipelines; only the traced one is listened to."""
    from diffusers import StableDiffusionImg2ImgPipeline

    pipe = pipeline()
    other = StableDiffusionImg2ImgPipeline.from_pipe(pipe, vae=pipe.vae)
    other.set_progress_bar_config(disable=True)
    with trace(pipe) as recording:
        paint(pipe)
        other("a star", image=torch.zeros(1, 3, 64, 64), num_inference_steps=2, output_type="pt")
    assert recording.num_generations == 1
    assert recording.heat_maps().steps == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [(RuntimeError("odd"), "(RuntimeError in layer_plan.py, line "), (MemoryError("full"), "not enough memory")],
)
def test_a_failing_recorder_still_gives_the_picture(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The picture is made, bit for bit; the reason there is no map is one sentence."""
    pipe = pipeline()
    without = paint(pipe)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("daam_core.capture.layer_plan.add_head_sum", fail)
    monkeypatch.setattr("daam_core.capture.layer_plan.add_weighted_head_sums", fail)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe), without)
    assert recording.failure is not None
    assert said in recording.failure and str(error) not in recording.failure and str(error) in caplog.text
    with pytest.raises(NothingRecorded, match="the picture was still made"):
        recording.heat_maps()


def test_a_failure_belongs_to_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same trace gives maps again after one call that could not be recorded; the failed call keeps its sentence."""
    pipe = pipeline()
    with trace(pipe) as alone:
        paint(pipe)
    with trace(pipe) as recording:
        with monkeypatch.context() as patch:
            patch.setattr("daam_core.capture.accumulator.Accumulator.add_cross", _odd)
            paint(pipe)
        assert recording.failure is not None
        paint(pipe)
    assert recording.failure is None and recording.num_generations == 2
    assert torch.equal(recording.heat_maps().heat_maps(), alone.heat_maps().heat_maps())
    assert [torch.equal(maps.heat_maps(), alone.heat_maps().heat_maps()) for maps in recording] == [True]
    with pytest.raises(NothingRecorded, match="RuntimeError"):
        recording.heat_maps(generation=0)


def _odd(*_: Any, **__: Any) -> None:
    raise RuntimeError("odd")


def test_attention_that_is_not_a_number_is_said() -> None:
    pipe = pipeline()
    with trace(pipe) as recording:
        pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_q.weight.data.fill_(float("nan"))
        paint(pipe)
    with pytest.raises(NothingRecorded, match="NaN"):
        recording.heat_maps()


def test_nothing_sampled_and_wrong_models_are_said_in_a_sentence() -> None:
    from diffusers import UNet2DModel

    pipe = pipeline()
    with trace(pipe) as recording:
        pass
    with pytest.raises(NothingRecorded, match="call the pipeline inside"):
        recording.heat_maps()
    pipe.unet = UNet2DModel(block_out_channels=(32, 32), down_block_types=("DownBlock2D",) * 2,
                            up_block_types=("UpBlock2D",) * 2)  # fmt: skip
    with pytest.raises(UnsupportedModel, match="no cross-attention"):
        trace(pipe)
    with pytest.raises(UnsupportedModel, match="no UNet"):
        trace(object())
    with pytest.raises(BadArgument, match="keep is any of"):
        trace(pipeline(), keep="everything")  # type: ignore[arg-type]
    two: Any = torch.zeros(2)
    for name in ("keep", "relations", "prompts", "concept_rule", "negative", "self_attention", "output_space"):
        for odd in (two, 3, [["x"]]) if name not in ("negative", "self_attention", "output_space") else (two,):
            options: dict[str, Any] = {name: odd}
            with pytest.raises(BadArgument, match=name.split("_")[-1]):
                trace(pipe, **options)


def test_memory_is_flat_in_steps() -> None:
    """Without detail a run of 6 steps holds what a run of 2 holds."""
    pipe = pipeline()
    held = []
    for steps in (2, 6):
        with trace(pipe) as recording:
            paint(pipe, num_inference_steps=steps)
        maps = recording.heat_maps()
        held.append(sum(x.numel() * 4 for part in (maps.sums, maps.time_weighted) for x in part.values()))
    assert held[0] == held[1]


def test_layers_and_steps_apart_stay_within_what_was_promised() -> None:
    """At most 100 MB for SDXL's 102,400 positions of all layers, 30 steps, 15 words: here a part of them, in proportion."""
    layers, positions = 60, 64
    accumulator = Accumulator(
        slice(0, 1), lambda keys, part: torch.eye(keys)[None, :, :18], StoreOptions(layers=True, steps=True)
    )
    q, k = torch.randn(1, positions, 8), torch.randn(1, 77, 8)
    for _ in range(30):
        for layer in range(layers):
            accumulator.add_cross(layer, (8, 8), q, k, 1, 0.5)
        accumulator.end_step()
    accumulator.release()
    held = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in _tensors(vars(accumulator))}
    assert 80e6 < sum(held.values()) * 102_400 / (layers * positions) <= 100e6


def _tensors(thing: Any) -> list[torch.Tensor]:
    if isinstance(thing, torch.Tensor):
        return [thing]
    if hasattr(thing, "__dict__") and not callable(thing):
        thing = vars(thing)
    parts = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _hooks(pipe: Any) -> int:
    """Hooks on the UNet and modules whose `forward` was exchanged."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + ("forward" in vars(m)) for m in pipe.unet.modules())


def test_self_attention_equals_an_explicit_computation() -> None:
    """What refines masks is the finest grid's own attention, every head and layer, rows summing to 1; of ten steps, the
    first, fourth and ninth are kept."""
    pipe = pipeline()
    heard: dict[str, torch.Tensor] = {}
    steps: list[torch.Tensor] = []

    def keep(name: str) -> Any:
        return lambda module, args, output: heard.__setitem__(name, output)

    def add(attn: Any) -> Any:
        def hook(*_: Any) -> None:
            q, k = (heard[x][1].double().unflatten(-1, (attn.heads, -1)).transpose(0, 1) for x in ("q", "k"))
            steps[-1].add_((q @ k.transpose(1, 2) * attn.scale).softmax(-1).sum(0))

        return hook

    handles = [pipe.unet.register_forward_pre_hook(lambda *_: steps.append(torch.zeros(64, 64, dtype=torch.float64)))]
    for name, module in pipe.unet.named_modules():
        if name.endswith(".attn1") and name.startswith(("down_blocks.0", "up_blocks.3")):
            handles += [module.to_q.register_forward_hook(keep("q")), module.to_k.register_forward_hook(keep("k"))]
            handles.append(module.register_forward_hook(add(module)))
    with trace(pipe) as recording:
        paint(pipe, num_inference_steps=10)
    recorded = recording.heat_maps().self_attention
    assert recorded is not None
    assert list(recorded) == [(8, 8)]
    total = steps[0] + steps[3] + steps[8]
    expected = total / total.sum(-1, keepdim=True)
    assert (recorded[8, 8] - expected).abs().max() < 1e-6
    for handle in handles:
        handle.remove()
    with trace(pipe, self_attention=False) as recording:
        paint(pipe)
    assert recording.heat_maps().self_attention is None


def test_self_attention_on_other_grids_is_not_listened_to_after_the_first_step_of_a_run() -> None:
    """The second run is of another size, where other layers are on the finest grid."""
    pipe = pipeline()
    heard: list[int] = []

    def note(*_: Any) -> None:
        heard.append(sum("forward" in vars(m.to_q) for n, m in pipe.unet.named_modules() if n.endswith("attn1")))

    handle = pipe.unet.register_forward_hook(note, always_call=True)
    with trace(pipe) as recording:
        for size in (64, 256):
            paint(pipe, num_inference_steps=2, height=size, width=size)
    handle.remove()
    layers = sum(n.endswith("attn1") for n, _ in pipe.unet.named_modules())
    kept = [next(iter(recording.heat_maps(generation=run).self_attention or ())) for run in (0, 1)]
    assert kept == [(8, 8), (16, 16)]
    assert heard[0] == heard[2] == layers
    assert 0 < heard[1] < layers and 0 < heard[3] < layers
    assert _hooks(pipe) == 0


@pytest.mark.parametrize(("kept", "asked"), [("steps", {"layers": ["up"]}), ("layers", {"steps": [0]})])
def test_one_axis_kept_does_not_stand_for_the_other(kept: Any, asked: Any) -> None:
    """Layers of a recording that kept only its steps were not kept: that is said, not drawn from nothing."""
    pipe = pipeline("sd15")
    with trace(pipe, keep=kept) as recording:
        paint(pipe)
    with pytest.raises(DetailMissing, match="not kept apart"):
        recording.heat_maps().select(**asked)
