"""The package of the paper's authors (PyPI `daam`), where it is installed, on the same work as ours."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

ABSENT = "not installed"
"""Shown in a table instead of a figure; README.md says how to install it beside a current diffusers."""


def package() -> Any:
    """The module `daam`, or None; nothing else hides behind a missing one."""
    try:
        import daam
    except ModuleNotFoundError:
        return None
    return daam


def tracer(pipe: Any) -> Callable[[], AbstractContextManager[Any]] | None:
    module = package()
    return None if module is None else lambda: module.trace(pipe)


def finaliser(maps: dict[tuple[int, int, int], Any], tokens: int) -> Any:
    """Its hooker's state after a run, without the run: head maps by (factor, layer, head), `[77, h, w]` each.

    Returns an object whose `compute_global_heat_map` is the package's own.
    """
    module = package()
    if module is None:
        return None
    kept = module.RawHeatMapCollection()
    for (factor, layer, head), heat in maps.items():
        kept.update(factor, layer, head, heat)
    tokenizer = SimpleNamespace(tokenize=lambda text: text.split())
    return SimpleNamespace(
        all_heat_maps=kept,
        last_prompt=" ".join(f"w{i + 1}" for i in range(tokens)),
        latent_hw=4096,
        pipe=SimpleNamespace(tokenizer=tokenizer),
        compute_global_heat_map=lambda self: module.trace.compute_global_heat_map(self),
    )
