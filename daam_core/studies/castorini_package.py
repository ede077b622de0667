"""castorini's own package (PyPI `daam`), where it is installed, on the same prompt and seed."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument, MissingPackage, NothingRecorded
from .baselines import TAUS
from .ground_truth import Observed
from .model_runner import ModelRunner
from .study import Unit

NAME = "castorini/daam package"
FACTORS = frozenset(range(200))
"""All of its layers. By default it takes those 1, 2, 4, 8, … times smaller than its latent side, which it believes to be 96
for pictures of 128 px: the embedded model's are 6, 12 and 24 times smaller, and it would find none."""
SAME_PICTURE = 2.0
"""Mean difference, 0..255, up to which its picture counts as the same: its own attention rounds otherwise."""


def check() -> None:
    """Raises MissingPackage where it cannot be imported."""
    _module()


def masks(unit: Unit, runner: ModelRunner, seen: Observed) -> dict[str, dict[tuple[str, float | None], Tensor]]:
    """Its masks by word, name and threshold, on the same picture, which it generates again with its own attention.

    Raises:
        BadArgument: pictures that are not generated.
        NothingRecorded: its picture is another one.
    """
    if unit.content["truth"] == "rendered" or unit.content.get("route") == "denoised":
        raise BadArgument("castorini's package records pictures while they are painted: leave out --with-package here.")
    pipe = runner.pipe
    generator = torch.Generator("cpu").manual_seed(unit.content["seed"])
    with _module().trace(pipe) as tracer:
        picture = np.asarray(pipe(unit.content["prompt"], generator=generator, **runner.how).images[0].convert("RGB"))
        whole = tracer.compute_global_heat_map(factors=FACTORS)
    difference = float(np.abs(picture.astype(np.int16) - seen.sample.image).mean())
    if difference > SAME_PICTURE:
        raise NothingRecorded(f"castorini's package painted another picture (mean difference {difference:.1f} of 255).")
    found: dict[str, dict[tuple[str, float | None], Tensor]] = {}
    for word in seen.masks:
        heat = whole.compute_word_heat_map(word)
        found[word] = {(NAME, tau): _hard(heat, seen.sample.image.shape[:2], tau) for tau in TAUS}
    return found


def _hard(heat: Any, size: tuple[int, int], tau: float) -> Tensor:
    """The package's own `expand_as`, which is min-max and `>`, at the picture's size: bool `[H, W]`."""
    # It asks the picture for nothing but its size, and hands that on as (height, width).
    return torch.as_tensor(heat.expand_as(SimpleNamespace(size=tuple(size)), threshold=tau)) > 0


def _module() -> Any:
    try:
        return import_module("daam")
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"castorini's package cannot be imported ({error}); benchmarks/README.md says how to install it beside a current "
            "diffusers."
        ) from error
