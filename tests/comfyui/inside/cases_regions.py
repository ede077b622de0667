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


class _OfText(truth.Calls):
    """Only the rows whose text is this one."""

    def __init__(self, text: str, when: Any = lambda sigma: True) -> None:
        super().__init__(when=when)
        self.text = encode(clip("sd15"), text)[0][0]

    def wrapper(self, executor: Any, x: Any, t: Any, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
                transformer_options: Any = None, **kwargs: Any) -> Any:  # fmt: skip
        heard = self.when(float(transformer_options["sigmas"][0]))
        self.rows = [row for row, text in enumerate(c_crossattn) if heard and torch.equal(text, self.text[0])]
        try:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        finally:
            self.rows = []


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
    """A mask whose bounds become an area: the maps are those of the crop, at the crop's place."""
    mask = torch.zeros(1, 128, 128)
    mask[:, 64:, :] = 1
    set_mask = host_nodes.ConditioningSetMask()
    sample = _combined(lambda cond: set_mask.append(cond, mask, "mask bounds", 1.0))
    crop = _true(sample, _OfShape((8, 16)))
    assert sorted(crop) == [(4, 8), (8, 16)]
    placed = {(2 * h, w): torch.nn.functional.pad(maps, (0, 0, h, 0)) for (h, w), maps in crop.items()}
    found = _heard(sample)
    graphs.equal(found, placed, clip("sd15"), OTHER, ["boat"])
    graphs.equal(found, _true(sample, _OfShape((16, 16))), clip("sd15"), PROMPT, ["house", "tree"])


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

    found = _heard(sample)
    for text, word, side in ((OTHER, "boat", slice(8, 16)), (PROMPT, "house", slice(0, 8))):
        maps = _true(sample, _OfText(text))
        for (_, w), m in maps.items():
            m[:, :, :, side.start * w // 16 : side.stop * w // 16] = 0
        graphs.equal(found, maps, clip("sd15"), text, [word])


def case_default_prompt_after_another_has_ended() -> None:
    """The prompt of the left half ends in the middle of the run: from then on the rest is the whole picture."""
    mask = torch.zeros(1, 128, 128)
    mask[:, :, :64] = 1
    middle = unet("sd15").get_model_object("model_sampling").percent_to_sigma(0.5)

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        left = host_nodes.ConditioningSetMask().append(encode(encoder, OTHER), mask, "default", 1.0)[0]
        early = host_nodes.ConditioningSetTimestepRange().set_range(left, 0.0, 0.5)[0]
        both = node("nodes_hooks", "ConditioningSetDefaultAndCombine")(early, encode(encoder, PROMPT))[0]
        return ksampler(model, both, encode(encoder, ""), empty(128, 128), steps=4)

    first = _true(sample, _OfText(PROMPT, lambda sigma: sigma > middle))
    maps = _true(sample, _OfText(PROMPT, lambda sigma: sigma < middle))
    for grid, m in first.items():
        m[:, :, :, : grid[1] // 2] = 0
        maps[grid] += m
    graphs.equal(_heard(sample), maps, clip("sd15"), PROMPT, ["house", "tree"])


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
    graphs.equal(found, _true(sample, _OfText(PROMPT)), clip("sd15"), PROMPT, ["house", "tree"])
    graphs.equal(found, _true(sample, _OfText(OTHER)), clip("sd15"), OTHER, ["boat"])
