"""What recording costs besides time: kernels, waits for the device, temporaries, memory: `python -m benchmarks.cost`."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from daam_core import trace
from daam_core.capture.accumulator import Accumulator
from daam_core.capture.buffers import StoreOptions

from .measure import Step, calls_a_step, peak_bytes, run, tensor_bytes
from .report import table, write
from .shapes import PROMPT, build, cross_attention_layers

WORDS = 15
ROWS = WORDS + 3  # start, one token a word, end, padding
KEYS = 77


@dataclass(frozen=True)
class Work:
    """Cross-attention of one step: (layers, grid side, heads, channels) per resolution."""

    name: str
    layers: tuple[tuple[int, int, int, int], ...]


SD15_512 = Work("SD 1.5, 512 px", ((5, 64, 8, 320), (5, 32, 8, 640), (5, 16, 8, 1280), (1, 8, 8, 1280)))
SDXL_1024 = Work("SDXL, 1024 px", ((10, 64, 10, 640), (60, 32, 20, 1280)))


def drive(work: Work, keep: StoreOptions, steps: int, bar: bool = False) -> Accumulator:
    """A accumulator fed with random queries and keys, as that work would: no UNet is needed to know what is kept."""
    accumulator = Accumulator(slice(0, 1), _select, keep)
    for _ in tqdm(range(steps), desc=work.name, disable=not bar):
        one_step(work, accumulator)
    return accumulator


def one_step(work: Work, accumulator: Accumulator | None) -> None:
    """All layers of one step; without a accumulator, only the making of their queries and keys."""
    number = 0
    for layers, side, heads, channels in work.layers:
        for _ in range(layers):
            # New numbers for every layer, as a model makes them: what a accumulator holds on to has to show.
            q, k = torch.rand(1, side * side, channels), torch.rand(1, KEYS, channels)
            if accumulator is not None:
                accumulator.add_cross(number, (side, side), q, k, heads, (channels // heads) ** -0.5)
            number += 1
    if accumulator is not None:
        accumulator.end_step()


def _select(_keys: int, _part: int) -> torch.Tensor:
    select = torch.zeros(1, KEYS, ROWS)
    for column in range(KEYS):
        select[:, column, min(column, ROWS - 1)] = 1
    return select


def memory_rows(quick: bool) -> list[list[str]]:
    """Bytes that stay and bytes that come and go."""
    rows = []
    for work, steps in ((SD15_512, 2), (SDXL_1024, 2), (SDXL_1024, 30)):
        for label, keep in (("sums", StoreOptions()), ("steps and layers apart", StoreOptions(layers=True, steps=True))):
            accumulator = drive(work, keep, min(steps, 2) if quick else steps, bar=True)
            accumulator.release()
            kept = tensor_bytes([accumulator.sums, accumulator.buffers, accumulator.heads, accumulator.self_attention])
            rows.append([work.name, str(accumulator.step_count), label, _mb(kept), _mb(temporaries(work, keep))])
    return rows


def temporaries(work: Work, keep: StoreOptions) -> int:
    """What a step holds at its peak, beyond what the same step holds when nobody records."""
    accumulator = drive(work, keep, 2)
    kept_before = tensor_bytes([accumulator.sums, accumulator.buffers])
    plain = peak_bytes(lambda: one_step(work, None))
    ours = peak_bytes(lambda: one_step(work, accumulator))
    return ours - plain - (tensor_bytes([accumulator.sums, accumulator.buffers]) - kept_before)


def kernel_rows() -> list[list[str]]:
    """Dispatcher calls that recording adds to a step, a cross-attention layer."""
    pipe = build("host")
    layers = cross_attention_layers(pipe)
    rows = []
    for label, images, dtype, words_only in (
        ("1 picture, float32, words only", 1, torch.float32, True),
        ("1 picture, bfloat16, words only", 1, torch.bfloat16, True),
        ("4 pictures, float32, words only", 4, torch.float32, True),
        ("1 picture, float32, self-attention too", 1, torch.float32, False),
    ):
        pipe = pipe.to(dtype)
        plain = _calls_a_step(pipe, images, None)
        ours = _calls_a_step(pipe, images, words_only)
        added = ours.kernels - plain.kernels
        rows.append(
            [label, f"{plain.kernels:g}", f"{added:.0f}", f"{added / layers:.2f}", f"{ours.waits - plain.waits:g}",
             f"{ours.moves - plain.moves:g}"]
        )  # fmt: skip
    return rows


def _calls_a_step(pipe: Any, images: int, words_only: bool | None) -> Step:
    def work(steps: int) -> None:
        with torch.no_grad(), nullcontext() if words_only is None else trace(pipe, self_attention=not words_only):
            run(pipe, steps, prompt=PROMPT, height=128, width=128, num_images_per_prompt=images)

    return calls_a_step(work, few=4, many=40)


def _mb(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two steps instead of 30: does it run at all?")
    args = parser.parse_args()
    memory = table(
        ["work", "steps", "kept", "retained a picture", "temporaries of a step, at most"],
        memory_rows(args.quick),
    )
    kernels = table(
        ["run", "kernels of a step, plain", "added", "added a layer", "waits added", "copies between devices added"],
        kernel_rows(),
    )
    if args.quick:
        print(memory, kernels, sep="\n\n")
        return
    bounds = "Bounds: 2 MB without detail, 100 MB with it, 64 MB temporaries."
    write("Memory of the accumulator", f"{WORDS} words. {bounds}\n\n{memory}")
    counted = "SDXL's 70 layers, counted by the dispatcher; views and allocations are no kernels."
    folding = "A step of many: small layers of several steps are worked off together, the others folded in three kernels."
    write("Kernels and waits", f"{counted} {folding}\n\n{kernels}")


if __name__ == "__main__":
    main()
