"""Another pack's attention override: recorded where it attends with the queries and keys that it is given, else refused.

The override is given the very function and arguments that it gets without Record, and the picture is bit-identical.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention as host_attention
import graphs
import torch
import zoo
from cases_patches import _sample
from cases_transformers import _context
from graphs import check, encode, ksampler, listen, runs
from zoo import PROMPT, TEXT, clip, transformer, unet

Override = Callable[..., Any]
named = importlib.import_module("daam-lens.nodes.capture.foreign_override").name_of


def _larger(factor: float) -> Override:
    def override(func: Any, q: Any, *args: Any, **kwargs: Any) -> Any:
        return func(q * factor, *args, **kwargs)

    return override


def _in_place(func: Any, q: Any, *args: Any, **kwargs: Any) -> Any:
    """Queries that are multiplied where they lie, and put back."""
    q.mul_(3)
    out = func(q, *args, **kwargs)
    q.div_(3)
    return out


def _shuffled(func: Any, q: Any, k: Any, *args: Any, **kwargs: Any) -> Any:
    return func(q, k.flip(-2), *args, **kwargs)


def _softened(func: Any, q: Any, k: Any, v: Any, heads: int, mask: Any = None, **kwargs: Any) -> Any:
    return _by_hand(q, k, v, heads, mask, kwargs, 0.6)


def _honest(func: Any, *args: Any, **kwargs: Any) -> Any:
    return func(*args, **kwargs)


def _own_kernel(func: Any, q: Any, k: Any, v: Any, heads: int, mask: Any = None, **kwargs: Any) -> Any:
    """Written out, in bfloat16, as a kernel of another pack would."""
    q, k, v = (x.bfloat16() for x in (q, k, v))
    return _by_hand(q, k, v, heads, mask, kwargs, 1.0).float()


def _of_a_third(func: Any, q: Any, *args: Any, **kwargs: Any) -> Any:
    """A third of the queries alone, as a region's prompt."""
    q = q.clone()
    q[..., : q.shape[-2] // 3, :] *= 3
    return func(q, *args, **kwargs)


def _by_hand(q: Any, k: Any, v: Any, heads: int, mask: Any, kwargs: Any, temperature: float) -> torch.Tensor:
    if not kwargs.get("skip_reshape"):
        width = q.shape[-1] // heads
        q, k, v = (x.unflatten(-1, (-1, width)) if x.dim() == 3 else x for x in (q, k, v))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)).float() * temperature / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    out = scores.softmax(-1).to(v.dtype) @ v
    return out if kwargs.get("skip_output_reshape") else out.transpose(1, 2).flatten(2)


WRONG = (_larger(3.0), _larger(1.5), _in_place, _shuffled, _softened, _of_a_third)
RIGHT = (_honest, _own_kernel, functools.partial(_honest))


