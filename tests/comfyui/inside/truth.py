"""Eq. 6 from the model's own queries and keys, computed plainly in float64 and without anything of ours.

A run without Record is watched: forward hooks on `attn2.to_q` / `attn2.to_k` of a UNet, or an attention override for
transformers, and a wrapper that says which rows of each call are whose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP

Maps = dict[tuple[int, int], torch.Tensor]
"""Per grid (h, w): float64 `[images, columns, h, w]`, summed over heads, layers and steps."""


class Calls:
    """Which rows of the model's calls are wanted: `index` is the position of the list among the sampler's conditionings,
    `nth` counts those of this list in one call, `when` says at which sigmas."""

    def __init__(self, index: int = 0, nth: int | None = None, when: Callable[[float], bool] | None = None) -> None:
        self.index, self.nth, self.when = index, nth, when
        self.rows: list[int] = []
        self.shape: list[int] = []

    def wrapper(self, executor: Any, x: Any, t: Any, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
                transformer_options: Any = None, **kwargs: Any) -> Any:  # fmt: skip
        groups = transformer_options["cond_or_uncond"]
        images = x.shape[0] // len(groups)
        mine = [g for g, which in enumerate(groups) if which == self.index]
        mine = mine if self.nth is None else mine[self.nth : self.nth + 1]
        if self.when is not None and not self.when(float(transformer_options["sigmas"][0])):
            mine = []
        self.rows = [g * images + i for g in mine for i in range(images)]
        self.shape = list(x.shape)
        try:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        finally:
            self.rows = []


class FirstLook(Calls):
    """The first call of a step that holds the prompt: a second look at it is a guidance's, made to be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[float] = set()

    def wrapper(self, executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
        self.index = -1 if float(t[0]) in self.seen else 0
        self.seen.add(float(t[0]))
        return super().wrapper(executor, x, t, *args, **kwargs)


def unet_maps(model: Any, sample: Callable[[Any], Any], index: int = 0, calls: Calls | None = None) -> tuple[Any, Maps]:
    """(what `sample(model)` gave, the equation's maps of the conditionings at `index`), one prompt in one piece."""
    calls, maps, handles, held = calls or Calls(index), {}, [], {}
    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "truth", calls.wrapper)
    network = model.model.diffusion_model

    def grid(_module: Any, args: Any) -> None:
        held["grid"] = tuple(args[0].shape[-2:])

    def query(_module: Any, _args: Any, out: torch.Tensor) -> None:
        held["q"] = out.clone()

    def key(heads: int) -> Callable[..., None]:
        def keyed(_module: Any, _args: Any, out: torch.Tensor) -> None:
            for image, row in enumerate(calls.rows):
                add(maps, held["grid"], len(calls.rows), image, softmax(held["q"][row], out[row], heads))

        return keyed

    for module in network.modules():
        if hasattr(module, "transformer_blocks"):
            handles.append(module.register_forward_pre_hook(grid))
            for block in module.transformer_blocks:
                handles.append(block.attn2.to_q.register_forward_hook(query))
                handles.append(block.attn2.to_k.register_forward_hook(key(block.attn2.heads)))
    try:
        return sample(watched), maps
    finally:
        for handle in handles:
            handle.remove()


def self_attention(model: Any, sample: Callable[[Any], Any], grid: tuple[int, int], step: int) -> torch.Tensor:
    """How the picture looks at itself in one step of a UNet: float64 `[images, n, n]`, the mean of all heads and layers of
    this grid; only the prompt's rows."""
    calls, handles, held, found, steps = Calls(), [], {}, [], []
    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "truth", calls.wrapper)

    def begin(_module: Any, _args: Any) -> None:
        if calls.rows:
            steps.append(len(steps))

    def query(_module: Any, _args: Any, out: torch.Tensor) -> None:
        held["q"] = out.clone()

    def key(heads: int) -> Callable[..., None]:
        def keyed(_module: Any, _args: Any, out: torch.Tensor) -> None:
            if calls.rows and steps[-1] == step and out.shape[1] == grid[0] * grid[1]:
                found.append(torch.stack([softmax(held["q"][row], out[row], heads) / heads for row in calls.rows]))

        return keyed

    network = model.model.diffusion_model
    handles.append(network.register_forward_pre_hook(begin))
    for module in network.modules():
        for block in getattr(module, "transformer_blocks", ()):
            handles.append(block.attn1.to_q.register_forward_hook(query))
            handles.append(block.attn1.to_k.register_forward_hook(key(block.attn1.heads)))
    try:
        sample(watched)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found).mean(0)


