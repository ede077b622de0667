"""What recording costs while a picture is made: `python -m benchmarks.step [--shapes tiny host sd15 sdxl] [--quick]`.

Runs take turns (A B C, B C A, …: plain diffusers, ours, castorini's), so that a slow minute of the machine hits all of them;
a time is the median over all steps but each run's first, a ratio the median of those within a turn. "Inside our code" is
what a busy machine disturbs little: the clock runs only while our own functions do, see `inside.py`.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tqdm import tqdm

from daam_core import trace

from . import castorini
from .inside import Inside
from .measure import in_turns, median, ratio, run, step_times
from .report import table, write
from .shapes import PROMPT, build, cross_attention_layers

Context = Callable[[], AbstractContextManager[Any]]
# (pixels a side, steps a run, turns); a host-bound step is milliseconds, an SDXL step on a CPU is most of a minute.
PLANS = {"tiny": (128, 20, 24), "host": (128, 10, 24), "sd15": (512, 1, 3), "sdxl": (512, 1, 2)}
NAMES = {
    "tiny": "the model inside, 128 px",
    "host": "SDXL layout, tiny channels, 128 px (host-bound)",
    "sd15": "SD 1.5 shape, 512 px",
    "sdxl": "SDXL shape, 512 px",
}


CONCEPTS = tuple(f"thing {number}" for number in range(16))
WITH_CONCEPTS = f"DAAM Lens, and {len(CONCEPTS)} concepts"
_RUNS = 4


def inside_step(pipe: Any, context: Context, steps: int, options: dict[str, Any]) -> float:
    """Seconds of a step in our own code, see `inside.py`: the mean over steps of the least that each took in any run."""
    runs = [_inside_run(pipe, context, steps, options) for _ in range(_RUNS)]
    return statistics.mean(min(step) for step in zip(*runs, strict=True))


def _inside_run(pipe: Any, context: Context, steps: int, options: dict[str, Any]) -> list[float]:
    marks: list[float] = []

    def mark(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        marks.append(inside.seconds)
        return tensors

    with Inside([pipe.unet]) as inside, context():
        run(pipe, steps + 1, callback_on_step_end=mark, **options)
    return [after - before for before, after in zip(marks, marks[1:], strict=False)]


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
    taken: dict[str, list[list[float]]] = {name: [] for name in every}
    run(pipe, 1, **options)
    for _, name, context in tqdm(in_turns(every, turns), desc=kind, total=turns * len(every)):
        with context():
            taken[name].append(step_times(pipe, steps, clock, **options))
    own = [name for name in every if name.startswith("DAAM Lens")]
    inside = {name: f"{1000 * inside_step(pipe, every[name], steps, options):.2f} ms" for name in own}
    plain = [median(turn) for turn in taken["plain diffusers"]]
    rows = []
    for name, own_turns in taken.items():
        times = [seconds for turn in own_turns for seconds in turn]
        found = ratio([median(turn) for turn in own_turns], plain)
        rows.append(
            [NAMES[kind], str(cross_attention_layers(pipe)), name, _span(median(times)), f"{found:.3f}",
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
        "inside our code",
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
