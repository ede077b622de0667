"""`trace(pipe)` on pipelines with a transformer: pictures untouched, words through real templates, whose rows are whose."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from torch import Tensor

from daam_core import trace
from daam_core.capture import transformer_attention
from daam_core.capture.transformer_scopes import THREAD
from daam_core.errors import BadArgument, NothingRecorded, UnsupportedModel, WordNotFound

from ..capture.attention_witness import Witness
from . import transformer_pipelines as made
from .pipeline_cases import CASES, HEIGHT, NEGATIVES, PATCHES, PROMPTS, WIDTH, Case, paint, worst_error


@pytest.fixture(params=CASES)
def case(request: Any) -> Case:
    return CASES[request.param]


@pytest.mark.parametrize("small", [0, 2**17])
def test_pictures_are_bit_identical_and_words_are_right(case: Case, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel's log-sum-exp is taken, and where the whole softmax is computed."""
    monkeypatch.setattr(transformer_attention, "_SMALL", small)
    pipe = case.make()
    before = paint(pipe, case)
    with trace(pipe, negative=True) as recording:
        during = paint(pipe, case)
    assert recording.failure is None
    assert torch.equal(during, before) and torch.equal(paint(pipe, case), before)
    maps = list(recording)
    assert [m.words for m in maps] == [["a", "red", "house", "and", "a#2", "green", "tree"], ["two", "cats"]]
    assert [m.negative.words for m in maps] == [["blurry", "and", "dark"], ["cats"]]
    assert all(m.size == (HEIGHT, WIDTH) and m.grid == (4, 6) and m.steps == 2 for m in maps)


def test_maps_are_those_of_the_equation_for_every_row(case: Case) -> None:
    """Words of both prompts and both negative prompts, of different length, against float64 probabilities."""
    assert worst_error(case.make(), case) < 1e-5


def test_one_prompt_without_guidance(case: Case) -> None:
    pipe = case.make()
    with trace(pipe, negative=True) as recording:
        paint(pipe, case, "a red house", None, **case.off)
    assert [(m.words, m.negative) for m in recording] == [(["a", "red", "house"], None)]


def test_the_same_text_as_prompt_and_negative_prompt_is_recorded_once_each(case: Case) -> None:
    pipe = case.make()
    with trace(pipe, negative=True) as recording:
        paint(pipe, case, ["two cats"], ["two cats"])
    (maps,) = recording
    assert maps.steps == maps.negative.steps == 2
    assert maps.num_terms == maps.negative.num_terms


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.several])
def test_several_pictures_of_each_prompt(case: Case) -> None:
    pipe = case.make()
    with trace(pipe) as recording:
        paint(pipe, case, **{case.several: 2})
    assert [m.words[0] for m in recording] == ["a", "a", "two", "two"]
    first, second, *_ = recording
    assert not torch.equal(first.heat_map("house"), second.heat_map("house"))


def test_embeddings_made_inside_the_trace_keep_their_words() -> None:
    case, pipe = CASES["flux"], made.flux()
    with trace(pipe) as recording:
        embeds, pooled, _ = pipe.encode_prompt("a red house", None, max_sequence_length=20)
        paint(pipe, case, None, None, prompt_embeds=embeds, pooled_prompt_embeds=pooled, true_cfg_scale=1.0)
    assert next(iter(recording)).words == ["a", "red", "house"]


def test_embeddings_made_elsewhere_have_words_by_number(caplog: pytest.LogCaptureFixture) -> None:
    case, pipe = CASES["flux"], made.flux()
    embeds, pooled, _ = pipe.encode_prompt("a red house", None, max_sequence_length=20)
    with trace(pipe) as recording:
        paint(pipe, case, None, None, prompt_embeds=embeds, pooled_prompt_embeds=pooled, true_cfg_scale=1.0)
    assert next(iter(recording)).words == [str(i) for i in range(20)]
    assert "by number" in caplog.text


