"""The host's own nodes, called as ComfyUI calls them, and what every case checks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import truth

import nodes as host_nodes

pack = sys.modules["daam-lens"]
record = importlib.import_module("daam-lens.nodes.record").Record
runs = importlib.import_module("daam-lens.nodes.capture.recording_store")
errors = importlib.import_module("daam-lens.daam_core.errors")


def node(module: str, name: str) -> Callable[..., Any]:
    """A node of `comfy_extras`, whichever of the two styles it is written in: its outputs as a tuple."""
    found = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
    if hasattr(found, "define_schema"):
        return lambda *args, **kwargs: _outputs(found.execute(*args, **kwargs))
    return lambda *args, **kwargs: getattr(found(), found.FUNCTION)(*args, **kwargs)


def _outputs(given: Any) -> tuple[Any, ...]:
    return given if isinstance(given, tuple) else given.args


def listen(model: Any, clip: Any, **options: Any) -> tuple[Any, Any]:
    """Record."""
    return record.execute(model, clip, **options).args


def encode(clip: Any, text: str) -> Any:
    return host_nodes.CLIPTextEncode().encode(clip, text)[0]


def ksampler(model: Any, positive: Any, negative: Any, latent: Any, **options: Any) -> torch.Tensor:
    """Latents of a short run of KSampler."""
    asked = {"seed": 5, "steps": 2, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, **options}
    return host_nodes.KSampler().sample(
        model, asked["seed"], asked["steps"], asked["cfg"], asked["sampler_name"], asked["scheduler"], positive, negative,
        latent, asked["denoise"],
    )[0]["samples"]  # fmt: skip


_OWN = (
    "patches", "object_patches", "hook_patches", "wrappers", "callbacks", "additional_models", "attachments", "injections",
    "model_options",
)  # fmt: skip


def state(model: Any) -> Any:
    """What a run may not leave changed: the options and patches of a MODEL, the network's weights, and every attribute and
    hook of every module; tensors and functions are told by what they are, not by what they look like."""
    network = model.model
    weights = {name: float(x.double().sum()) for name, x in network.state_dict().items()}  # a LoRA may be put in anew
    modules = {name: _module(m) for name, m in network.named_modules()}
    return {name: _shape(getattr(model, name, None)) for name in _OWN}, weights, modules


def _module(module: torch.nn.Module) -> Any:
    """Names of attributes but the host's notes on the last run; what stands in them where it is a function or a hook."""
    own = {name: value for name, value in vars(module).items() if name not in ("current_patcher", "model_loaded_weight_memory")}
    return {name: _shape(v) if isinstance(v, dict) and "hooks" in name else callable(v) and id(v) for name, v in own.items()}


def _shape(thing: Any) -> Any:
    if isinstance(thing, dict):
        return {str(key): _shape(value) for key, value in thing.items()}
    return [_shape(x) for x in thing] if isinstance(thing, (list, tuple)) else id(thing)


def columns(clip: Any, text: str, word: str) -> list[int]:
    """Context columns of the first place of `word` in `text`, found by the tokenizer alone: chunks of 77, ids in order."""
    tokenize = clip.tokenizer.clip_l.tokenizer
    wanted = tokenize(word)["input_ids"][1:-1]
    chunks = next(iter(clip.tokenize(text).values()))
    flat = [(c * 77 + i, t[0]) for c, chunk in enumerate(chunks) for i, t in enumerate(chunk) if isinstance(t[0], int)]
    for at in range(len(flat)):
        if [t for _, t in flat[at : at + len(wanted)]] == wanted:
            return [column for column, _ in flat[at : at + len(wanted)]]
    raise AssertionError(f"{word!r} is not in {text!r}")


def same_words(found: Sequence[str], text: str) -> None:
    """The words are those of the text, repeated ones numbered."""
    counted: dict[str, int] = {}
    expected = []
    for word in text.split():
        counted[word] = counted.get(word, 0) + 1
        expected.append(word if counted[word] == 1 else f"{word}#{counted[word]}")
    assert list(found) == expected, (found, expected)


def check(
    model: Any,
    clip: Any,
    sample: Callable[[Any, Any], torch.Tensor],
    text: str,
    words: Sequence[str] = ("house", "tree"),
    index: int = 0,
    **options: Any,
) -> Any:
    """Sample with and without Record: the same latents, nothing left, and maps equal to the equation's.

    `sample(model, clip)` encodes and samples; `index` is where the sampler keeps the prompt's list. Returns the maps.
    """
    plain, true = truth.unet_maps(model, lambda watched: sample(watched, clip), index)
    before = state(model)
    heard_model, heard_clip = listen(model, clip, **options)
    heard = sample(heard_model, heard_clip)
    assert torch.equal(plain, heard), "recording changed the picture"
    assert state(model) == before, "something was left on the model"
    found = runs.maps_of(heard)
    assert len(found) == len(plain)
    equal(found, true, clip, text, words)
    return found


def equal(found: Any, true: truth.Maps, clip: Any, text: str, words: Sequence[str]) -> None:
    """The maps of every picture against the equation's, at picture size, to 1e-5 of the largest value."""
    for image, maps in enumerate(found):
        for word in words:
            expected = truth.at_size(true, image, columns(clip, text, word), maps.size)
            ours = maps.heat_map(word, maps.size).double()
            worst = float((ours - expected).abs().max() / expected.abs().max())
            assert worst < 1e-5, f"picture {image}, {word}: off by {worst:.2e}"


def refusal(samples: torch.Tensor) -> str:
    """The sentence that says why a latent has no maps."""
    try:
        runs.maps_of(samples)
    except errors.NothingRecorded as error:
        return str(error)
    raise AssertionError("there are maps")
