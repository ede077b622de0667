"""What the layers of a UNet attend with: read as it is, or refused by the name of the layer and its processor."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import ControlNetXSAdapter, StableDiffusionControlNetXSPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, CustomDiffusionAttnProcessor
from torch import Tensor

from daam_core import trace
from daam_core.capture.layer_check import LayerCheck
from daam_core.errors import NothingRecorded

from ..models import PROMPT, paint, pipeline
from .unet_witness import Witness, assert_same


def text_of(pipe: Any) -> Tensor:
    return pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0]  # type: ignore[no-any-return]


class Own:
    """Attention of somebody's own, written out; `change` is what it does to keys or probabilities behind the projections."""

    def __init__(self, keys_first: bool = False, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        self.keys_first, self.change = keys_first, change

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if self.keys_first:
            k, q = attn.to_k(context), attn.to_q(hidden_states)
        else:
            q, k = attn.to_q(hidden_states), attn.to_k(context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, attn.to_v(context)))
        p = torch.softmax(q @ k.transpose(-1, -2) * attn.scale, -1)
        p = p if encoder_hidden_states is None else self.change(p)
        return attn.to_out[0]((p @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def test_keys_before_queries_are_paired_inside_their_own_call() -> None:
    """0.1.0 paired the queries of a step with the keys of the next, and lost the last step."""
    pipe = pipeline("small")
    pipe.unet.set_attn_processor(Own(keys_first=True))
    text, witness = text_of(pipe), Witness(pipe.unet)
    with trace(pipe) as recording:
        paint(pipe, num_inference_steps=3)
    assert recording.heat_maps().steps == 3
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text))


def test_a_processor_that_changes_probabilities_is_refused_by_name() -> None:
    """What happens behind the projections cannot be read there, and the map would be off by as much."""
    pipe = pipeline("small")
    pipe.unet.set_attn_processor(Own(change=lambda p: torch.cat([p[:, :, :, :3] * 4, p[:, :, :, 3:]], -1)))
    before = paint(pipe)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe), before)
    with pytest.raises(NothingRecorded, match=r"attn2 of UNet2DConditionModel did not give .* its processor is Own\."):
        recording.heat_maps()


@pytest.mark.parametrize("begins", [1, 2])
def test_a_processor_that_changes_probabilities_from_a_later_step_on_is_refused(begins: int) -> None:
    """It stays the same object, so that its first step is no proof of the next: its maps were those of what it does not use."""
    pipe, own = pipeline("small"), Own()
    pipe.unet.set_attn_processor(own)

    def callback(_pipe: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        late = step + 1 >= begins
        own.change = (lambda p: torch.cat([p[:, :, :, :3] * 4, p[:, :, :, 3:]], -1)) if late else lambda p: p
        return given

    def painted() -> Tensor:
        own.change = lambda p: p
        return paint(pipe, num_inference_steps=3, callback_on_step_end=callback)

    before = painted()
    with trace(pipe) as recording:
        assert torch.equal(painted(), before)
    with pytest.raises(NothingRecorded, match=r"attn2 of UNet2DConditionModel did not give .* its processor is Own\."):
        recording.heat_maps()


@pytest.mark.parametrize(("part", "times"), [("attn1", 1), ("attn2", 3)])
def test_only_layers_of_the_text_are_proved_in_every_step(part: str, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of self-attention give no word's map, and a proof costs every step some hundred microseconds."""
    pipe, watches = pipeline("small"), []
    own = {name: Own() if part in name else held for name, held in pipe.unet.attn_processors.items()}
    pipe.unet.set_attn_processor(own)

    def watched(*given: Any) -> LayerCheck:
        watches.append(given)
        return LayerCheck(*given)

    monkeypatch.setattr("daam_core.capture.unet_hooks.LayerCheck", watched)
    with trace(pipe) as recording:
        paint(pipe, num_inference_steps=3)
    assert recording.failure is None and len(watches) == times


def test_projections_that_were_fused_and_taken_apart_are_read() -> None:
    pipe = pipeline("small")
    text = text_of(pipe)
    witness = Witness(pipe.unet)
    with trace(pipe) as alone:
        paint(pipe)
    true = witness.of(text)
    assert_same(alone.heat_maps().sides["prompt"], true)
    pipe.unet.fuse_qkv_projections()
    for handles in (m._forward_hooks for m in pipe.unet.modules()):
        handles.clear()  # the witness waits for projections that fused layers do not run
    with trace(pipe) as fused:
        paint(pipe)
    pipe.unet.unfuse_qkv_projections()
    with trace(pipe) as apart:
        paint(pipe)
    for recording in (fused, apart):
        maps = recording.heat_maps()
        assert_same(maps.sides["prompt"], true)
        assert maps.self_attention is not None


@pytest.mark.parametrize("queries", [True, False])
def test_custom_diffusion_is_read_from_its_processors(queries: bool) -> None:
    """Its processors bring projections of their own: those are what the layer attends with."""
    pipe = pipeline("small")
    torch.manual_seed(7)
    for name, attn in pipe.unet.named_modules():
        if name.endswith("attn2"):
            attn.set_processor(CustomDiffusionAttnProcessor(True, queries, attn.inner_dim, attn.cross_attention_dim))
    text, witness = text_of(pipe), Witness(pipe.unet)
    for name, attn in pipe.unet.named_modules():
        if name.endswith("attn2"):
            q = attn.processor.to_q_custom_diffusion if queries else attn.to_q
            q.register_forward_hook(lambda m, a, out, attn=attn: witness.q(attn, out))
            attn.processor.to_k_custom_diffusion.register_forward_hook(lambda m, a, out, attn=attn: witness.k(attn, out))
    with trace(pipe) as recording:
        paint(pipe)
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text))


