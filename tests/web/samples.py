"""Heat maps made up for tests and measurements: one blob a word over a noisy ground, of any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from daam_core import HeatMaps
from daam_core.maps.data import Detail, LayerInfo, RecordedImage
from daam_core.prompt.prompt import Prompt, Token, Word

STEPS = 4
HEADS = 8


def heat_maps(
    words: Sequence[str], size: tuple[int, int], grids: Sequence[tuple[int, int]], seed: int = 0, detail: bool = False
) -> HeatMaps:
    """One picture's maps: one layer a grid, each word one token; start, end and padding too."""
    chance = torch.Generator().manual_seed(seed)
    rows = len(words) + 3
    place = torch.rand(2, rows, 1, 1, generator=chance)
    spread = 0.05 + 0.12 * torch.rand(rows, 1, 1, generator=chance)
    kept: dict[tuple[int, int], Tensor] = {}
    for h, w in grids:
        y, x = (torch.arange(h)[:, None] + 0.5) / h, (torch.arange(w)[None] + 0.5) / w
        steps = []
        for _ in range(STEPS):
            blob = torch.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / (2 * spread**2))
            heat = blob + 0.1 + 0.1 * torch.rand(rows, h, w, generator=chance)
            steps.append(heat / heat.sum(0) * HEADS)
        # What a recording keeps apart has half precision; its sums are taken before.
        kept[h, w] = torch.stack(steps)
    sums = {grid: x.sum(0) for grid, x in kept.items()}
    apart = {grid: x[:, None, 1:-2].half() for grid, x in kept.items()}
    seen: Counter[str] = Counter()
    entries = []
    for i, word in enumerate(words):
        seen[word] += 1
        entries.append(Word(word if seen[word] == 1 else f"{word}#{seen[word]}", word, (i + 1,)))
    n = len(words)
    side = RecordedImage(
        sums=sums,
        time_weighted=sums,
        num_terms=dict.fromkeys(sums, STEPS * HEADS),
        layers=tuple(LayerInfo(f"block{i}", grid, HEADS, "up") for i, grid in enumerate(sums)),
        detail=Detail(apart, {grid: (i,) for i, grid in enumerate(sums)}, True) if detail else None,
        heads=None,
        self_attention=None,
        prompt=Prompt(
            " ".join(words), tuple(Token(i + 1, w, i + 1) for i, w in enumerate(words)), tuple(entries),
            (0,), (n + 1,), (n + 2,), n + 3,
        ),
        steps=STEPS,
        timesteps=tuple(float(i) for i in range(STEPS)),
    )  # fmt: skip
    return HeatMaps({"prompt": side}, size, np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))
