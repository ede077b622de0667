"""Concepts and `output_space` of joint models beside what people do with them: a LoRA, bfloat16, areas, masks, odd sizes."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import cases_joint_concepts as concepts
import cases_output_space as output
import families
import folder_paths
import graphs
import safetensors.torch
import torch
from families_settings import Joint
from graphs import listen, runs
from zoo import TEXT

import nodes as host_nodes

ODD = {"size": (13, 21), "maps": Joint(0, TEXT, TEXT + 77, (7, 11))}
"""A latent that the models fill up to whole patches."""


@contextmanager
def _built(change: Callable[[Any], Any]) -> Iterator[None]:
    """Models are changed as soon as they are there."""
    honest = families.build
    with mock.patch.object(families, "build", lambda family: change(honest(family))):
        yield


# -- LoRA -----------------------------------------------------------------------------------------------------------------


def _write_lora(model: Any, path: Path) -> None:
    """Of rank 2, on every large layer of the blocks."""
    generator, state = torch.Generator().manual_seed(3), {}
    for name, module in model.model.diffusion_model.named_modules():
        if isinstance(module, torch.nn.Linear) and "blocks." in name:
            key = f"diffusion_model.{name}"
            state[f"{key}.lora_up.weight"] = torch.randn(module.weight.shape[0], 2, generator=generator) * 0.2
            state[f"{key}.lora_down.weight"] = torch.randn(2, module.weight.shape[1], generator=generator) * 0.2
    safetensors.torch.save_file(state, str(path))


def _with_lora(model: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        _write_lora(model, Path(folder) / "joint.safetensors")
        folder_paths.add_model_folder_path("loras", folder)
        folder_paths.filename_list_cache.pop("loras", None)
        changed = host_nodes.LoraLoaderModelOnly().load_lora_model_only(model, "joint.safetensors", 0.8)[0]
    assert len(changed.patches) > 8
    return changed


def case_lora_before_record() -> Any:
    """The blocks' own weights of this run, LoRA included, make the concepts' tokens."""
    with _built(_with_lora):
        return [one.check(name, images=2) for one in (concepts, output) for name in ("Flux", "SD3", "QwenImage")]


def case_lora_after_record() -> None:
    family, model = concepts.built("Flux")  # type: ignore[misc]
    carried = concepts.encoded(family.width)
    asked = {"concepts": carried.concepts, "output_space": True}
    with concepts.carrying(carried):
        sample = families.sampling(family, model)
        before = sample(listen(_with_lora(model), None, **asked)[0])
        kept = runs.maps_of(before)[0]
        without = runs.maps_of(sample(listen(model, None, **asked)[0]))[0]
        after = sample(_with_lora(listen(model, None, **asked)[0]))
        assert torch.equal(after, sample(_with_lora(model)))
    assert runs.RECORDINGS.note(after) == ""
    found = runs.maps_of(after)[0]
    assert torch.equal(found["lamp"], kept["lamp"])
    assert torch.equal(found.aggregate("output")["w1"], kept.aggregate("output")["w1"])
    assert not torch.equal(found["lamp"], without["lamp"])


# -- bfloat16 -------------------------------------------------------------------------------------------------------------


def _in_bfloat16(model: Any) -> Any:
    network = model.model.diffusion_model
    with torch.inference_mode(False):
        network.to(torch.bfloat16)
    network.dtype = torch.bfloat16
    return model


def case_everything_in_bfloat16() -> Any:
    """Against float64 on the numbers that the model rounded to 8 bits on the way."""
    with _built(_in_bfloat16), mock.patch.object(concepts.Witness, "tolerance", 0.03):
        found = [concepts.check(name) for name in ("Flux", "SD3", "QwenImage", "Lumina2")]
    with _built(_in_bfloat16), mock.patch.object(output.Outputs, "tolerance", 0.03):
        return found + [output.check(name) for name in ("Flux", "SD3", "QwenImage", "Lumina2")]


# -- latents ----------------------------------------------------------------------------------------------------------------


def _of_a_picture(family: Any, model: Any) -> torch.Tensor:
    shape = (family.images, model.model.latent_format.latent_channels, *family.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(8))


def case_pictures_of_odd_sizes() -> Any:
    """Image to image at 0.6, of a size that is no whole number of patches."""
    later = functools.partial(graphs.ksampler, denoise=0.6)
    with mock.patch.object(families, "_empty", _of_a_picture), mock.patch.object(graphs, "ksampler", later):
        names = ("Flux", "Chroma", "SD3", "QwenImage", "Lumina2")
        return [one.check(name, images=2, **ODD) for one in (concepts, output) for name in names]


def case_guidance_of_one() -> Any:
    return [concepts.check("Flux", cfg=1.0), output.check("Flux", cfg=1.0), output.check("Chroma", images=2, cfg=1.0)]


def case_the_negative_prompt_too() -> None:
    """It has an output of its own, and concepts are the prompt's."""
    family, model = concepts.built("Flux", images=2)  # type: ignore[misc]
    carried = concepts.encoded(family.width)
    with concepts.carrying(carried):
        sample = families.sampling(family, model)
        alone = runs.maps_of(sample(listen(model, None, concepts=carried.concepts)[0]))
        heard = sample(listen(model, None, concepts=carried.concepts, output_space=True, negative=True)[0])
        assert torch.equal(heard, sample(model))
        maps = runs.maps_of(heard)
        kept = runs.maps_of(sample(listen(model, None, output_space=True)[0]))
    assert runs.RECORDINGS.note(heard) == ""
    for one, other, positive in zip(maps, alone, kept, strict=True):
        assert torch.equal(one["lamp"], other["lamp"])
        assert one.presence("lamp").score == other.presence("lamp").score
        (grid,) = one.negative.output.scores
        assert torch.equal(one.positive.output.scores[grid], positive.positive.output.scores[grid])
        assert not torch.equal(one.negative.output.scores[grid], one.positive.output.scores[grid])