class Skipping(AttnProcessor2_0):
    """A kernel that reads the weights itself, as quantised ones do: the modules of the projections are not called."""

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Any = None, *a: Any, **b: Any) -> Tensor:
        if encoder_hidden_states is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, *a, **b)  # type: ignore[no-any-return]
        q, k, v = (x @ m.weight.T for x, m in ((hidden_states, attn.to_q), (encoder_hidden_states, attn.to_k),
                                               (encoder_hidden_states, attn.to_v)))  # fmt: skip
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        return attn.to_out[0](torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def test_a_layer_that_skips_its_projections_is_refused_by_name() -> None:
    """One of several layers: its terms would be missing from every map."""
    pipe = pipeline("small")
    names = [name for name, _ in pipe.unet.named_modules() if name.endswith("attn2")]
    pipe.unet.get_submodule(names[-1]).set_processor(Skipping())
    with trace(pipe) as recording:
        paint(pipe)
    with pytest.raises(NothingRecorded, match=f"{names[-1]} of UNet2DConditionModel attended without .* Skipping"):
        recording.heat_maps()


def test_a_processor_exchanged_in_the_middle_is_noticed() -> None:
    pipe = pipeline("small")
    layer = pipe.unet.get_submodule(next(name for name, _ in pipe.unet.named_modules() if name.endswith("attn2")))

    def exchange(_pipe: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        layer.set_processor(Skipping())
        return given

    with trace(pipe) as recording:
        paint(pipe, num_inference_steps=4, callback_on_step_end=exchange)
    with pytest.raises(NothingRecorded, match="Skipping"):
        recording.heat_maps()


def test_masked_columns_of_the_text_have_no_attention() -> None:
    """`encoder_attention_mask` of the UNet: 0.1.0 left it out, and maps were off by up to 0.8."""
    pipe = pipeline("small")
    text = text_of(pipe)
    mask = torch.ones(2, 77)
    mask[:, [2, 9]] = 0
    pipe.unet.register_forward_pre_hook(
        lambda _m, args, kwargs: (args, {**kwargs, "encoder_attention_mask": mask}), with_kwargs=True
    )
    witness = Witness(pipe.unet)
    with trace(pipe) as recording:
        paint(pipe)
    maps = recording.heat_maps()
    assert_same(maps.sides["prompt"], witness.of(text))
    assert maps.heat_map("red").max() < 1e-6 < maps.heat_map("house").max()


def test_columns_that_are_masked_from_a_later_step_on_have_no_attention_from_then_on() -> None:
    """The way of a layer is known from the first step, whose text was not masked: the second is not like it."""
    pipe = pipeline("small")
    text, mask = text_of(pipe), torch.ones(2, 77)
    mask[:, [2, 9]] = 0
    steps = itertools.count()

    def masked(_m: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "encoder_attention_mask": mask if next(steps) in (1, 2) else None}

    pipe.unet.register_forward_pre_hook(masked, with_kwargs=True)
    witness = Witness(pipe.unet)
    with trace(pipe) as recording:
        paint(pipe, num_inference_steps=4)
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text))


