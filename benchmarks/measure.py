"""Clocks and counters: step times, kernels, synchronisations, bytes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")

_WAITS = ("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero", "aten::equal")
_FREE = (
    "aten::empty",
    "aten::new_empty",
    "aten::empty_strided",
    "aten::detach",
    "aten::alias",
    "aten::lift_fresh",
    "aten::_unsafe_view",
)


@dataclass
class Calls(TorchDispatchMode):
    """Counts what reaches the dispatcher: `kernels` (views and bare allocations are none), `waits` (calls that make
    the host wait for the device) and `moves` (copies between devices)."""

    kernels: int = 0
    waits: int = 0
    moves: int = 0
    names: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in _WAITS:
            self.waits += 1
        elif name == "aten::_to_copy" and kwargs.get("device") not in (None, args[0].device):
            self.moves += 1
        if not func.is_view and name not in _FREE:
            self.kernels += _copies(*args) if name == "aten::_foreach_copy_" else 1
            self.names[name] = self.names.get(name, 0) + 1
        return func(*args, **kwargs)


def _copies(places: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]) -> int:
    """Launches of one `_foreach_copy_` on a GPU: one for all where their layouts agree, else one for each."""
    same = all(place.stride() == tensor.stride() for place, tensor in zip(places, tensors, strict=True))
    return 1 if same else len(places)


class Step(NamedTuple):
    """Counts of one step."""

    kernels: float
    waits: float
    moves: float


def calls_a_step(work: Callable[[int], Any], few: int, many: int) -> Step:
    """What one step more adds to `work(steps)`: many steps less a few, so that setting up and finishing drop out, and what
    several steps do together is in it."""
    counts = []
    for steps in (few, many):
        with Calls() as calls:
            work(steps)
        counts.append(calls)
    short, long = counts
    differences = (long.kernels - short.kernels, long.waits - short.waits, long.moves - short.moves)
    return Step(*(difference / (many - few) for difference in differences))


def median(values: list[float]) -> float:
    return statistics.median(values)


def in_turns(ways: Mapping[str, T], turns: int) -> Iterator[tuple[int, str, T]]:
    """(turn, name, way) of every run; another way begins each turn, so that none profits from its place."""
    order = list(ways.items())
    for turn in range(turns):
        first = turn % len(order)
        for name, way in order[first:] + order[:first]:
            yield turn, name, way


def ratio(times: Sequence[float], without: Sequence[float]) -> float:
    """Median of the ratios within a turn: a machine that is slower for a while is so for both."""
    return median([a / b for a, b in zip(times, without, strict=True)])


def step_times(pipe: Any, steps: int, clock: Callable[[], float] = time.perf_counter, **options: Any) -> list[float]:
    """Seconds of each step of one run but the first, whose allocations and caches are not the steady state."""
    marks: list[float] = []

    def mark(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        marks.append(clock())
        return tensors

    run(pipe, steps + 1, callback_on_step_end=mark, **options)
    return [after - before for before, after in zip(marks, marks[1:], strict=False)]


def run(pipe: Any, steps: int, **options: Any) -> Any:
    """One seeded run up to the latents; decoding is not part of the work that is compared."""
    settings = {
        "num_inference_steps": steps,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
    } | options
    prompt = settings.pop("prompt")
    return pipe(prompt, **settings)


def timed(work: Callable[[], Any], times: int) -> float:
    """Median seconds of `work` after one warm-up."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return median(taken)


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes of CPU tensors that `work` held at once, beyond what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = work()
    del kept
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def tensor_bytes(thing: Any) -> int:
    """Bytes of all tensors reachable through attributes, dicts, lists and tuples; a shared storage counts once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(thing, set())}
    return sum(storages.values())


def _tensors(thing: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from _tensors(value, seen)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from _tensors(value, seen)
    elif hasattr(thing, "__dict__") and not callable(thing):
        yield from _tensors(vars(thing), seen)