def transformer_maps(
    model: Any, sample: Callable[[Any], Any], text: int, first: int, patches: tuple[int, int], cross: bool, index: int = 0
) -> tuple[Any, Maps]:
    """The same for a transformer: `text` columns come first, the picture's from `first` on; `cross`: in an attention of
    its own."""
    calls, maps = Calls(index), {}
    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "truth", calls.wrapper)
    picture = patches[0] * patches[1]

    def override(func: Any, *args: Any, **kwargs: Any) -> Any:
        q, k = args[:2]
        heads = args[3] if len(args) > 3 else kwargs["heads"]
        mask = args[4] if len(args) > 4 else kwargs.get("mask")
        if kwargs.get("skip_reshape"):
            q, k = (x.transpose(1, 2).flatten(2) for x in (q, k))
        n, keys = q.shape[1], k.shape[1]
        if k.shape[2] != q.shape[2]:  # grouped heads
            k = k.unflatten(2, (-1, q.shape[2] // heads)).repeat_interleave(q.shape[2] // k.shape[2], 2).flatten(2)
        joint = not cross and n == keys and keys > picture and keys - picture >= text
        if calls.rows and (joint or (cross and n == picture and keys == text)):
            for image, row in enumerate(calls.rows):
                bias = None if mask is None else mask_row(mask, row)
                at = first if joint else 0
                p = softmax(q[row, at : at + picture], k[row], heads, bias)
                add(maps, patches, len(calls.rows), image, p[:, :text])
        return func(*args, **kwargs)

    watched.model_options["transformer_options"]["optimized_attention_override"] = override
    return sample(watched), maps


def softmax(q: torch.Tensor, k: torch.Tensor, heads: int, bias: torch.Tensor | None = None) -> torch.Tensor:
    """float64 `[n, keys]`: softmax of each head over all keys, summed over heads; q `[n, heads * d]`, k `[keys, heads * d]`."""
    d = q.shape[-1] // heads
    total = torch.zeros(q.shape[0], k.shape[0], dtype=torch.float64)
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        scores = q[:, part].double() @ k[:, part].double().T / d**0.5
        scores = scores if bias is None else scores + bias
        e = (scores - scores.max(1, keepdim=True).values).exp()
        total += e / e.sum(1, keepdim=True)
    return total


def mask_row(mask: torch.Tensor, row: int) -> torch.Tensor:
    """What the model adds to the scores of one row, float64 `[1, keys]`."""
    flat = mask.reshape(mask.shape[0], -1, mask.shape[-1])
    one = flat[min(row, flat.shape[0] - 1)][-1:]
    if one.dtype == torch.bool:
        return torch.zeros(one.shape, dtype=torch.float64).masked_fill(~one, -torch.inf)
    return one.double()


def add(maps: Maps, grid: tuple[int, int], images: int, image: int, p: torch.Tensor) -> None:
    if grid not in maps:
        maps[grid] = torch.zeros(images, p.shape[1], *grid, dtype=torch.float64)
    maps[grid][image] += p.T.reshape(-1, *grid)


def at_size(maps: Maps, image: int, columns: list[int], size: tuple[int, int]) -> torch.Tensor:
    """The map of a word at picture size: bicubic, all resolutions summed. float64 `[H, W]`."""
    levels = [m[image, columns].sum(0)[None, None] for m in maps.values()]
    return sum(F.interpolate(level, size=size, mode="bicubic", align_corners=False)[0, 0] for level in levels)
