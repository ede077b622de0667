"""From a finished run to picture-sized maps of 15 words: `python -m benchmarks.finalise [--quick]`.

Both sides start from the same finished SDXL or SD 1.5 recording: ours from its sums, castorini's from its maps per head.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from daam_core import HeatMaps, Prompt
from daam_core.capture.buffers import StoreOptions
from daam_core.types import Layer

from . import castorini
from .cost import KEYS, ROWS, SD15_512, SDXL_1024, WORDS, Work, drive
from .measure import peak_bytes, tensor_bytes, timed
from .report import table, write

# castorini leaves out the mid block; of SDXL's 70 layers that is ten at 32 x 32, of SD 1.5's 16 the one at 8 x 8.
_MID = {SDXL_1024.name: {32: 10}, SD15_512.name: {8: 1}}
_PIXELS = {SDXL_1024.name: 1024, SD15_512.name: 512}


def our_maps(work: Work) -> HeatMaps:
    """Heat maps of one recorded step of that work."""
    from daam_core.capture.extraction import recorded_image

    accumulator = drive(work, StoreOptions(), steps=1)
    layers = [Layer(f"layer {i}", "down", heads, 1.0) for count, _, heads, _ in work.layers for i in range(count)]
    side = _PIXELS[work.name]
    return HeatMaps({"prompt": recorded_image(accumulator, layers, [_prompt()], 0, [0.0])}, (side, side))


def _prompt() -> Prompt:
    from daam_core.prompt.prompt import Token, Word

    tokens = tuple(Token(i, f"w{i}", i) for i in range(1, WORDS + 1))
    words = tuple(Word(f"w{i}", f"w{i}", (i,)) for i in range(1, WORDS + 1))
    return Prompt(" ".join(w.text for w in words), tokens, words, (0,), (ROWS - 2,), tuple(range(ROWS - 1, KEYS)), KEYS)


def their_maps(work: Work, quick: bool) -> dict[tuple[int, int, int], torch.Tensor]:
    """Head maps as castorini's package keeps them: (factor, layer, head) -> `[77, h, w]`."""
    out: dict[tuple[int, int, int], torch.Tensor] = {}
    number = 0
    for count, side, heads, _ in work.layers:
        left = count - _MID[work.name].get(side, 0)
        for _ in range(min(left, 1) if quick else left):
            for head in range(heads):
                out[(64 // side, number, head)] = torch.rand(KEYS, side, side)
            number += 1
    return out


def rows_of(work: Work, quick: bool) -> list[list[str]]:
    side = _PIXELS[work.name]
    maps = our_maps(work)
    words = maps.words
    kept = tensor_bytes([maps.sums, maps.time_weighted])
    rows = [_row(work, "DAAM Lens (Eq. 6)", lambda: maps.heat_maps(words, (side, side)), 3 if quick else 30, kept)]
    theirs_kept = their_maps(work, quick)
    other = castorini.finaliser(theirs_kept, WORDS)
    if other is None:
        return [*rows, [work.name, "castorini/daam", castorini.ABSENT, "-", "-"]]
    picture = Image.new("RGB", (side, side))

    def theirs() -> list[Any]:
        found = other.compute_global_heat_map(other)
        return [found.compute_word_heat_map(word).expand_as(picture) for word in words]

    return [
        *rows,
        _row(work, "castorini/daam (its own rule)", theirs, 1 if quick else 5, tensor_bytes(theirs_kept)),
    ]


def _row(work: Work, name: str, finish: Callable[[], Any], times: int, kept: int) -> list[str]:
    seconds, peak = timed(finish, times), peak_bytes(finish)
    return [work.name, name, f"{1000 * seconds:.1f} ms", f"{peak / 1e6:.0f} MB", f"{kept / 1e6:.1f} MB"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one layer a size for castorini: does it run at all?")
    args = parser.parse_args()
    rows = [row for work in (SD15_512, SDXL_1024) for row in rows_of(work, args.quick)]
    body = f"{WORDS} words at picture size. Bound: 25 ms at 1024 px.\n\n" + table(
        ["recording", "with", "median", "peak memory", "kept of the recording"], rows
    )
    if args.quick:
        print(body)
    else:
        write("From recording to picture-sized maps", body)


if __name__ == "__main__":
    main()
