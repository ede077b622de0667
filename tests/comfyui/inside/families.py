"""Every class of `comfy.supported_models`: reduced and random, built by the host, sampled with Record and without."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import comfy.supported_models as models
import comfy.supported_models_base
import graphs
import torch
import truth
import zoo
from comfy.patcher_extension import WrappersMP
from families_films import FILMS, OTHERS, SEVERAL_TENSORS
from families_settings import PICTURES, UNET, UNETS, Cross, Family, Joint

registry = importlib.import_module("daam-lens.daam_core.capture.comfyui_families")
counting = importlib.import_module("daam-lens.daam_core.capture.counted_call")
unets = importlib.import_module("daam-lens.daam_core.capture.comfyui_model")
GROUPS: dict[str, tuple[Family, ...]] = UNETS | PICTURES | FILMS | OTHERS | SEVERAL_TENSORS
"""The classes of each case."""


def of_the_host() -> set[str]:
    """Names of the classes that this ComfyUI knows models by."""
    classes = {c for c in vars(models).values() if isinstance(c, type) and c.__module__ == models.__name__}
    return {c.__name__ for c in classes if issubclass(c, comfy.supported_models_base.BASE)}


def _host(name: str, settings: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    known = getattr(models, name)
    host = known({**known.unet_config, **settings})
    host.unet_config |= settings  # which the class fills up with what its checkpoints have
    host.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
    return host


@contextmanager
def _unset_memory_shows() -> Iterator[None]:
    """PyTorch fills memory that nobody has written to with NaN, so that what waits for a checkpoint can be told."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _fill_tables(network: torch.nn.Module) -> None:
    """Random numbers in the buffers that only a checkpoint would fill."""
    for buffer in network.buffers():
        if buffer.is_floating_point() and not bool(buffer.isfinite().all()):
            buffer.data.copy_(_random(tuple(buffer.shape), 5))


def build(family: Family, dtype: torch.dtype = torch.float32) -> Any:
    """MODEL of a class, with random weights; `dtype` is that of the weights of its linear layers."""
    settings = family.settings if family.params is None else zoo._known(*family.params, family.settings)
    weights = {name: _random(shape, 3) for name, shape in family.weights.items()}
    with torch.inference_mode(False), torch.no_grad(), _unset_memory_shows():
        patcher = zoo._patcher(_host(family.name, settings, dtype).get_model(weights, ""))
    for name, weight in patcher.model.diffusion_model.named_parameters():
        if "register_tokens" in name:  # large, so that maps of them in place of the text are far off
            weight.data *= 50
    _fill_tables(patcher.model.diffusion_model)
    for module in patcher.model.diffusion_model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.to(dtype)
    return patcher


def weightless(name: str) -> torch.nn.Module:
    """The network of a class in the size its code says, on the device without memory."""
    with torch.inference_mode(False):
        return _host(name, {}).get_model({}, "", device="meta").diffusion_model


