"""What recording costs while a picture is made: `python -m benchmarks.step [--shapes tiny host sd15 sdxl] [--quick]`.

Runs take turns (A B C A B C …: plain diffusers, ours, castorini's), so that a slow minute of the machine hits all of
them; the figure is the median over all steps but each run's first.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tqdm import tqdm

from daam_core import trace
from daam_core.capture.unet_recording import UNetRecording

from . import castorini
from .measure import median, run, step_times
from .report import table, write
from .shapes import PROMPT, build, cross_attention_layers

Context = Callable[[], AbstractContextManager[Any]]
# (pixels a side, steps a run, turns); a host-bound step is milliseconds, an SDXL step on a CPU is most of a minute.
PLANS = {"tiny": (128, 20, 12), "host": (128, 10, 12), "sd15": (512, 1, 3), "sdxl": (512, 1, 2)}
NAMES = {
    "tiny": "the model inside, 128 px",
    "host": "SDXL layout, tiny channels, 128 px (host-bound)",
    "sd15": "SD 1.5 shape, 512 px",
    "sdxl": "SDXL shape, 512 px",
}


CONCEPTS = tuple(f"thing {number}" for number in range(16))
WITH_CONCEPTS = f"DAAM Lens, and {len(CONCEPTS)} concepts"
_OWN = ("begin_forward", "on_attention", "end_forward", "end_step")


class OwnTime:
    """Seconds spent inside our own callbacks, steps counted by the UNet's end."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = 0

    def __enter__(self) -> OwnTime:
        self._kept = {name: getattr(UNetRecording, name) for name in _OWN}
        for name, method in self._kept.items():
            setattr(UNetRecording, name, self._clocked(method, name == "end_forward"))
        return self

    def __exit__(self, *_: object) -> None:
        for name, method in self._kept.items():
            setattr(UNetRecording, name, method)

    def _clocked(self, method: Callable[..., Any], ends_step: bool) -> Callable[..., Any]:
        def clocked(*args: Any) -> Any:
            start = time.perf_counter()
            result = method(*args)
            self.seconds += time.perf_counter() - start
            self.steps += ends_step
            return result

        return clocked


def contexts(pipe: Any) -> dict[str, Context]:
    """What is compared, in the order of the turns."""
    every: dict[str, Context] = {
        "plain diffusers": nullcontext,
        "DAAM Lens": lambda: trace(pipe),
        "DAAM Lens, words only": lambda: trace(pipe, self_attention=False),
        WITH_CONCEPTS: lambda: trace(pipe, concepts=CONCEPTS),
    }
    other = castorini.tracer(pipe)
    return every if other is None else every | {"castorini/daam": other}


def compare(kind: str, quick: bool, cpu_time: bool) -> list[list[str]]:
    """Rows of the table for one shape."""
    side, steps, turns = (128, 1, 2) if quick else PLANS[kind]
    clock = time.process_time if cpu_time else time.perf_counter
    pipe = build(kind)
    options = {"prompt": PROMPT, "height": side, "width": side}
    every = contexts(pipe)
    if steps == 1:  # of a large step, what self-attention costs would not show
        del every["DAAM Lens, words only"]
    taken: dict[str, list[float]] = {name: [] for name in every}
    run(pipe, 1, **options)
    for _ in tqdm(range(turns), desc=kind):
        for name, context in every.items():
            with context():
                taken[name] += step_times(pipe, steps, clock, **options)
    inside = {}
    for name in ("DAAM Lens", WITH_CONCEPTS):
        with OwnTime() as own, every[name]():
            run(pipe, steps + 1, **options)
        inside[name] = f"{1000 * own.seconds / max(1, own.steps):.2f} ms"
    plain = median(taken["plain diffusers"])
    rows = []
    for name, times in taken.items():
        rows.append(
            [NAMES[kind], str(cross_attention_layers(pipe)), name, _span(median(times)), f"{median(times) / plain:.3f}",
             inside.get(name, "-"), str(len(times))]
        )  # fmt: skip
    if "castorini/daam" not in taken:
        rows.append([NAMES[kind], str(cross_attention_layers(pipe)), "castorini/daam", castorini.ABSENT, "-", "-", "-"])
    return rows


def _span(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--quick", action="store_true", help="two short turns at 128 px: does it run at all?")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count this process's own processor time: for a machine that does other work, too",
    )
    args = parser.parse_args()
    head = [
        "work",
        "cross-attention layers",
        "with",
        "step, processor time" if args.cpu_time else "step, median",
        "ratio",
        "inside our hooks",
        "steps timed",
    ]
    for kind in args.shapes:
        title = f"Cost of a step: {NAMES[kind]}"
        body = table(head, compare(kind, args.quick, args.cpu_time))
        gc.collect()
        if args.quick:
            print(body)
        else:
            write(title, body)


if __name__ == "__main__":
    main()