EXCHANGES: dict[str, Callable[[Any], Tensor]] = {
    "flux": lambda pipe: pipe.encode_prompt("two cats", None, max_sequence_length=20)[0],
    "sd3": lambda pipe: torch.cat(
        [x for x in pipe.encode_prompt("two cats", None, None, max_sequence_length=20)[1::-1] if x is not None]
    ),
    "wan": lambda pipe: pipe.encode_prompt("two cats", None, max_sequence_length=20)[0],
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_a_prompt_that_a_callback_exchanges_is_a_new_part_from_that_step_on(name: str) -> None:
    case, pipe = CASES[name], CASES[name].make()

    def exchange(pipe: Any, step: int, time: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if step == 0:
            tensors["prompt_embeds"] = EXCHANGES[name](pipe)
        return tensors

    given: dict[str, Any] = {
        "num_inference_steps": 3, "callback_on_step_end": exchange,
        "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"],
    }  # fmt: skip
    before = paint(pipe, case, ["a red house"], [""], **given)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, case, ["a red house"], [""], **given), before)
    (maps,) = recording
    assert maps.words == ["a", "red", "house", "two", "cats"] and maps.steps == 3
    assert float(maps.heat_map("house").sum()) > 0 and float(maps.heat_map("cats").sum()) > 0
    everything = torch.stack([x.sum(0) for x in maps.sums.values()])
    assert float(everything.max()) <= maps.num_terms[4, 6] * 1.0001


def test_a_call_that_fails_leaves_nothing_and_does_not_touch_the_next() -> None:
    case, pipe = CASES["flux"], made.flux()

    def stop(pipe: Any, step: int, time: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        raise KeyboardInterrupt

    with trace(pipe) as recording:
        with pytest.raises(KeyboardInterrupt):
            paint(pipe, case, ["two cats"], None, callback_on_step_end=stop)
        paint(pipe, case, ["a red house"], None)
    assert recording.heat_maps().words == ["a", "red", "house"] and recording.heat_maps().steps == 2


def test_an_exchanged_transformer_is_told() -> None:
    """The call had no maps of its own, so those of the call before it came, under its number."""
    case, pipe, other = CASES["flux"], made.flux(), made.flux().transformer
    first = pipe.transformer

    def back(pipe: Any, step: int, time: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        pipe.transformer = other
        return tensors

    with trace(pipe) as recording:
        paint(pipe, case, ["two cats"], None)
        pipe.transformer = other
        paint(pipe, case, ["a red house"], None)
        pipe.transformer = first
        paint(pipe, case, ["a green tree"], None, callback_on_step_end=back)
    assert recording.num_generations == 3 and recording.heat_maps(generation=0).words == ["two", "cats"]
    for generation in (1, 2):
        with pytest.raises(NothingRecorded, match="transformer of FluxPipeline was exchanged for another inside the trace"):
            recording.heat_maps(generation=generation)


def test_a_call_around_the_traced_one_is_told() -> None:
    """`__wrapped__` is what training with gradients calls: it was said that the pipeline was not called."""
    pipe = made.flux()
    with trace(pipe) as recording, torch.no_grad():
        inspect.unwrap(type(pipe).__call__)(pipe, "two cats", num_inference_steps=2, height=64, width=96, output_type="latent")
    with pytest.raises(NothingRecorded, match="2 sampling steps ran inside the trace, but not in a call of FluxPipeline"):
        recording.heat_maps()


def test_a_call_that_is_interrupted_inside_a_layer_is_forgotten() -> None:
    """PyTorch calls no hook behind a forward that Ctrl-C left: neither the next call nor the thread may take it for running."""
    case, pipe = CASES["flux"], made.flux()
    layer = pipe.transformer.transformer_blocks[0].attn.to_q
    with trace(pipe) as alone:
        paint(pipe, case, ["a red house"], None)

    def stop(*_: Any) -> None:
        handle.remove()
        raise KeyboardInterrupt

    with trace(pipe) as recording:
        handle = layer.register_forward_pre_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            paint(pipe, case, ["a red house"], None)
        paint(pipe, case, ["a red house"], None)
        handle = layer.register_forward_pre_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            paint(pipe, case, ["a red house"], None)
    assert not THREAD.running.scopes and not THREAD.running.inside
    assert torch.equal(recording.heat_maps().heat_map("house"), alone.heat_maps().heat_map("house"))


def test_nested_traces_both_record_and_leave_nothing_behind() -> None:
    case, pipe = CASES["flux"], made.flux()
    sdpa, before = torch.nn.functional.scaled_dot_product_attention, paint(pipe, case)
    outer, inner = trace(pipe), trace(pipe)
    outer.__enter__()
    inner.__enter__()
    during = paint(pipe, case)
    outer.__exit__()  # in the wrong order
    paint(pipe, case)
    inner.__exit__()
    assert torch.equal(during, before)
    assert (outer.num_generations, inner.num_generations) == (1, 2)
    assert torch.equal(outer.heat_maps().heat_map("house"), inner.heat_maps(generation=0).heat_map("house"))
    assert torch.nn.functional.scaled_dot_product_attention is sdpa
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.transformer.modules())
    assert "__call__" in vars(type(pipe)) and not hasattr(type(pipe).__call__, "_hook")


def test_two_pipelines_on_one_transformer_in_two_threads() -> None:
    """Only the traced pipeline is recorded, and both paint what they paint alone."""
    case, pipe, other = CASES["flux"], made.flux(), made.flux()
    other.transformer = pipe.transformer
    before = paint(pipe, case)
    results: dict[str, Tensor] = {}
    alone = paint(other, case, ["two cats"], None, num_inference_steps=6)
    with trace(pipe) as recording:
        thread = threading.Thread(
            target=lambda: results.update(other=paint(other, case, ["two cats"], None, num_inference_steps=6))
        )
        thread.start()
        during = paint(pipe, case)
        thread.join()
    assert torch.equal(during, before) and torch.equal(results["other"], alone)
    assert recording.num_generations == 1 and recording.heat_maps().steps == 2


def test_a_processor_whose_attention_cannot_be_heard_is_named() -> None:
    class Quiet:
        def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, *a: Any, **k: Any) -> Any:
            return hidden_states, encoder_hidden_states

    case, pipe = CASES["flux"], made.flux()
    pipe.transformer.transformer_blocks[0].attn.processor = Quiet()
    before = paint(pipe, case)
    with trace(pipe) as recording:
        during = paint(pipe, case)
    assert torch.equal(during, before)
    with pytest.raises(NothingRecorded, match=r"transformer_blocks\.0\.attn of FluxTransformer2DModel .* Quiet"):
        recording.heat_maps()