def test_attention_to_the_text_in_attn1_is_read_in_every_step() -> None:
    """Upscalers' blocks attend to the text twice, and have no attention to the picture."""
    pipe = pipeline("small")
    torch.manual_seed(3)
    for name, block in pipe.unet.named_modules():
        if name.endswith("transformer_blocks.0"):
            block.only_cross_attention = True
            old = block.attn1
            block.attn1 = Attention(old.inner_dim, cross_attention_dim=32, heads=old.heads, dim_head=old.inner_dim // old.heads)
    for own in (True, False):
        with trace(pipe, self_attention=own) as recording:
            paint(pipe, num_inference_steps=3)
        maps = recording.heat_maps()
        assert {layer.name.rsplit(".", 1)[-1] for layer in maps.layers} == {"attn1", "attn2"}
        for grid, channels in maps.sums.items():
            assert torch.allclose(channels.sum(0), torch.full(grid, float(maps.num_terms[grid])), rtol=1e-5)
            assert maps.num_terms[grid] == 3 * sum(layer.heads for layer in maps.layers if layer.grid == grid)


@pytest.mark.parametrize("data", [False, True])
def test_weights_that_change_in_the_middle_of_a_run(data: bool) -> None:
    """The keys of a text are held once for several steps: a change of the weights is followed, or found where no version
    counter tells of it (`weight.data`)."""
    pipe = pipeline("small")
    text, witness = text_of(pipe), Witness(pipe.unet, weights=True)

    def change(_pipe: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        for name, attn in pipe.unet.named_modules() if step == 3 else ():
            if name.endswith("attn2"):
                (attn.to_k.weight.data if data else attn.to_k.weight).mul_(0.5)
        return given

    with trace(pipe) as recording:
        paint(pipe, num_inference_steps=14, callback_on_step_end=change)
    if data:
        with pytest.raises(NothingRecorded, match="changed the weights of the model's keys"):
            recording.heat_maps()
    else:
        assert_same(recording.heat_maps().sides["prompt"], witness.of(text))


def test_a_control_inside_the_unet_is_not_counted() -> None:
    """ControlNet-XS makes one UNet of two: the control's own layers attend to the text, too."""
    base = pipeline("small")
    torch.manual_seed(4)
    base.unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=2, norm_num_groups=8, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32, use_linear_projection=True,
    ).eval()  # fmt: skip
    control = ControlNetXSAdapter.from_unet(base.unet, size_ratio=1.0, conditioning_embedding_out_channels=(8,) * 4).eval()
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    parts = {name: getattr(base, name) for name in names} | {"safety_checker": None, "feature_extractor": None}
    pipe = StableDiffusionControlNetXSPipeline(**parts, controlnet=control, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe.unet).__name__ == "UNetControlNetXSModel"
    for name, weight in pipe.unet.named_parameters():
        if "attn2.to_k" in name or "attn2.to_q" in name:
            weight.data *= 8
    given = {"image": torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))}
    before, text = paint(pipe, **given), text_of(pipe)
    own, both = Witness(pipe.unet, but="ctrl_"), Witness(pipe.unet)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, **given), before)
    maps = recording.heat_maps()
    assert_same(maps.sides["prompt"], own.of(text))
    assert not any("ctrl_" in layer.name for layer in maps.layers)
    assert all(float(both.of(text)[n].sum()) > 1.1 * float(sums.sum()) for n, sums in own.of(text).items())


class InPlace(Own):
    """Scales in place what the first projection gave out, before the other is called."""

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if self.keys_first:
            k = attn.to_k(context).mul_(1.5)
            q = attn.to_q(hidden_states)
        else:
            q = attn.to_q(hidden_states).mul_(1.5)
            k = attn.to_k(context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, attn.to_v(context)))
        p = torch.softmax(q @ k.transpose(-1, -2) * attn.scale, -1)
        return attn.to_out[0]((p @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class ScaledWitness(Witness):
    def q(self, attn: Any, queries: Tensor) -> None:
        super().q(attn, 1.5 * queries)


@pytest.mark.parametrize("keys_first", [False, True])
def test_a_processor_that_scales_in_place_between_its_projections_is_read_in_every_step(keys_first: bool) -> None:
    """It attends with what was written, from the first step on. Noted before the write, it was refused in the middle."""
    pipe = pipeline("small")
    pipe.unet.set_attn_processor(InPlace(keys_first))
    text, witness = text_of(pipe), ScaledWitness(pipe.unet, weights=True)
    with trace(pipe) as recording:
        paint(pipe, num_inference_steps=4)
    assert recording.heat_maps().steps == 4
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text))


class Watched(Own):
    """Keeps weak references to the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[weakref.ref[Tensor]] = []

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        given = attn.to_q(hidden_states)
        self.queries.append(weakref.ref(given))
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (given, attn.to_k(context), attn.to_v(context)))
        p = torch.softmax(q @ k.transpose(-1, -2) * attn.scale, -1)
        return attn.to_out[0]((p @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def test_a_forward_whose_recording_ends_in_its_middle_holds_nothing() -> None:
    """Its earlier layers were only noted; their queries would stay for as long as the trace does."""
    pipe = pipeline("small")
    names = [name for name, _ in pipe.unet.named_modules() if name.endswith("attn2")]
    last, watched = pipe.unet.get_submodule(names[-1]), Watched()
    pipe.unet.set_attn_processor(watched)
    cut = [False]
    for projection in (last.to_k, last.to_v):  # of hooked projections nothing is noted
        projection.register_forward_hook(lambda m, a, out: out[:, :-1] if cut[0] else out)

    def later(_pipe: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        cut[0] = step >= 2
        return given

    with trace(pipe) as recording:
        paint(pipe, num_inference_steps=5, callback_on_step_end=later)
        gc.collect()
        assert len(watched.queries) and not any(one() is not None for one in watched.queries)
    with pytest.raises(NothingRecorded, match="its attention processor changes them"):
        recording.heat_maps()