def _with(override: Override, seen: list[Any] | None = None) -> Callable[[Any], Any]:
    """A MODEL with the override, whose calls are kept in `seen`: the function, and what is not a tensor of its arguments."""

    def watched(func: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((func, [tuple(x.shape) if isinstance(x, torch.Tensor) else x for x in args], sorted(kwargs)))
        return override(func, *args, **kwargs)

    def change(model: Any) -> Any:
        changed = model.clone()
        changed.model_options["transformer_options"]["optimized_attention_override"] = override if seen is None else watched
        return changed

    return change


def _refused(sample: Callable[[Any], Callable[[Any], torch.Tensor]], listened: Callable[[], Any], plain_of: Any) -> None:
    """`sample(change)(model)`: each wrong override has the picture it has without Record, and one sentence that names it."""
    for override in WRONG:
        calls: tuple[list[Any], list[Any]] = ([], [])
        plain = sample(_with(override, calls[0]))(plain_of())
        heard = sample(_with(override, calls[1]))(listened())
        assert torch.equal(plain, heard), "recording changed the picture"
        assert calls[0] == calls[1], "the override got other things than without Record"
        runs.RECORDINGS._kept.clear()
        said = graphs.refusal(sample(_with(override))(listened()))
        assert f"attention override, {named(override)}, gives out something else" in said, said
        assert "Record without that node" in said
        runs.RECORDINGS._kept.clear()


def case_a_unet_s_changed_attention_is_refused() -> None:
    def sample(change: Any) -> Any:
        return lambda pair: _sample(change)(*pair)

    _refused(sample, lambda: listen(unet("sd15"), clip("sd15")), lambda: (unet("sd15"), clip("sd15")))


def case_a_unet_s_honest_override_is_recorded() -> None:
    for override in RIGHT[:1]:
        check(unet("sd15"), clip("sd15"), _sample(_with(override)), PROMPT)
    for override in RIGHT[1:]:
        heard = _sample(_with(override))(*listen(unet("sd15"), clip("sd15")))
        assert len(runs.maps_of(heard)) == 1


def case_a_temperature_of_self_attention_alone() -> None:
    """The words are recorded where self-attention is not asked for; where it is, the sentence says what to do."""

    def override(func: Any, q: Any, k: Any, *args: Any, **kwargs: Any) -> Any:
        return func(q * 2 if q.shape == k.shape else q, k, *args, **kwargs)

    said = graphs.refusal(_sample(_with(override))(*listen(unet("sd15"), clip("sd15"))))
    assert "how the picture attends to itself" in said
    assert "`self_attention`" in said
    check(unet("sd15"), clip("sd15"), _sample(_with(override)), PROMPT, self_attention=False)


def case_an_override_that_begins_in_the_second_step() -> None:
    """With output_space, too, where attention takes another way through the listeners."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        calls: list[float] = []

        def override(func: Any, q: Any, *args: Any, **kwargs: Any) -> Any:
            sigma = float(kwargs["transformer_options"]["sigmas"][0])
            calls.append(sigma)
            return func(q * 3 if sigma < calls[0] else q, *args, **kwargs)

        return ksampler(_with(override)(model), encode(encoder, PROMPT), encode(encoder, ""), zoo.empty(128, 128), steps=4)

    for options in ({}, {"output_space": True}):
        plain = sample(unet("sd15"), clip("sd15"))
        heard = sample(*listen(unet("sd15"), clip("sd15"), **options))
        assert torch.equal(plain, heard)
        assert "gives out something else" in graphs.refusal(heard)
        runs.RECORDINGS._kept.clear()


def _of_transformer(kind: str, cfg: float = 3.0, **more: Any) -> Any:
    """(MODEL, sampling through a change of it), None where this ComfyUI does not have it."""
    built = transformer(kind)
    if built is None:
        return None
    model, channels, width, pooled = built
    latent = zoo.empty(96, 160, 1, channels)
    if kind in ("qwen", "wan"):
        latent["samples"] = latent["samples"].unsqueeze(2)

    def sample(change: Any) -> Any:
        def run(watched: Any) -> torch.Tensor:
            positive, negative = (_context(width, pooled, seed, TEXT, **more) for seed in (1, 2))
            return ksampler(change(watched), positive, negative, latent, cfg=cfg, scheduler="simple")

        return run

    return model, sample


def _transformers() -> list[Any]:
    """Joint attention with and without heads apart, with a mask (of one row: 0.3.64 has no other), with grouped keys, and
    cross-attention."""
    padded = torch.ones(1, TEXT, dtype=torch.long)
    padded[:, 17:] = 0
    found = [_of_transformer(kind) for kind in ("flux", "sd3", "wan")]
    found += [_of_transformer(kind, cfg=1.0, attention_mask=padded) for kind in ("qwen", "lumina2")]
    return [one for one in found if one is not None]


def case_a_transformer_s_changed_attention_is_refused() -> None:
    for model, sample in _transformers():
        _refused(sample, lambda model=model: listen(model, None)[0], lambda model=model: model)


def case_a_transformer_s_honest_override_is_recorded() -> None:
    """The same maps as without an override, to bfloat16."""
    for model, sample in _transformers():
        runs.RECORDINGS._kept.clear()
        (own,) = runs.RECORDINGS.recorded(sample(lambda m: m)(listen(model, None)[0])[0]).sums.values()
        for override in RIGHT:
            heard = sample(_with(override))(listen(model, None)[0])
            assert torch.equal(heard, sample(_with(override))(model))
            (sums,) = runs.RECORDINGS.recorded(heard[0]).sums.values()
            assert float((sums - own).abs().max() / own.max()) < 0.03


def case_the_host_s_own_kernels_by_an_override() -> None:
    """ComfyUI's attention functions, chosen by another pack's node (or by ComfyUI's own, in newer versions)."""
    for name in ("attention_basic", "attention_sub_quad", "attention_split", "attention_pytorch"):
        kernel = getattr(host_attention, name)

        def change(model: Any, kernel: Any = kernel) -> Any:
            changed = model.clone()
            if hasattr(changed, "set_model_optimized_attention"):
                changed.set_model_optimized_attention(kernel)
                return changed
            return _with(lambda func, *args, **kwargs: kernel(*args, **kwargs))(model)

        check(unet("sd15"), clip("sd15"), _sample(change), PROMPT)