def test_a_backend_of_attention_is_heard_whatever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not go through PyTorch's own function, as flash and sage do not."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    def kernel(query: Tensor, key: Tensor, value: Tensor, scale: Any = None, **_: Any) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        return ((q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v).transpose(1, 2)

    case, pipe = CASES["flux"], made.flux()
    with trace(pipe) as recording:
        paint(pipe, case)
    wanted = recording.heat_maps().heat_map("house")
    active = _AttentionBackendRegistry._active_backend
    monkeypatch.setitem(_AttentionBackendRegistry._backends, AttentionBackendName(active), kernel)
    before = paint(pipe, case)
    with trace(pipe) as recording:
        during = paint(pipe, case)
    assert torch.equal(during, before)
    assert (recording.heat_maps().heat_map("house") - wanted).abs().max() < 1e-4


def whole(pipe: Any) -> None:
    pipe.transformer = torch.compile(pipe.transformer, backend="aot_eager", fullgraph=True)


def in_place(pipe: Any) -> None:
    pipe.transformer.compile(backend="aot_eager")


def each_block(pipe: Any) -> None:
    """Stable Diffusion 3 does not say which of its blocks are alike."""
    for block in pipe.transformer.transformer_blocks:
        block.compile(backend="aot_eager")


def by_blocks(pipe: Any) -> None:
    pipe.transformer.compile_repeated_blocks(backend="aot_eager", fullgraph=True)


@pytest.mark.parametrize(
    ("name", "compiled"), [("flux", whole), ("flux", in_place), ("flux", by_blocks), ("sd3", whole), ("sd3", each_block)]
)
def test_a_compiled_transformer_is_recorded_bit_identically(name: str, compiled: Callable[[Any], None]) -> None:
    torch._dynamo.reset()
    case, pipe = CASES[name], CASES[name].make()
    with trace(pipe) as recording:
        paint(pipe, case)
    wanted = recording.heat_maps().heat_maps()
    compiled(pipe)
    before = paint(pipe, case)
    with trace(pipe) as recording:
        during = paint(pipe, case)
    assert torch.equal(during, before) and torch.equal(paint(pipe, case), before)
    assert recording.num_generations == 1
    assert (recording.heat_maps().heat_maps() - wanted).abs().max() < 1e-5


def test_a_copy_of_the_scheduler_made_inside_a_trace_works_alone() -> None:
    import copy

    pipe = made.flux()
    with trace(pipe):
        twin = copy.deepcopy(pipe.scheduler)
        twin.set_timesteps(2)
        twin.step(torch.ones(1, 2, 3), twin.timesteps[0], torch.ones(1, 2, 3))
        assert pipe.scheduler.step_index is None and twin.step_index == 1


