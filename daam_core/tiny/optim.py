"""Optimisers: Muon for matrices, AdamW for the rest, and the learning-rate schedule of every stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import Parameter

from .precision import fast_dtype


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised by Newton-Schulz iterations (Jordan et al., 2024).

    The update is scaled to AdamW's typical root mean square, so that one learning rate serves both. Convolution
    kernels are taken as matrices [out, in * height * width].
    """

    def __init__(self, params: Iterable[Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; matrices of one shape are orthogonalised together."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[torch.Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault((p.shape[0], p[0].numel()), []).append(p)
            for (rows, columns), params in alike.items():
                momenta = []
                for p in params:
                    state = self.state[p]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(p)
                    momenta.append(state["momentum"])
                gradients: list[torch.Tensor] = [p.grad for p in params if p.grad is not None]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
                updates = orthogonalise(torch.stack([u.reshape(rows, columns) for u in ahead]))
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                steps = [u.reshape(p.shape) for u, p in zip(updates, params, strict=True)]
                torch._foreach_add_(params, steps, alpha=-group["lr"] * 0.2 * math.sqrt(max(rows, columns)))


def orthogonalise(matrices: torch.Tensor, iterations: int = 4) -> torch.Tensor:
    """The nearest matrices with singular values near 1, float32 [number, rows, columns].

    Works in bfloat16 where the device computes in it: the result only needs a sign-like accuracy. Where it does not, such
    products take twenty times as long as float32's.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    dtype = fast_dtype(matrices.device) or torch.float32
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype).contiguous()
    for _ in range(iterations):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()


def split(module: torch.nn.Module, plain: tuple[str, ...] = ()) -> tuple[list[Parameter], list[Parameter]]:
    """(matrices for Muon, everything else for AdamW); names that start with one of `plain` go to AdamW."""
    matrices: list[Parameter] = []
    others: list[Parameter] = []
    for name, p in module.named_parameters():
        if p.requires_grad:
            (matrices if p.ndim >= 2 and not name.startswith(plain) else others).append(p)
    return matrices, others


def adamw(params: Iterable[Parameter], weight_decay: float = 0.01) -> torch.optim.AdamW:
    """AdamW as all stages use it; the loop sets the learning rate."""
    return torch.optim.AdamW(params, lr=1.0, betas=(0.9, 0.99), weight_decay=weight_decay)


def cosine(step: int, done: float, peak: float, warm_up: int, constant: float) -> float:
    """Learning rate: linear warm-up, `constant` share of the run at the peak, then a cosine to one percent."""
    rise = min(1.0, (step + 1) / warm_up)
    fall = 0.0 if done < constant else min(1.0, (done - constant) / (1.0 - constant))
    return peak * rise * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * fall)))


def set_rate(optimisers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Give all parameter groups one learning rate."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            values: dict[str, Any] = group
            values["lr"] = rate