def _random(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _context(family: Family, seed: int) -> Any:
    more = {"pooled_output": _random((1, family.pooled), seed)} if family.pooled else {}
    for i, (name, value) in enumerate(family.given.items()):
        more[name] = _random(value, seed + 10 * i) if isinstance(value, tuple) else value
        if name == "clip_vision_output":
            more[name] = SimpleNamespace(penultimate_hidden_states=more[name], last_hidden_state=more[name])
    return [[_random((1, family.columns, family.width), seed), more]]


def _empty(family: Family, model: Any) -> Any:
    """Samples of an empty LATENT."""
    if len(family.shapes) > 1:
        from comfy.nested_tensor import NestedTensor  # only in ComfyUIs that have such models

        return NestedTensor([torch.zeros(shape) for shape in family.shapes])
    latents = model.model.latent_format
    frames = (family.frames,) if latents.latent_dimensions == 3 else ()
    return torch.zeros(family.shapes[0] if family.shapes else (family.images, latents.latent_channels, *frames, *family.size))


def sampling(family: Family, model: Any, text: float = 1.0) -> Callable[[Any], Any]:
    """A function that samples with a clone of `model`; always the same. The context is multiplied by `text`."""
    empty = _empty(family, model)

    def sample(watched: Any) -> Any:
        positive, negative = _context(family, 1), _context(family, 2)
        positive[0][0], negative[0][0] = positive[0][0] * text, negative[0][0] * text
        return graphs.ksampler(watched, positive, negative, {"samples": empty}, cfg=family.cfg, scheduler="simple")

    return sample


def check(group: str) -> Any:
    """Sample with every class of a group, with Record and without: see `check_each`."""
    return check_each(GROUPS[group])


def check_each(group: tuple[Family, ...]) -> Any:
    """`check_built` of every class that this ComfyUI has."""
    here = [family for family in group if hasattr(models, family.name)]
    return [check_built(family, build(family)) for family in here] or "absent"


def check_built(family: Family, model: Any) -> dict[str, Any]:
    """Sample with Record and without, see `_same` and `_proved`; gives what was found, for the table of models."""
    network = model.model.diffusion_model
    sample = sampling(family, model)
    heard = _same(family, model, sample)
    known = registry.comfyui_model_of(network) or registry.comfyui_refusal(network) or unets.is_unet(network)
    assert known or not family.named, f"{type(network).__name__} is neither read nor refused with a reason"
    found: dict[str, Any] = {"class": family.name, "network": type(network).__name__, "reason": ""}
    found |= _proved(family, model, sample, _tensors(heard)[0])
    if "off" in found and isinstance(family.maps, (Joint, Cross)) and not family.mixes_text:
        _probed(family, model)
    names = [name for name, one in registry.COMFYUI_FAMILIES.items() if one is registry.comfyui_model_of(network)]
    return {**found, "families": names, "refused": registry.comfyui_refusal(network)}


def _probed(family: Family, model: Any) -> None:
    """Where the text is NaN, the keys that turn NaN at the first attention with text in it are the text."""
    where, seen = family.maps, []
    assert isinstance(where, (Joint, Cross))
    watched = model.clone()

    def override(func: Any, *args: Any, **kwargs: Any) -> Any:
        k = args[1].transpose(1, 2).flatten(2) if kwargs.get("skip_reshape") else args[1]
        q = args[0].transpose(1, 2).flatten(2) if kwargs.get("skip_reshape") else args[0]
        keys = where.places if isinstance(where, Joint) else where.keys or family.columns
        if (q.shape[1], k.shape[1]) == (where.places, keys) and not seen:
            seen.append(k[0].isnan().any(-1).nonzero().flatten().tolist())
        return func(*args, **kwargs)

    _run(family, watched, override, sampling(family, model, torch.nan))
    text, order = getattr(where, "text", 0), getattr(where, "order", ()) or range(family.columns)
    own = {text + i for i, column in enumerate(order) if column < family.columns}
    assert own <= set(seen[0]), f"{family.name}: {sorted(own - set(seen[0]))} are not text"
    if isinstance(where, Joint):
        places = family.frames * where.grid[0] * where.grid[1]
        picture = set(range(where.picture, where.picture + places))
        assert not picture & set(seen[0]), f"{family.name}: text stands among the picture"


def _same(family: Family, model: Any, sample: Callable[[Any], Any]) -> Any:
    """Latents with Record: exactly those without, and nothing is left on the model."""
    plain = sample(model)
    before = graphs.state(model)
    heard = sample(graphs.listen(model, None)[0])
    for without, recorded in zip(_tensors(plain), _tensors(heard), strict=True):
        assert bool(without.isfinite().all()), f"{family.name}: a latent without numbers proves nothing"
        assert float(without.std()) > 0, f"{family.name}: a latent of one number proves nothing"
        assert torch.equal(without, recorded), f"{family.name}: recording changed the picture"
    assert graphs.state(model) == before, f"{family.name}: something was left on the model"
    return heard


def _tensors(samples: Any) -> list[torch.Tensor]:
    return samples.unbind() if hasattr(samples, "tensors") else [samples]


def _proved(family: Family, model: Any, sample: Callable[[Any], Any], heard: torch.Tensor) -> dict[str, Any]:
    """The maps are the equation's; where there is no proof of them there are none, and the reason names the network."""
    true, deaf = _truth(family, model, sample)
    assert true or deaf or family.maps is None, f"{family.name}: the truth heard nothing"
    found: dict[str, Any] = {"reason": "", "off": 0.0}
    for image, latents in enumerate(heard):
        maps, reason = _recorded(latents)
        if maps is None:
            assert not true or family.refusable, f"{family.name}: {reason}"
            unnamed = deaf or not family.named
            assert unnamed or type(model.model.diffusion_model).__name__ in reason, f"{family.name} has no name in: {reason}"
            found = {"reason": reason}
            continue
        assert true, f"{family.name}: maps that nothing proves"
        network = model.model.diffusion_model
        assert unets.is_unet(network) or counting.text_blocks(network), f"{family.name}: nobody knows its blocks"
        sums_of_frames = {(maps.num_frames * h, w): _tall(sums) for (h, w), sums in maps.sums.items()}
        assert set(sums_of_frames) == set(true), (family.name, set(sums_of_frames), set(true))
        for grid, sums in sums_of_frames.items():
            expected = true[grid][image]
            worst = float((sums[1 : 1 + expected.shape[0]].double() - expected).abs().max() / expected.abs().max())
            assert worst < 1e-5, f"{family.name}, {grid}: off by {worst:.2e}"
            found["off"] = max(found["off"], worst)
    return found


def _tall(sums: torch.Tensor) -> torch.Tensor:
    """`[channels, h, w]`; the frames of a video, `[frames, channels, h, w]`, below each other."""
    return sums if sums.dim() == 3 else sums.movedim(1, 0).flatten(1, 2)


def _recorded(latents: torch.Tensor) -> tuple[Any, str]:
    """(the maps of a picture, None where there are none; the sentence that says why)."""
    try:
        return graphs.runs.RECORDINGS.recorded(latents), ""
    except graphs.errors.NothingRecorded as error:
        return None, str(error)


def _truth(family: Family, model: Any, sample: Callable[[Any], Any]) -> tuple[truth.Maps, bool]:
    """(the equation's maps, whether the network hands its options to no attention, so that nobody can hear one)."""
    if family.maps is None:
        return {}, False
    if family.maps == UNET:
        return truth.unet_maps(model, sample)[1], False
    calls, maps, heard, inside = truth.Calls(), {}, [], []
    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "truth", calls.wrapper)

    def override(func: Any, *args: Any, **kwargs: Any) -> Any:
        heard.append(func)
        if calls.rows and not inside:
            _add(maps, family, calls.rows, args, kwargs)
        return func(*args, **kwargs)

    with _apart(family, model, inside):
        _run(family, watched, override, sample)
    return maps, not heard


