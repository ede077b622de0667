"""When something is wrong: the picture is made, and one sentence says why there is no map."""

from __future__ import annotations

import re
from typing import Any

import comfy.model_management
import comfy.samplers
import graphs
import torch
import zoo
from graphs import encode, ksampler, listen, refusal, runs
from zoo import PROMPT, clip, empty, unet

session = graphs.importlib.import_module("daam-lens.nodes.capture.recording_session")


def _sample(model: Any, encoder: Any, **options: Any) -> torch.Tensor:
    return ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128), **options)


def case_a_latent_nobody_recorded() -> None:
    assert "No recording belongs to this latent" in refusal(torch.rand(1, 4, 16, 16))


def case_an_error_in_the_recorder() -> None:
    """Whatever goes wrong while listening, and wherever, the sampler never sees it."""
    plain = _sample(unet("sd15"), clip("sd15"))
    errors = (RuntimeError("boom"), MemoryError("full"), torch.cuda.OutOfMemoryError("full"))
    routes = [(session.AttentionRouter, name) for name in ("add_unet", "finish_call")]
    steps = [(session.Recording, name) for name in ("wants_self", "end_step", "finish")]
    for owner, name in ((session, "from_comfyui"), *routes, *steps):
        honest = getattr(owner, name)
        for error in errors:

            def broken(*_: Any, error: Exception = error) -> None:
                raise error

            setattr(owner, name, broken)
            try:
                heard = _sample(*listen(unet("sd15"), clip("sd15")))
            finally:
                setattr(owner, name, honest)
            assert torch.equal(plain, heard)
            said = refusal(heard)
            assert "the picture was still made" in said
            place = re.search(r"\(RuntimeError in (\w+)\.py, line \d+\)", said)
            assert (place is not None) != ("not enough memory" in said) and "boom" not in said
            assert place is None or place[1] != "cases_trouble", "a file that is none of ours"


def case_an_error_before_the_first_step() -> None:
    plain = _sample(unet("sd15"), clip("sd15"))
    honest = session.RecordingSession.__init__

    def broken(self: Any, *_: Any) -> None:
        raise ValueError("no session")

    session.RecordingSession.__init__ = broken
    try:
        heard = _sample(*listen(unet("sd15"), clip("sd15")))
    finally:
        session.RecordingSession.__init__ = honest
    assert torch.equal(plain, heard)
    assert "(ValueError in sampler_hooks.py, line " in refusal(heard)


def case_a_recording_that_cannot_be_kept() -> None:
    """Whatever becomes of the recording, with maps or without, the picture is made."""
    store = runs.RECORDINGS
    plain = _sample(unet("sd15"), clip("sd15"))

    def full(*_: Any, **__: Any) -> None:
        raise MemoryError("no room")

    store.keep = full
    try:
        for options in ({}, {"first_step": 50, "last_step": 60}):
            assert torch.equal(plain, _sample(*listen(unet("sd15"), clip("sd15"), **options)))
    finally:
        del store.keep


def case_interrupted_and_queued_again() -> None:
    """An interrupt in the middle leaves nothing behind, and the next run is whole."""
    model, encoder = listen(unet("sd15"), clip("sd15"))
    before = graphs.state(unet("sd15"))
    for after in (0, 1):
        stopped = model.clone()
        calls = iter(range(100))

        def stop(args: Any, after: int = after, calls: Any = calls) -> Any:
            if next(calls) == after:
                comfy.model_management.interrupt_current_processing()
            comfy.model_management.throw_exception_if_processing_interrupted()
            return args["denoised"]

        stopped.set_model_sampler_post_cfg_function(stop)
        try:
            _sample(stopped, encoder, steps=4)
            raise AssertionError("it was not interrupted")
        except comfy.model_management.InterruptProcessingException:
            pass
        assert graphs.state(unet("sd15")) == before
    heard = _sample(model, encoder)
    assert torch.equal(heard, _sample(unet("sd15"), clip("sd15")))
    assert runs.maps_of(heard)[0].steps == 2


def case_no_step_inside_the_limits() -> None:
    heard = _sample(*listen(unet("sd15"), clip("sd15"), first_step=50, last_step=60))
    assert "first and last step" in refusal(heard)


