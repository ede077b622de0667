"""What recording a transformer costs, other work on the machine left out: `python -m benchmarks.joint_cost [--works …]`.

Time inside our own code (see `inside.py`) over a plain step's processor time, each step the least of several runs, in one
thread; kernels, waits for the device, bytes that stay, bytes that come and go.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from .inside import Inside
from .joint import WORDS, WORKS, Context, Recorded, Work, contexts, run_steps
from .measure import Calls, peak_bytes, tensor_bytes
from .report import table, write

HEAD = [
    "with", "plain step", "inside our code", "ratio by it", "kernels a layer", "waits", "kept of a picture",
    "temporaries",
]  # fmt: skip
NOTE = (
    f'{WORDS} words. "Ratio by it" is 1 + time inside our code / plain step. Kernels, waits and temporaries are those of a '
    "step beyond a plain one's, of small models the mean over eight steps; temporaries, of what it holds at its peak. The "
    "default keeps the picture's attention to itself in the first, fourth, ninth, … step; words only is what others record."
)
FIRST = "Here the step is the first, which keeps the picture's attention to itself."
PEER = "attention-map-diffusers"
_STEPS = 8


def least(runs: list[list[float]]) -> float:
    """Mean over steps of the least that each took in any run: their work is the same in all of them."""
    return statistics.mean(min(step) for step in zip(*runs, strict=True))


def inside_steps(model: nn.Module, given: dict[str, Any], work: Work, context: Context) -> list[float]:
    """Seconds in our own code of each step but those that warm up."""
    marks = [0.0]
    clock = time.perf_counter if work.steps > 1 else time.thread_time
    with Inside([model], clock) as inside, torch.no_grad(), context() as recorded:
        for step in range(work.steps + work.warm):
            given["timestep"] = given["timestep"] * 0 + (1.0 - step / 100)
            model(**given, return_dict=False)
            recorded.recording.end_step()
            marks.append(inside.seconds)
        recorded.recording.recording.release()
    marks[-1] = inside.seconds
    return [after - before for before, after in zip(marks, marks[1:], strict=False)][work.warm :]


def counted(model: nn.Module, given: dict[str, Any], context: Context, steps: int) -> tuple[float, float, int, float, int]:
    """(kernels a step, waits a step, layers, bytes kept, bytes at the peak of a step)."""
    kernels = waits = layers = 0
    kept = 0.0
    with torch.no_grad(), context() as recorded:
        ours = recorded if isinstance(recorded, Recorded) else None

        def step() -> None:
            model(**given, return_dict=False)
            if ours is not None:
                ours.recording.end_step()

        step()
        step()
        with Calls() as calls:
            for _ in range(steps):
                step()
        kernels, waits = calls.kernels, calls.waits
        peak = peak_bytes(step)
        if ours is not None:
            recording = ours.recording.recording
            recording.release()
            layers = len(recording.layers)
            accumulators = [group.accumulator for group in recording.groups]
            kept = tensor_bytes([[a.sums, a.self_attention] for a in accumulators])
        elif recorded is not None:
            kept = tensor_bytes([vars(part) for part in model.modules()]) - tensor_bytes(list(model.parameters()))
    return kernels / steps, waits / steps, layers, kept, peak


def rows(work: Work, turns: int) -> list[list[str]]:
    torch.manual_seed(0)
    model, given = work.make(), work.given()
    every = {name: one for name, one in contexts(model, given, work.columns).items() if "concepts" not in name}
    plain_context = every.pop("plain diffusers")
    plain: list[list[float]] = []
    own: dict[str, list[list[float]]] = {name: [] for name in every if name != PEER}
    for _ in tqdm(range(turns), desc=work.name):
        plain.append(run_steps(model, given, work, plain_context, time.process_time))
        for name, runs in own.items():
            runs.append(inside_steps(model, given, work, every[name]))
    steps = _STEPS if work.steps > 1 else 1
    kernels, waits, _, _, peak = counted(model, given, plain_context, steps)
    found = []
    for name, context in every.items():
        more, waiting, layers, kept, held = counted(model, given, context, steps)
        layers = layers or sum(getattr(part, "processor", None) is not None for part in model.modules())
        seconds = least(own[name]) if name in own else None
        found.append([
            name, _ms(least(plain)), "-" if seconds is None else _ms(seconds),
            "-" if seconds is None else f"{1 + seconds / least(plain):.3f}", f"{(more - kernels) / layers:+.2f}",
            f"{waiting - waits:g}", _mb(kept), _mb(held - peak),
        ])  # fmt: skip
    return found


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"


def _mb(count: float) -> str:
    return f"{count / 1e6:.2f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--turns", type=int, default=0, help="runs of each; by default 6 of small models and 2 of large ones")
    args = parser.parse_args()
    torch.set_num_threads(1)
    note = NOTE
    if importlib.util.find_spec("attention_map_diffusers") is not None:
        note += " attention-map-diffusers keeps the last step only, and makes its maps afterwards, which is not counted."
    for name in args.works:
        work = WORKS[name]
        found = rows(work, args.turns or (6 if work.steps > 1 else 2))
        write(f"Inside the recording: {work.name}", f"{note} {'' if work.steps > 1 else FIRST}\n\n{table(HEAD, found)}")


if __name__ == "__main__":
    main()