@contextmanager
def _apart(family: Family, model: Any, inside: list[Any]) -> Iterator[None]:
    """Keep in `inside` which of the blocks runs whose attention is not the picture's."""
    blocks = getattr(model.model.diffusion_model, family.apart) if family.apart else ()
    hooks = [block.register_forward_pre_hook(lambda *_: inside.append(1)) for block in blocks]
    hooks += [block.register_forward_hook(lambda *_: inside.clear()) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _run(family: Family, watched: Any, override: Callable[..., Any], sample: Callable[[Any], Any]) -> None:
    if family.module:
        own = importlib.import_module(f"comfy.ldm.{family.module}")
        with mock.patch.object(own, "optimized_attention", functools.partial(override, own.optimized_attention)):
            sample(watched)
        return
    watched.model_options["transformer_options"]["optimized_attention_override"] = override
    sample(watched)


def _add(maps: truth.Maps, family: Family, rows: list[int], args: Any, kwargs: Any) -> None:
    """Add one call of attention, if it is one that the family's layout speaks of."""
    where = family.maps
    assert isinstance(where, (Joint, Cross))
    q, k = args[:2]
    heads = args[3] if len(args) > 3 else kwargs["heads"]
    mask = args[4] if len(args) > 4 else kwargs.get("mask")
    if kwargs.get("skip_reshape"):
        q, k = (x.transpose(1, 2).flatten(2) for x in (q, k))
    keys = where.places if isinstance(where, Joint) else where.keys or family.columns
    if (q.shape[1], k.shape[1]) != (where.places, keys):
        return
    if k.shape[2] != q.shape[2]:  # grouped heads
        k = k.unflatten(2, (-1, q.shape[2] // heads)).repeat_interleave(q.shape[2] // k.shape[2], 2).flatten(2)
    text = where.text if isinstance(where, Joint) else 0
    for image, row in enumerate(rows):
        bias = None if mask is None else truth.mask_row(mask, row)
        tall = (family.frames * where.grid[0], where.grid[1])
        p = truth.softmax(q[row, where.picture : where.picture + tall[0] * tall[1]], k[row], heads, bias)
        order = getattr(where, "order", ()) or range(getattr(where, "keys", 0) or family.columns)
        columns = torch.zeros(len(p), max(order) + 1, dtype=p.dtype)
        columns.index_add_(1, torch.tensor(order), p[:, text : text + len(order)])
        truth.add(maps, tall, len(rows), image, columns)
