"""What output space adds to a step: `python -m benchmarks.output_space [--works sd15 flux] [--quick]`.

Steps without and with it take turns (A B A B); the figures are medians. A large step on a busy processor scatters by more than
output space costs, so what is spent inside it is clocked, too, and set against the plain step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

from daam_core import trace
from daam_core.capture import model_recorder
from daam_core.capture.buffers import StoreOptions
from daam_core.capture.output_sums import OutputSums
from daam_core.capture.unet_outputs import UNetOutputs

from . import joint
from .measure import median
from .report import table, write
from .shapes import PROMPT, build

TURNS = 3
_INSIDE: tuple[tuple[Any, str], ...] = (
    (UNetOutputs, "begin"), (UNetOutputs, "attended"), (UNetOutputs, "on_output"), (UNetOutputs, "end"),
    (model_recorder, "add_output_row"), (OutputSums, "end_step"),
)  # fmt: skip


@contextmanager
def clocked(clock: Callable[[], float]) -> Iterator[list[float]]:
    """Seconds that are spent inside output space, one entry a call."""
    spent: list[float] = []
    kept = [(owner, name, getattr(owner, name)) for owner, name in _INSIDE]

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = clock()
            result = function(*args)
            spent.append(clock() - start)
            return result

        return call

    for owner, name, function in kept:
        setattr(owner, name, wrapped(function))
    try:
        yield spent
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)


def unet_step(quick: bool) -> Callable[[bool], None]:
    """One step of SD 1.5's shape without guidance, recorded with output space or without."""
    side = 128 if quick else 512
    pipe = build("sd15")

    def step(output: bool) -> None:
        with trace(pipe, self_attention=False, output_space=output) as recording:
            context = pipe.encode_prompt(PROMPT, pipe.device, 1, False)[0]
            with torch.no_grad():
                pipe.unet(torch.randn(1, 4, side // 8, side // 8), torch.tensor([500]), encoder_hidden_states=context)
        assert not recording.output_failure

    return step


def flux_step(quick: bool) -> Callable[[bool], None]:
    """One step of Flux's layout, recorded with output space or without."""
    work = joint.WORKS["host" if quick else "flux"]
    model, given = work.make(), work.given()

    def step(output: bool) -> None:
        with torch.no_grad(), joint.Recorded(model, given, work.columns, StoreOptions(output=output)) as recorded:
            model(**given, return_dict=False)
            recorded.recording.end_step()

    return step


WORKS: Mapping[str, tuple[str, Callable[[bool], Callable[[bool], None]]]] = {
    "sd15": ("SD 1.5 shape, 512 px, one row", unet_step),
    "flux": ("Flux's layout, 4 + 8 blocks of 4 heads of 128, 4096 + 512", flux_step),
}


def compare(name: str, quick: bool, clock: Callable[[], float]) -> list[str]:
    """One line of the table."""
    torch.manual_seed(0)
    title, make = WORKS[name]
    step = make(quick)
    taken: dict[bool, list[float]] = {False: [], True: []}
    inside = []
    for _ in tqdm(range(TURNS), desc=name):
        for output in (False, True):
            with clocked(clock) as spent:
                start = clock()
                step(output)
                taken[output].append(clock() - start)
            if output:
                inside.append(sum(spent))
    plain, more, own = median(taken[False]), median(taken[True]), median(inside)
    return [title, f"{plain:.2f} s", f"{more / plain:.3f}", f"{1000 * own:.1f} ms", f"{100 * own / plain:.2f} %", str(TURNS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: for a machine that does other work, too")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    head = [
        "work", "step, processor time" if args.cpu_time else "step", "with output space, ratio", "inside output space",
        "of a step", "turns",
    ]  # fmt: skip
    note = (
        "Words only, without and with output space; the first step, in which it settles on its grid. What is spent inside it "
        "scatters least."
    )
    for name in args.works:
        body = table(head, [compare(name, args.quick, clock)])
        if args.quick:
            print(body)
        else:
            write(f"Cost of output space: {WORKS[name][0]}", f"{note}\n\n{body}")


if __name__ == "__main__":
    main()
