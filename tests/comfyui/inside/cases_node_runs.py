"""Nodes that run the sampler several times: maps of the last run alone say so, and no other maps do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from comfy_execution.utils import CurrentNodeContext
from graphs import encode, ksampler, listen, runs
from zoo import PROMPT, clip, empty, unet

import nodes as host_nodes

OTHER = "a blue boat"


def _note(latent: torch.Tensor) -> str:
    return runs.RECORDINGS.note(latent)


def _says(count: int) -> str:
    return f"One node ran the sampler {count} times for this picture"


def _turns(models: Sequence[Any], texts: Sequence[Any], empty_text: Any, steps: int, restore: bool) -> torch.Tensor:
    """As nodes for regions do: each step with a prompt of its own inside a mask, then the next one outside."""
    latent = torch.zeros(1, 4, 16, 16)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :6, :8] = 1
    for at in range(steps):
        for number, (model, text) in enumerate(zip(models, texts, strict=True)):
            before, inside = latent, mask if number else 1 - mask
            given = {"samples": latent, "noise_mask": inside}
            first = "enable" if at == number == 0 else "disable"
            latent = host_nodes.KSamplerAdvanced().sample(
                model, first, 5, steps, 7.0, "euler", "normal", text, empty_text, given, at, at + 1, "enable"
            )[0]["samples"]
            if restore and number and at < steps - 1:
                latent = before * (1 - inside) + latent * inside
    return latent


def case_regions_by_turns() -> None:
    """Two prompts, three steps, one step each: the maps are of the sixth run. With a Record each they are counted together."""
    encoder = clip("sd15")
    for apart in (False, True):
        model, recorded = listen(unet("sd15"), encoder)
        models = [model, listen(unet("sd15"), recorded)[0] if apart else model]
        texts = [encode(recorded, PROMPT), encode(recorded, OTHER)]
        with CurrentNodeContext("run", "1", 0):
            out = _turns(models, texts, encode(recorded, ""), 3, restore=apart)
        assert _says(6) in _note(out), (apart, _note(out))
        assert [maps.prompt.text for maps in runs.maps_of(out)] == [OTHER]


def _enlarged(model: Any, encoder: Any) -> Iterator[torch.Tensor]:
    text, none = encode(encoder, PROMPT), encode(encoder, "")
    latent = ksampler(model, text, none, empty(128, 160))
    yield latent
    for side in (20, 24):
        larger = host_nodes.LatentUpscale().upscale({"samples": latent}, "bislerp", side * 10, side * 8, "disabled")[0]
        latent = ksampler(model, text, none, larger, denoise=0.5)
        yield latent


def case_enlarged_bit_by_bit() -> None:
    with CurrentNodeContext("run", "1", 0):
        first, second, third = _enlarged(*listen(unet("sd15"), clip("sd15")))
    assert not _note(first)
    assert _says(2) in _note(second) and _says(3) in _note(third)


def case_enlarged_by_nodes() -> None:
    """Hires fix of several nodes, the very same runs: nobody needs to be told that each sampler's latent has its maps."""
    passes = _enlarged(*listen(unet("sd15"), clip("sd15")))
    for number in range(3):
        with CurrentNodeContext("run", str(number), 0):
            assert not _note(next(passes))


def case_a_batch_of_one_picture_and_one_of_a_batch() -> None:
    """Variations of what a first run composed (KSampler Variations of ComfyUI_essentials), and one of them refined."""
    model, encoder = listen(unet("sd15"), clip("sd15"))
    text, none = encode(encoder, PROMPT), encode(encoder, "")
    with CurrentNodeContext("run", "3", 0):
        first = ksampler(model, text, none, empty(64, 64))
        several = ksampler(model, text, none, {"samples": first.repeat(3, 1, 1, 1)}, denoise=0.5, seed=7)
        one = ksampler(model, text, none, {"samples": several[1:2]}, denoise=0.5, seed=8)
        others = ksampler(model, text, none, empty(64, 64, 2), seed=9)
    assert not _note(first) and not _note(others)
    assert _says(2) in _note(several) and _says(3) in _note(one)


def case_runs_that_have_nothing_to_do_with_each_other() -> None:
    """One node: a grid of seeds from an empty latent, the same picture painted over twice, a film's pictures one by one."""
    model, encoder = listen(unet("sd15"), clip("sd15"))
    text, none = encode(encoder, PROMPT), encode(encoder, "")
    with CurrentNodeContext("run", "1", 0):
        made = [ksampler(model, text, none, empty(128, 128), seed=seed) for seed in (1, 2)]
        shown = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1001))
        moved = shown + 0.3 * torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1002))
        mask = torch.zeros(1, 1, 16, 16)
        mask[..., :8] = 1
        for given in ({"samples": shown}, {"samples": shown}, {"samples": shown, "noise_mask": mask}, {"samples": moved}):
            made.append(ksampler(model, text, none, given, denoise=0.5, seed=len(made)))
    assert not any(map(_note, made))
    assert not _note(torch.cat(made))
    with CurrentNodeContext("run", "1", 0):  # the same node, executed again
        again = ksampler(model, text, none, {"samples": made[-1]}, denoise=0.5)
    assert "an earlier recorded run had given out" in _note(again) and "One node" not in _note(again)


def case_a_batch_of_several_nodes() -> None:
    """What is said of a picture is said of the batch that it is put into."""
    model, encoder = listen(unet("sd15"), clip("sd15"))
    text, none = encode(encoder, PROMPT), encode(encoder, "")
    alone = ksampler(model, text, none, empty(128, 128))
    with CurrentNodeContext("run", "2", 0):
        twice = ksampler(model, text, none, empty(128, 128), seed=9)
        twice = ksampler(model, text, none, {"samples": twice}, denoise=0.5)
    assert _says(2) in _note(torch.cat([alone, twice]))
