"""ComfyUI's own nodes for guidance, noise, hooks and split runs: the picture is what it was, the maps are the equation's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.hooks
import comfy.samplers
import graphs
import torch
import truth
from cases_nodes import run
from cases_patches import _lora
from graphs import check, encode, ksampler, listen, node, runs
from zoo import PROMPT, clip, empty, unet

NODES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "TCFG": ("nodes_tcfg", ()),
    "APG": ("nodes_apg", (1.0, 15.0, 0.0)),
    "CFGZeroStar": ("nodes_cfg", ()),
    "CFGNorm": ("nodes_cfg", (1.0,)),
    "Mahiro": ("nodes_mahiro", ()),
    "RenormCFG": ("nodes_lumina2", (100.0, 1.0)),
    "VideoLinearCFGGuidance": ("nodes_video_model", (1.0,)),
    "EpsilonScaling": ("nodes_eps", (1.005,)),
    "LazyCacheNode": ("nodes_easycache", (0.2, 0.0, 0.95, False)),
    "ModelSamplingDiscrete": ("nodes_model_advanced", ("lcm", False)),
    "ModelSamplingContinuousEDM": ("nodes_model_advanced", ("eps", 120.0, 0.002)),
}
"""Nodes from a model to a model: where they are, and what else they are given."""


def _through(change: Callable[[Any], Any]) -> Callable[[Any, Any], torch.Tensor]:
    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(change(model), encode(encoder, PROMPT), encode(encoder, "blurry"), empty(64, 64))

    return sample


def case_nodes_from_a_model_to_a_model() -> None:
    """Those that this ComfyUI has; some are newer."""
    there = 0
    for name, (module, more) in NODES.items():
        try:
            made = node(module, name)
        except (ImportError, AttributeError):
            continue
        check(unet("sd15"), clip("sd15"), _through(lambda model, made=made, more=more: made(model, *more)[0]), PROMPT)
        there += 1
    assert there >= 6, f"only {there} of these nodes were found"


def case_two_models_merged() -> None:
    merge = node("nodes_model_merging", "ModelMergeSimple")
    check(unet("sd15"), clip("sd15"), _through(lambda model: merge(model, unet("sd15"), 0.3)[0]), PROMPT)


def case_a_lora_whose_strength_changes_in_the_middle() -> None:
    """SetHookKeyframes: other weights from the second half of the run on."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        keyframes = comfy.hooks.HookKeyframeGroup()
        keyframes.add(comfy.hooks.HookKeyframe(strength=0.2, start_percent=0.0))
        keyframes.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=0.5))
        hooks = comfy.hooks.create_hook_lora(lora=_lora(), strength_model=1.0, strength_clip=0.0).clone()
        hooks.set_keyframes_on_hooks(keyframes)
        both = encode(encoder, PROMPT), encode(encoder, "blurry")
        positive, negative = node("nodes_hooks", "PairConditioningSetProperties")(*both, 1.0, "default", hooks=hooks)
        return ksampler(model, positive, negative, empty(64, 64), steps=4)

    check(unet("sd15"), clip("sd15"), sample, PROMPT)


