"""Holds the gradients of a compiled network against those of the same network as it is written.

A compiled training step once gave no gradient to everything below an upsampler: half of the UNet was never trained, and
no figure of the progress line told so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Forward = Callable[..., Any]
LEAST_COSINE = 0.5  # between two gradients of one parameter; rounding to bfloat16 costs a few hundredths


def gradients(module: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gradient of every trainable parameter under `loss`, zero where none arrives; the module's own are left empty."""
    module.zero_grad(set_to_none=True)
    loss().backward()
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
        for name, p in module.named_parameters()
        if p.requires_grad
    }
    module.zero_grad(set_to_none=True)
    return found


def lost_gradients(reference: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Names whose gradient is zero, not finite or points elsewhere than in `reference`.

    Points elsewhere: cosine below 0.5, or a norm that differs by more than a factor of two.

    Example:
        >>> import torch
        >>> right = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}
        >>> lost_gradients(right, {"a": torch.tensor([1.1, 2.0]), "b": torch.tensor([0.0])})
        ['b']
    """
    lost: list[str] = []
    for name, expected in reference.items():
        a, b = expected.double().flatten(), other[name].double().flatten()
        norms = float(a.norm()), float(b.norm())
        same = torch.dot(a, b) >= LEAST_COSINE * norms[0] * norms[1]
        if not (0.0 < norms[0] <= 2.0 * norms[1] <= 4.0 * norms[0] and bool(same)):
            lost.append(name)
    return lost