def case_a_sampler_that_does_no_step() -> None:
    """SplitSigmas at 0, as an unsampling graph has it by mistake: nobody set Record's limits."""
    model, encoder = listen(unet("sd15"), clip("sd15"))
    custom = [graphs.node("nodes_custom_sampler", name) for name in ("CFGGuider", "RandomNoise", "SamplerCustomAdvanced")]
    guider = custom[0](model, encode(encoder, PROMPT), encode(encoder, ""), 4.0)[0]
    sampler = comfy.samplers.sampler_object("euler")
    (heard, *_) = custom[2](custom[1](4)[0], guider, sampler, torch.tensor([14.6]), empty(64, 64))
    assert "The sampler did no step" in refusal(heard["samples"]), refusal(heard["samples"])


def case_a_model_without_cross_attention() -> None:
    """A model of a family that cannot be read: the picture is made."""

    def sample(model: Any) -> torch.Tensor:
        return ksampler(model, [[torch.zeros(1, 4, 64), {}]], [[torch.zeros(1, 4, 64), {}]], empty(128, 128))

    plain_model = unet("sd15").clone()
    plain_model.add_object_patch("diffusion_model", _Plain())
    plain = sample(plain_model)
    heard = sample(listen(plain_model, None)[0])
    assert torch.equal(plain, heard)
    assert "_Plain, is not one that DAAM Lens reads" in refusal(heard)


class _Plain(torch.nn.Module):
    dtype = torch.float32

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return x * 0.5


def case_nan_in_the_attention() -> None:
    model = unet("sd15").clone()

    def patch(n: Any, context: Any, value: Any, extra: Any) -> Any:
        return n * float("nan"), context, value

    model.set_model_attn2_patch(patch)
    heard = _sample(*listen(model, clip("sd15")))
    assert "not a number" in refusal(heard), refusal(heard)


def case_a_node_that_cuts_the_picture_into_tiles() -> None:
    """Tiled diffusion calls the model for parts of the picture: no wrong map is given out."""
    model = unet("sd15").clone()

    def tiled(apply: Any, given: Any) -> Any:
        halves = given["input"].chunk(2, 3)
        both = torch.cat(halves)
        c = {k: torch.cat([v, v]) if torch.is_tensor(v) else v for k, v in given["c"].items()}
        out = apply(both, torch.cat([given["timestep"]] * 2), **c)
        return torch.cat(out.chunk(2), 3)

    model.set_model_unet_function_wrapper(tiled)
    plain = _sample(model, clip("sd15"))
    heard = _sample(*listen(model, clip("sd15")))
    assert torch.equal(plain, heard)
    assert "cuts the picture into parts" in refusal(heard)


def case_same_graph_twice_and_with_a_new_seed() -> None:
    """Every queueing has maps of its own latent."""
    model, encoder = listen(unet("sd15"), clip("sd15"))
    first, again, other = (_sample(model, encoder, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    maps = [runs.maps_of(x)[0].heat_map("house") for x in (first, again, other)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])


def case_a_stored_run_holds_no_model() -> None:
    """Nothing that is kept keeps the model alive, or lies on its device."""
    import gc
    import weakref

    with torch.inference_mode(False):
        zoo.unet.cache_clear()
        model = zoo.unet("sd15")
    watched = weakref.ref(model.model.diffusion_model)
    heard = _sample(*listen(model, clip("sd15")))
    assert runs.maps_of(heard)
    del model
    zoo.unet.cache_clear()
    comfy.model_management.unload_all_models()
    comfy.model_management.cleanup_models_gc()
    gc.collect()
    assert watched() is None, gc.get_referrers(watched())


def case_two_records_of_one_picture() -> None:
    """The same picture, recorded with early steps and with late ones: the latent alone does not say which is meant."""
    node = graphs.importlib.import_module("daam-lens.nodes.capture.recording_store")
    early = _sample(*listen(unet("sd15"), clip("sd15"), last_step=0), steps=4)
    late = _sample(*listen(unet("sd15"), clip("sd15"), first_step=2), steps=4)
    assert torch.equal(early, late)
    first = runs.maps_of(early, among=[node.RecordInGraph("", {"last_step": 0})])
    last = runs.maps_of(early, among=[node.RecordInGraph("", {"first_step": 2})])
    assert (first[0].steps, last[0].steps) == (1, 2)