def test_a_model_that_nobody_knows_is_refused_by_name() -> None:
    from diffusers import DiTTransformer2DModel

    pipe = made.flux()
    pipe.transformer = torch.nn.Linear(1, 1)
    with pytest.raises(UnsupportedModel, match="Linear is a model that DAAM Lens does not know"):
        trace(pipe)
    pipe.transformer = DiTTransformer2DModel(num_attention_heads=1, attention_head_dim=4, num_layers=1, sample_size=4)
    with pytest.raises(UnsupportedModel, match="DiTTransformer2DModel cannot be read: it is told a class by number"):
        trace(pipe)


def test_steps_and_layers_apart_add_up_to_the_whole() -> None:
    case, pipe = CASES["flux"], made.flux()
    with trace(pipe, keep=("layers", "steps")) as recording:
        paint(pipe, case)
    maps = recording.heat_maps()
    assert [layer.name for layer in maps.layers] == ["transformer_blocks.0.attn", "single_transformer_blocks.0.attn"]
    parts = sum(maps.select(steps=[s], layers=[i]).heat_map("house") for s in (0, 1) for i in (0, 1))
    assert (parts - maps.heat_map("house")).abs().max() < 2e-2


@pytest.mark.parametrize("name", ["flux", "sd3", "pixart"])
def test_masks_are_propagated_along_the_attention_of_the_picture_to_itself(name: str) -> None:
    case, pipe = CASES[name], CASES[name].make()
    with trace(pipe) as recording:
        paint(pipe, case)
    for maps in recording:
        assert maps.self_attention is not None and maps.negative is None
        walk = maps.self_attention[4, 6]
        assert torch.allclose(walk.sum(-1), torch.ones(PATCHES)) and float(walk.std()) > 0.01
        result = maps.mask_result(maps.words[0], "walk")
        assert result.mask.shape == (HEIGHT, WIDTH)
    with trace(pipe, self_attention=False) as recording:
        paint(pipe, case)
    assert recording.heat_maps().self_attention is None


@pytest.mark.parametrize("name", ["flux", "sd3", "z-image"])
def test_what_the_words_attend_to(name: str) -> None:
    """text->image and text->text of both pictures and both sides, of prompts of different length, against float64."""
    case, pipe = CASES[name], CASES[name].make()
    before = paint(pipe, case)
    with trace(pipe, negative=True, relations=("text->image", "text->text")) as recording:
        during = paint(pipe, case)
    assert recording.failure is None and torch.equal(during, before)
    maps = list(recording)
    forwards: list[int] = []
    witness = Witness()
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: forwards.append(len(witness.calls)))
    with witness:
        paint(pipe, case)
    handle.remove()
    sides: list[Any] = [("prompt", PROMPTS, (("red", "green"), ("two", "cats"))), ("negative", NEGATIVES, None)]
    for side, texts, words in sides:
        for image in (0, 1):
            own = maps[image] if side == "prompt" else maps[image].negative
            one, other = words[image] if words else (own.words[0], own.words[-1])
            ones, others = (case.keys(pipe, texts[image], word) for word in (one, other))
            call, row = case.rows(side, image)
            found = rows_of(witness, forwards, case, call, row)
            picture = slice(case.first, case.first + PATCHES)
            look = sum(p[ones][:, picture].sum(0) for p in found)
            got = own.relation("text->image").heat_map(one).flatten()
            assert (got.double() - look).abs().max() / own.num_terms[4, 6] < 1e-5
            lean = sum(p[ones][:, others].sum(1).mean(0) for p in found) / own.num_terms[4, 6]
            assert abs(float(own.word_matrix([one, other])[0, 1]) - float(lean)) < 1e-5
            assert float(lean) > 1e-4


@pytest.mark.parametrize("name", ["flux", "sd3", "pixart", "wan"])
def test_heads_apart_are_those_of_each_head(name: str) -> None:
    """Against float64, of the last head alone; all heads together are the whole, of a video the mean over its frames."""
    case, pipe = CASES[name], CASES[name].make()
    with trace(pipe, keep="heads") as recording:
        paint(pipe, case)
    with pytest.raises(BadArgument, match="'castorini' is one of UNets"):
        recording.heat_maps(aggregation="castorini")
    forwards: list[int] = []
    witness = Witness()
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: forwards.append(len(witness.calls)))
    with witness:
        paint(pipe, case)
    handle.remove()
    for image, (maps, word) in enumerate(zip(recording, ("red", "cats"), strict=True)):
        assert maps.heads is not None
        call, row = case.rows("prompt", image)
        keys = case.keys(pipe, PROMPTS[image], word)
        found = rows_of(witness, forwards, case, call, row, head=1)
        wanted = sum(p[case.first : case.first + case.frames * PATCHES, keys].sum(-1) for p in found)
        wanted = wanted.unflatten(0, (case.frames, 4, 6)).mean(0)  # type: ignore[union-attr]
        assert (maps.select(heads=[1]).heat_map(word).double().squeeze() - wanted).abs().max() / maps.num_terms[4, 6] < 1e-5
        whole = maps.heat_map(word).reshape(case.frames, 4, 6).mean(0)
        assert (maps.select(heads=[0, 1]).heat_map(word).squeeze() - whole).abs().max() < 1e-4


