"""What concepts add to a step: `python -m benchmarks.concepts [--works tiny sd15 sdxl flux sd3] [--quick]`.

Steps without and with them take turns (A B A B). A large step scatters by more than concepts cost, so what is spent inside
them is clocked, too, and set against the plain step: what comes once a run (encoding, keys, proofs) apart from what each step
costs. Everything in processor time, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from daam_core import trace
from daam_core.capture.buffers import StoreOptions
from daam_core.capture.concept_reader import ConceptReader
from daam_core.capture.concept_streams import ConceptStreams
from daam_core.capture.concepts import ConceptRecording
from daam_core.capture.unet_concepts import UNetConcepts
from daam_core.diffusers import unet_trace

from . import joint
from .measure import median, run
from .report import table, write
from .shapes import PROMPT, build

CONCEPTS = (
    "sun", "moon", "star", "boat", "fish", "mushroom", "balloon", "flower", "car", "heart", "water", "sea", "sky", "snow",
    "grass", "night",
)  # fmt: skip
"""Words of one token each, as everyday nouns are in CLIP's vocabulary."""
_INSIDE: tuple[tuple[Any, str], ...] = (
    (UNetConcepts, "start"), (UNetConcepts, "add"), (ConceptRecording, "end_step"), (ConceptRecording, "release"),
    (ConceptReader, "begin"), (ConceptReader, "_enter"), (ConceptReader, "attention"), (ConceptStreams, "end_step"),
    (unet_trace, "encode_concepts"),
)  # fmt: skip
UNETS = {"tiny": (128, 20, 4), "sd15": (512, 1, 1), "sdxl": (512, 1, 1)}
"""(pixels a side, steps of a run behind the first, turns)."""
JOINT = {"flux": joint.WORKS["flux"], "sd3": joint.WORKS["sd3"]}
BOUNDS = {"tiny": "4 %", "sd15": "1 %", "sdxl": "1 %", "flux": "3 %", "sd3": "3 %"}


@contextmanager
def clocked() -> Iterator[list[float]]:
    """Seconds of processor time spent inside concepts so far, in one entry."""
    spent, depth = [0.0], [0]
    kept = [(owner, name, vars(owner).get(name)) for owner, name in _INSIDE]

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            depth[0] += 1
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                depth[0] -= 1
                if not depth[0]:
                    spent[0] += time.process_time() - start

        return call

    for owner, name in _INSIDE:
        setattr(owner, name, wrapped(getattr(owner, name)))
    try:
        yield spent
    finally:
        for owner, name, function in kept:
            if function is None:
                delattr(owner, name)
            else:
                setattr(owner, name, function)


Steps = Callable[[bool], tuple[list[float], list[float], float]]
"""`steps(concepts)`: (seconds of each step but the first, spent inside concepts after each step, spent when all is over)."""


def unet_steps(kind: str, quick: bool) -> Steps:
    """Steps of a pipeline with guidance."""
    side, count, _ = (128, 1, 1) if quick else UNETS[kind]
    pipe = build(kind)

    def steps(concepts: bool) -> tuple[list[float], list[float], float]:
        marks: list[float] = []
        inside: list[float] = []
        with clocked() as spent:

            def mark(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
                marks.append(time.process_time())
                inside.append(spent[0])
                return tensors

            options = {"prompt": PROMPT, "height": side, "width": side, "callback_on_step_end": mark}
            with trace(pipe, concepts=CONCEPTS) if concepts else nullcontext() as recording:
                run(pipe, count + 1, **options)
            assert recording is None or not recording.concept_failure
        return [after - before for before, after in zip(marks, marks[1:], strict=False)], inside, spent[0]

    return steps


def joint_steps(kind: str, quick: bool) -> Steps:
    """Steps of a joint model, called without a pipeline: its concepts' texts are given."""
    work = replace(joint.WORKS["host" if quick else kind], steps=1)
    model, given = work.make(), work.given()

    def steps(concepts: bool) -> tuple[list[float], list[float], float]:
        times, inside = [], []
        with clocked() as spent, torch.no_grad():
            recorded = joint.Recorded(model, given, work.columns, StoreOptions(), True) if concepts else nullcontext()
            with recorded as recording:
                for _ in range(2):
                    start = time.process_time()
                    model(**given, return_dict=False)
                    if recording is not None:
                        recording.recording.end_step()
                    times.append(time.process_time() - start)
                    inside.append(spent[0])
        return times[1:], inside, spent[0]

    return steps


def compare(kind: str, quick: bool) -> list[str]:
    """One line of the table."""
    torch.manual_seed(0)
    steps = unet_steps(kind, quick) if kind in UNETS else joint_steps(kind, quick)
    turns = 1 if quick or kind not in UNETS else UNETS[kind][2]
    plain, more, once, each = [], [], [], []
    for turn in tqdm(range(turns + 1), desc=kind):
        without, _, _ = steps(False)
        with_them, inside, total = steps(True)
        if turn or not turns > 1:  # what is set up in the first run is not counted where there are several
            plain += without
            more += with_them
            steady = (total - inside[0]) / max(1, len(inside) - 1)
            each.append(steady)
            once.append(max(0.0, inside[0] - steady))
        if turns == 1:
            break
    step, own, first = median(plain), median(each), median(once)
    return [
        f"{1000 * step:.1f} ms", f"{median(more) / step:.3f}", f"{1000 * own:.2f} ms", f"{100 * own / step:.2f} %",
        f"{1000 * first:.1f} ms", f"{100 * (own + first / 20) / step:.2f} %", BOUNDS[kind], str(turns),
    ]  # fmt: skip


TITLES: Mapping[str, str] = {
    "tiny": "the model inside, 128 px", "sd15": "SD 1.5 shape, 512 px", "sdxl": "SDXL shape, 512 px",
    **{name: work.name for name, work in JOINT.items()},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--works", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    args = parser.parse_args()
    head = [
        "step, processor time", "words and concepts, ratio", "inside concepts, a step", "of a step", "once a run",
        "of 20 steps, all in", "bound", "turns",
    ]  # fmt: skip
    note = f"{len(CONCEPTS)} concepts of one token each, beside words and, of UNets, self-attention; their rivals are in it."
    for kind in args.works:
        body = table(head, [compare(kind, args.quick)])
        if args.quick:
            print(body)
        else:
            write(f"Cost of concepts: {TITLES[kind]}", f"{note}\n\n{body}")


if __name__ == "__main__":
    main()