# -- several prompts --------------------------------------------------------------------------------------------------------


def _two_prompts(family: Any, model: Any, carried: Any, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function that samples with words w0… on the whole picture, and v0… where `change` puts them."""
    empty = families._empty(family, model)

    def cond(seed: int, letter: str) -> Any:
        made = families._context(family, seed)
        words = concepts.spaced([f"{letter}{i}" for i in range(concepts.WORDS)], family.columns)
        made[0][1].update(daam_lens_concepts=carried, daam_lens_prompts={"x": words})
        return made

    def sample(watched: Any) -> Any:
        both = host_nodes.ConditioningCombine().combine(cond(1, "w"), change(cond(4, "v"))[0])[0]
        negative = families._context(family, 2)
        return graphs.ksampler(watched, both, negative, {"samples": empty}, cfg=family.cfg, scheduler="simple")

    return sample


def _recorded(model: Any, carried: Any, sample: Callable[[Any], Any]) -> Any:
    before = graphs.state(model)
    heard = sample(listen(model, None, concepts=carried.concepts, output_space=True)[0])
    assert torch.equal(heard, sample(model)), "recording changed the picture"
    assert graphs.state(model) == before, "something was left on the model"
    assert runs.RECORDINGS.note(heard) == "", runs.RECORDINGS.note(heard)
    return runs.maps_of(heard)


def _compared(maps: Any, whole: Any, part: Any, put: Callable[[torch.Tensor], torch.Tensor], outputs: Any) -> float:
    """Concepts of both prompts together, `put` at their places; the output of each prompt's words."""
    for mine, others in ((whole.total, part.total), (whole.late, part.late)):
        mine[0] = mine[0] + put(others[0].T).T
    worst = float(whole.compare(maps, (6, 10)))
    scores = maps[0].positive.output.scores[6, 10].double()
    for letter, one, place in (("w", outputs[0], lambda x: x), ("v", outputs[1], put)):
        ((true,),) = one.scores.values()
        for i in range(concepts.WORDS):
            (channel,) = maps[0].positive.prompt.find(f"{letter}{i}").channels
            off = scores[channel].flatten() - place(true[None, :, 1 + i])[0]
            worst = max(worst, float(off.abs().max() / true.abs().max()))
    assert worst < 1e-5, f"off by {worst:.1e}"
    return worst


def _stream(carried: Any, family: Any, model: Any, sample: Any, nth: int | None = None) -> Any:
    found = concepts.Stream(carried, family, model)
    found.nth = nth
    found.watch(model, sample)
    return found


def case_area() -> float:
    """The right half's prompt: what its crop gives, at the crop's place."""
    family, model = concepts.built("Flux")  # type: ignore[misc]
    carried, set_area = concepts.encoded(family.width), host_nodes.ConditioningSetArea()
    sample = _two_prompts(family, model, carried, lambda cond: set_area.append(cond, 80, 96, 80, 0, 1.0))
    crop = concepts.dataclasses.replace(family, size=(12, 10), maps=Joint(0, TEXT, TEXT + 30, (6, 5)))
    both = [_stream(carried, one, model, sample) for one in (family, crop)]
    outputs = [output._of_transformer(one, model, sample) for one in (family, crop)]

    def put(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x.unflatten(-1, (6, 5)), (5, 0)).flatten(-2)

    return _compared(_recorded(model, carried, sample), *both, put, outputs)


def case_mask() -> float:
    """The upper half's prompt through a mask: rows of two prompts in one call."""
    family, model = concepts.built("Flux")  # type: ignore[misc]
    carried, set_mask = concepts.encoded(family.width), host_nodes.ConditioningSetMask()
    mask = torch.zeros(1, 96, 160)
    mask[:, :48] = 1
    sample = _two_prompts(family, model, carried, lambda cond: set_mask.append(cond, mask, "default", 1.0))
    both = [_stream(carried, family, model, sample, nth) for nth in (1, 0)]  # batched last to first
    outputs = [output._of_transformer(family, model, sample, nth) for nth in (1, 0)]

    def put(x: torch.Tensor) -> torch.Tensor:
        return x * (torch.arange(60) < 30)

    return _compared(_recorded(model, carried, sample), *both, put, outputs)