def rows_of(witness: Witness, forwards: list[int], case: Case, call: int, row: int, head: int | None = None) -> list[Tensor]:
    """float64 `[n, keys]`, summed over heads or of one, of each layer of both steps."""
    each, found = len(forwards) // 2, []
    for step in (0, 1):
        first = forwards[step * each + call]
        last = next((f for f in forwards if f > first), len(witness.calls))
        sized = [i for i in range(first, last) if witness.calls[i][0].shape[-2] == case.size[0]]
        p = [witness.probabilities(i)[row] for i in sized if witness.calls[i][1].shape[-2] == case.size[1]]
        found += [x.sum(0) if head is None else x[head] for x in p]
    return found


def test_relations_that_a_model_has_not_are_refused() -> None:
    pipe = made.pixart()
    with trace(pipe, relations="text->text") as recording:
        paint(pipe, CASES["pixart"])
    with pytest.raises(NothingRecorded, match=r"in transformer_blocks\.0\.attn2 only the picture has queries"):
        recording.heat_maps()
    from daam_core import load_tiny

    with pytest.raises(UnsupportedModel, match=r"text->image cannot be recorded of .*: a UNet attends to its text"):
        trace(load_tiny(), relations=("image->text", "text->image"))
    with pytest.raises(BadArgument, match="relations are any of image->text, text->image, text->text, image->image, not"):
        trace(pipe, relations="text->words")  # type: ignore[arg-type]


def test_padding_behind_a_text_is_not_recorded() -> None:
    """Twenty columns, of which the last eleven are padding: it would cost more than all words."""
    case, pipe = CASES["flux"], made.flux()
    with trace(pipe) as recording:
        paint(pipe, case)
    maps = recording.heat_maps()
    assert maps.prompt.length == 9 and maps.prompt.padding == ()
    with pytest.raises(WordNotFound, match="no <padding> token"):
        maps.heat_map("<padding>")


def test_words_of_a_prompt_that_is_cut_off() -> None:
    case, pipe = CASES["flux"], made.flux()
    with trace(pipe) as recording:
        paint(pipe, case, ["a red house and a green tree"], None, max_sequence_length=6)
    maps = recording.heat_maps()
    assert maps.words == ["a", "red", "house", "and", "a#2"]
    assert maps.prompt.truncated == ("green", "tree")


class WithReference(FluxPipeline):
    """Shows its transformer a reference picture with the prompt in the same batch, ahead of the picture or behind it."""

    first = True

    @torch.no_grad()
    def __call__(self, prompt: str, **_: Any) -> Any:
        embeds, pooled, text_ids = self.encode_prompt(prompt, None, max_sequence_length=20)
        self.scheduler.set_timesteps(1)
        (t,) = self.scheduler.timesteps
        reference, latents = torch.randn(2, 1, PATCHES, 16, generator=torch.Generator().manual_seed(1))
        rows = [reference, latents] if self.first else [latents, reference]
        noise = self.transformer(
            torch.cat(rows), torch.cat([embeds, embeds]), torch.cat([pooled, pooled]), t.expand(2) / 1000,
            self._prepare_latent_image_ids(1, 4, 6, latents.device, latents.dtype), text_ids,
        ).sample  # fmt: skip
        return (self.scheduler.step(noise.sum(0, keepdim=True), t, latents).prev_sample,)


def test_a_reference_picture_ahead_of_the_picture_in_its_batch_is_refused() -> None:
    """The maps were those of the reference picture."""
    pipe: Any = WithReference(**CASES["flux"].make().components)
    with trace(pipe) as recording:
        pipe(PROMPTS[0])
        assert "shown several pictures with the same text" in (recording.failure or "")
        pipe.first = False
        pipe(PROMPTS[0])
    assert recording.failure is None and recording.heat_maps().words[:3] == ["a", "red", "house"]