def case_a_lora_on_clip_whose_strength_changes_in_the_middle() -> None:
    """SetClipHooks with a schedule: ComfyUI encodes the text once for each part of the run, and it is one prompt."""

    def scheduled(encoder: Any, each: bool = True) -> Any:
        keyframes = comfy.hooks.HookKeyframeGroup()
        for strength, start in ((0.0, 0.0), (1.0, 0.3), (0.5, 0.7)):
            keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
        hooks = comfy.hooks.create_hook_lora(lora=_lora(), strength_model=1.0, strength_clip=0.5).clone()
        hooks.set_keyframes_on_hooks(keyframes)
        return node("nodes_hooks", "SetClipHooks")(encoder, each, True, hooks)[0]

    def sample(model: Any, encoder: Any, *others: str) -> torch.Tensor:
        texts = [encode(scheduled(encoder), text) for text in (PROMPT, *others)]
        assert all(len(one) == 3 for one in texts), "the text is encoded for each part"
        return ksampler(model, [one for text in texts for one in text], encode(encoder, "blurry"), empty(64, 64), steps=4)

    (found,) = check(unet("sd15"), clip("sd15"), sample, PROMPT)
    graphs.same_words(found.words, PROMPT)
    heard = sample(*listen(unet("sd15"), clip("sd15")), "a boat", PROMPT)
    assert "boat" in runs.maps_of(heard)[0].words
    assert [word for word in runs.maps_of(heard)[0].words if "house" in word] == ["house", "house#2"], "two prompts of one text"
    (sky,) = run("Concepts", "sky")
    for each in (True, False):
        model, encoder = listen(unet("sd15"), clip("sd15"), concepts=sky)
        positive = encode(scheduled(encoder, each), PROMPT)
        heard = ksampler(model, positive, encode(encoder, "blurry"), empty(64, 64), seed=9 + each, steps=4)
        assert runs.maps_of(heard)[0].concepts == ([] if each else ["sky"])
        assert ("Switch schedule_clip off" in runs.RECORDINGS.note(heard)) == each


def case_a_run_in_two_parts() -> None:
    """SplitSigmas: one recording each, of its own steps, and together they are the whole run's."""

    def parts(model: Any, encoder: Any) -> list[torch.Tensor]:
        def custom(name: str, *args: Any) -> Any:
            return node("nodes_custom_sampler", name)(*args)

        guider = custom("CFGGuider", model, encode(encoder, PROMPT), encode(encoder, "blurry"), 5.0)[0]
        early, late = custom("SplitSigmas", custom("BasicScheduler", unet("sd15"), "normal", 5, 1.0)[0], 2)
        sampler, noise = comfy.samplers.sampler_object("euler"), custom("RandomNoise", 7)[0]
        first = custom("SamplerCustomAdvanced", noise, guider, sampler, early, empty(64, 64))
        second = custom("SamplerCustomAdvanced", custom("DisableNoise")[0], guider, sampler, late, first[0])
        return [one["samples"] for one in (*first, *second)]

    heard = parts(*listen(unet("sd15"), clip("sd15")))
    plain, true = truth.unet_maps(unet("sd15"), lambda model: parts(model, clip("sd15")))
    assert all(torch.equal(a, b) for a, b in zip(plain, heard, strict=True)), "recording changed the picture"
    maps = [runs.maps_of(latent)[0] for latent in heard]
    assert [one.steps for one in maps] == [2, 2, 3, 3]
    whole = sum(maps[i].heat_map("house", (64, 64)).double() for i in (0, 2))
    expected = truth.at_size(true, 0, graphs.columns(clip("sd15"), PROMPT, "house"), (64, 64))
    assert float((whole - expected).abs().max() / expected.max()) < 1e-5


def case_a_layer_s_numbers_change_their_precision_in_the_middle() -> None:
    """Queries and keys come in bfloat16 in two of four steps."""
    network, called = unet("sd15").model.diffusion_model, [0]

    def counted(*_: Any) -> None:
        called[0] += 1

    def rounded(_module: Any, _args: Any, out: torch.Tensor) -> torch.Tensor:
        return out.bfloat16() if called[0] % 4 in (2, 3) else out

    def whole(_module: Any, args: Any) -> Any:
        return (args[0].float(),)

    attentions = [a for m in network.modules() for b in getattr(m, "transformer_blocks", ()) for a in (b.attn1, b.attn2)]
    handles = [network.register_forward_pre_hook(counted)]
    for one in attentions:
        handles += [part.register_forward_hook(rounded) for part in (one.to_q, one.to_k, one.to_v)]
        handles.append(one.to_out.register_forward_pre_hook(whole))

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        called[0] = 0
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, "blurry"), empty(64, 64), steps=4)

    try:
        for keep in ({}, {"detail": "layers + steps"}, {"heads": True}, {"output_space": True}):
            assert check(unet("sd15"), clip("sd15"), sample, PROMPT, **keep)[0].steps == 4
    finally:
        for handle in handles:
            handle.remove()
