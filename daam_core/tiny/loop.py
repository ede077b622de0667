"""The training loop that all stages share: budget in images, resumption, checkpoints, progress lines.

The batch and the noise of step n are drawn from generators seeded with `(seed, n)`, so that a run that was killed
and started again computes the very numbers of a run that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..errors import BadArgument, CannotWrite
from . import checkpoint, optim

PAUSE_SECONDS = 2.0  # between two looks at whether a pause is over
Log = Callable[[str], None]
"""Takes one line about the progress."""


@dataclass
class Generators:
    """The random numbers of one step: a NumPy and a torch generator (CPU)."""

    numpy: np.random.Generator
    torch: torch.Generator

    @classmethod
    def of(cls, seed: int, step: int) -> Generators:
        """The generators of `step`."""
        numpy = np.random.default_rng([seed, step])
        return cls(numpy, torch.Generator().manual_seed(int(numpy.integers(0, 2**62))))


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a stage learns. `images` counts everything shown, captions or crops included."""

    images: int
    batch: int
    peak_rate: float
    warm_up: int = 100
    constant: float = 0.35
    ema: float = 0.0
    seed: int = 0

    def scaled(self, scale: float) -> Recipe:
        """The same with `scale` times as many images, one batch at least."""
        return replace(self, images=max(self.batch, round(self.images * scale)))


class Stage(Protocol):
    """What a stage brings: its modules, its optimisers and one step's loss."""

    name: str
    recipe: Recipe
    device: torch.device
    modules: dict[str, torch.nn.Module]
    averaged: dict[str, torch.nn.Module]
    optimisers: list[torch.optim.Optimizer]

    def loss(self, generators: Generators, batch: int, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of one batch and the figures for the progress line; `done` is the share of the budget, 0..1."""
        ...


@dataclass
class Progress:
    """How far a stage is."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0


@dataclass
class _Means:
    """Running means for the progress line."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def text(self) -> str:
        return ", ".join(f"{name} {self.sums[name] / self.counts[name]:.4g}" for name in self.sums)


def require_counts(**counts: int | None) -> None:
    """Raises BadArgument where one of the named numbers is given and below 1."""
    for name, number in counts.items():
        if number is not None and number < 1:
            raise BadArgument(f"The number of {name} must be at least 1, got {number}.")


def make_work_folder(work: Path) -> None:
    """Make the folder of states and caches; raises CannotWrite."""
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"The work folder {work} cannot be made: {error.strerror}.") from error


def state_file(work: Path, name: str) -> Path:
    """Where a stage keeps its checkpoint."""
    return work / f"{name}.safetensors"


def resume(stage: Stage, path: Path) -> Progress:
    """Take a stage up where its checkpoint left it; without one, start."""
    if not path.exists():
        return Progress()
    tensors, facts = checkpoint.read_state(path)
    checkpoint.load_modules(stage.modules, tensors)
    checkpoint.load_modules({f"ema-{k}": m for k, m in stage.averaged.items()}, tensors)
    checkpoint.load_optimisers(stage.optimisers, tensors)
    return Progress(int(facts["step"]), int(facts["images"]), float(facts["seconds"]))


def save(stage: Stage, path: Path, progress: Progress) -> None:
    """Write all that `resume` needs."""
    tensors = {
        **checkpoint.module_tensors(stage.modules),
        **checkpoint.module_tensors({f"ema-{k}": m for k, m in stage.averaged.items()}),
        **checkpoint.optimiser_tensors(stage.optimisers),
    }
    checkpoint.write_state(path, tensors, vars(progress))


def train_stage(
    stage: Stage, work: Path, log: Log, every: float = 90.0, log_every: float = 20.0, pause: Path | None = None
) -> Progress:
    """Train `stage` until its budget of images is spent, standing still while the file `pause` exists.

    The share of the budget sets the learning rate. A run that is started again with fewer images therefore cools down
    over what is left and ends as cleanly as one that was planned so.
    """
    path = state_file(work, stage.name)
    progress, recipe = resume(stage, path), stage.recipe
    if progress.images:
        log(f"{stage.name}: goes on after {progress.images:,} of {recipe.images:,} images")
    means, mark, marked_images = _Means(), time.monotonic(), progress.images
    saved = last = mark
    while progress.images < recipe.images:
        while pause is not None and pause.exists():
            time.sleep(PAUSE_SECONDS)
        done = progress.images / recipe.images
        rate = optim.cosine(progress.step, done, recipe.peak_rate, recipe.warm_up, recipe.constant)
        optim.set_rate(stage.optimisers, rate)
        loss, figures = stage.loss(Generators.of(recipe.seed, progress.step), recipe.batch, done)
        loss.backward()
        for module in stage.modules.values():
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimiser in stage.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        progress.step += 1
        progress.images += recipe.batch
        _average(stage, progress.step)
        means.add(figures)
        now = time.monotonic()
        progress.seconds, last = progress.seconds + now - last, now
        if now - mark > log_every:
            speed = (progress.images - marked_images) / (now - mark)
            left = (recipe.images - progress.images) / speed / 60
            log(
                f"{stage.name}: {progress.images:,} / {recipe.images:,} images, {speed:.0f} images/s, "
                f"{left:.1f} min left, rate {rate:.1e}, {means.text()}"
            )
            means, mark, marked_images = _Means(), now, progress.images
        if now - saved > every:
            save(stage, path, progress)
            saved = now
    save(stage, path, progress)
    log(f"{stage.name}: done, {progress.images:,} images in {progress.seconds / 60:.1f} min; {means.text()}")
    return progress


@torch.no_grad()
def _average(stage: Stage, step: int) -> None:
    decay = min(stage.recipe.ema, (1 + step) / (20 + step))
    for name, average in stage.averaged.items():
        torch._foreach_lerp_(list(average.parameters()), list(stage.modules[name].parameters()), 1.0 - decay)
        for mean, value in zip(average.buffers(), stage.modules[name].buffers(), strict=True):
            mean.copy_(value)
