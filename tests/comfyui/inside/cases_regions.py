"""Prompts that paint a part of the picture or of the run: where and when their heat lies, against the equation."""

from __future__ import annotations

from typing import Any

import graphs
import torch
import truth
from graphs import encode, ksampler, listen, node, runs
from zoo import PROMPT, clip, empty, unet

import nodes as host_nodes

OTHER = "a blue boat"


def _heard(sample: Any) -> Any:
    plain = sample(unet("sd15"), clip("sd15"))
    before = graphs.state(unet("sd15"))
    heard = sample(*listen(unet("sd15"), clip("sd15")))
    assert torch.equal(plain, heard), "recording changed the picture"
    assert graphs.state(unet("sd15")) == before, "something was left on the model"
    return runs.maps_of(heard)


def _true(sample: Any, calls: truth.Calls) -> truth.Maps:
    return truth.unet_maps(unet("sd15"), lambda m: sample(m, clip("sd15")), calls=calls)[1]


def _combined(change: Any, steps: int = 2) -> Any:
    """KSampler with PROMPT and OTHER combined, OTHER through `change`."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        part = change(encode(encoder, OTHER))[0]
        both = host_nodes.ConditioningCombine().combine(encode(encoder, PROMPT), part)[0]
        return ksampler(model, both, encode(encoder, "blurry"), empty(128, 128), steps=steps)

    return sample


class _OfShape(truth.Calls):
    """Only calls of the model with a latent of this size."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def wrapper(self, executor: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        self.index = 0 if tuple(x.shape[-2:]) == self.size else -1
        return super().wrapper(executor, x, *args, **kwargs)


def case_area() -> None:
    """The right half's prompt: its maps are those of the crop, at the crop's place."""
    set_area = host_nodes.ConditioningSetArea()
    sample = _combined(lambda cond: set_area.append(cond, 64, 128, 64, 0, 1.0))
    crop = _true(sample, _OfShape((16, 8)))
    assert sorted(crop) == [(8, 4), (16, 8)]
    placed = {(h, 2 * w): torch.nn.functional.pad(maps, (w, 0)) for (h, w), maps in crop.items()}
    found = _heard(sample)
    graphs.equal(found, placed, clip("sd15"), OTHER, ["boat"])
    graphs.equal(found, _true(sample, _OfShape((16, 16))), clip("sd15"), PROMPT, ["house", "tree"])


def case_mask() -> None:
    """The upper half's prompt through a mask: the whole picture is computed, the half counts."""
    mask = torch.zeros(1, 128, 128)
    mask[:, :64] = 1
    set_mask = host_nodes.ConditioningSetMask()
    sample = _combined(lambda cond: set_mask.append(cond, mask, "default", 1.0))
    maps = _true(sample, truth.Calls(nth=0))  # batched last to first
    masked = {grid: m.clone() for grid, m in maps.items()}
    for (h, _), m in masked.items():
        m[:, :, h // 2 :] = 0
    found = _heard(sample)
    graphs.equal(found, masked, clip("sd15"), OTHER, ["boat"])
    graphs.equal(found, _true(sample, truth.Calls(nth=1)), clip("sd15"), PROMPT, ["house", "tree"])


def case_mask_bounds() -> None:
    """A mask whose bounds become an area: crop and mask together."""
    mask = torch.zeros(1, 128, 128)
    mask[:, 64:, :] = 1
    set_mask = host_nodes.ConditioningSetMask()
    found = _heard(_combined(lambda cond: set_mask.append(cond, mask, "mask bounds", 1.0)))[0]
    boat = found.sums[16, 16][list(found.prompt.find("boat").rows)].sum(0)
    assert float(boat[:8].abs().max()) == 0
    assert float(boat[9:].min()) > 0


def case_timestep_range() -> None:
    """A prompt of the second half of the run."""
    ranged = host_nodes.ConditioningSetTimestepRange()
    middle = unet("sd15").get_model_object("model_sampling").percent_to_sigma(0.5)

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        early = ranged.set_range(encode(encoder, PROMPT), 0.0, 0.5)[0]
        late = ranged.set_range(encode(encoder, OTHER), 0.5, 1.0)[0]
        both = host_nodes.ConditioningCombine().combine(early, late)[0]
        return ksampler(model, both, encode(encoder, ""), empty(128, 128), steps=4)

    found = _heard(sample)
    graphs.equal(found, _true(sample, truth.Calls(when=lambda s: s > middle)), clip("sd15"), PROMPT, ["house", "tree"])
    graphs.equal(found, _true(sample, truth.Calls(when=lambda s: s < middle)), clip("sd15"), OTHER, ["boat"])


def case_default_prompt_for_the_rest() -> None:
    """ConditioningSetDefaultCombine: a prompt for all that no other one covers."""
    mask = torch.zeros(1, 128, 128)
    mask[:, :, :64] = 1

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        left = host_nodes.ConditioningSetMask().append(encode(encoder, OTHER), mask, "default", 1.0)[0]
        both = node("nodes_hooks", "ConditioningSetDefaultAndCombine")(left, encode(encoder, PROMPT))[0]
        return ksampler(model, both, encode(encoder, ""), empty(128, 128))

    words = _heard(sample)[0].words
    assert "boat" in words
    assert "house" in words


def case_conditioning_hooks() -> None:
    """A LoRA that belongs to one prompt only (hooks): each prompt is heard in the pass that it is sampled in."""
    import comfy.hooks
    from cases_patches import _lora

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        hooks = comfy.hooks.create_hook_lora(lora=_lora(), strength_model=1.0, strength_clip=0.0)
        with_lora = node("nodes_hooks", "ConditioningSetProperties")(encode(encoder, OTHER), 1.0, "default", hooks=hooks)[0]
        both = host_nodes.ConditioningCombine().combine(encode(encoder, PROMPT), with_lora)[0]
        return ksampler(model, both, encode(encoder, ""), empty(128, 128))

    found = _heard(sample)
    assert found[0].words[-1] == "boat"
    heads = sum(layer.heads for layer in found[0].layers)
    assert sum(found[0].terms.values()) == 2 * 2 * heads  # two steps, two passes
