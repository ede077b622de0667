"""Whether colour words light their own object: `python -m benchmarks.colour_words [--count 60]`.

On prompts that were used for nothing else: the map of each colour word against the segmenter's mask of its object (IoU at
tau 0.4; whether the mean on its own object is above the mean on the other one), the relations that the pictures obey, and how
evenly each cross-attention layer attends to the 77 tokens (mean entropy over positions, heads and steps, as a part of ln 77).
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from daam_core import trace
from daam_core.maps.heatmaps import HeatMaps
from daam_core.tiny.evaluate import Prompt, prompts, verdict
from daam_core.tiny.load import load_segmenter, load_tiny
from daam_core.tiny.precision import autocast
from daam_core.tiny.segmenter import Found, overlap
from daam_core.tiny.unet import PlainAttention

from .report import table, write

SEED = 72_000
BATCH = 8
SPLITS = ("one object", "two objects", "held-out one", "held-out two")


@dataclass
class Figures:
    """Sums over the pictures of one split."""

    right: list[bool] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)
    relations: list[bool] = field(default_factory=list)

    def add(self, asked: Prompt, maps: HeatMaps, found: dict[str, Found]) -> None:
        self.right.append(verdict(asked, found)[0])
        for colour, noun in asked.pairs:
            if noun not in found or asked.text.split().count(colour) != 1:
                continue
            heat = maps.heat_map(colour, maps.size)
            mask = found[noun].mask
            self.overlaps.append(overlap(heat >= 0.4 * heat.max(), mask))
            others = [found[other].mask for _, other in asked.pairs if other != noun and other in found]
            if others:
                self.own.append(bool(heat[mask].mean() > heat[others[0]].mean()))
        if asked.relation != "and" and all(noun in found for _, noun in asked.pairs) and len(asked.pairs) == 2:
            first, second = (_centre(found[noun].mask) for _, noun in asked.pairs)
            self.relations.append(_obeyed(asked.relation, second[0] - first[0], second[1] - first[1]))

    def row(self, name: str) -> list[str]:
        def part(values: list[Any]) -> str:
            return f"{sum(values) / len(values):.3f} of {len(values)}" if values else "-"

        return [name, part(self.right), part(self.overlaps), part(self.own), part(self.relations)]


def _centre(mask: torch.Tensor) -> tuple[float, float]:
    y, x = torch.nonzero(mask, as_tuple=True)
    return float(x.float().mean()), float(y.float().mean())


def _obeyed(relation: str, dx: float, dy: float) -> bool:
    """Whether the second object lies as the relation says of the first; the larger of both distances decides."""
    if relation == "next to":
        return abs(dx) > abs(dy)
    return abs(dy) > abs(dx) and (dy > 0) == (relation == "above")


class EntropyAttention:
    """Attention that adds up the entropy of its cross-attention by layer: the half of the batch that has the prompt."""

    def __init__(self, name: str, sums: dict[str, list[float]]) -> None:
        self._name, self._sums, self._plain = name, sums, PlainAttention()

    def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: Any = None, **kwargs: Any) -> Any:
        """As `PlainAttention`."""
        if encoder_hidden_states is not None:
            half = len(hidden_states) // 2
            q, k = (
                x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
                for x in (attn.to_q(hidden_states[half:]), attn.to_k(encoder_hidden_states[half:]))
            )
            p = torch.softmax((q @ k.mT).float() * q.shape[-1] ** -0.5, -1)
            entropy = -(p * p.clamp(min=1e-12).log()).sum(-1).mean()
            self._sums.setdefault(self._name, []).append(float(entropy) / math.log(p.shape[-1]))
        return self._plain(attn, hidden_states, encoder_hidden_states, **kwargs)


@torch.no_grad()
def layer_entropies(pipe: Any, asked: list[Prompt]) -> dict[str, float]:
    """Mean entropy of each cross-attention layer, as a part of ln 77."""
    sums: dict[str, list[float]] = {}
    before = pipe.unet.attn_processors
    pipe.unet.set_attn_processor({name: EntropyAttention(name, sums) for name in before})
    try:
        pipe([p.text for p in asked], generator=torch.Generator().manual_seed(SEED), output_type="latent")
    finally:
        pipe.unet.set_attn_processor(before)
    return {name.removesuffix(".attn2.processor"): sum(v) / len(v) for name, v in sums.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="prompts of each split")
    parser.add_argument("--weights", type=Path, help="folder that 'daam-lens tiny train' made")
    parser.add_argument("--title", default="Colour words", help="heading in results.md (default: %(default)s)")
    args = parser.parse_args()
    pipe, judge = load_tiny(weights=args.weights), load_segmenter(weights=args.weights)
    pipe.set_progress_bar_config(disable=True)
    rows = []
    for number, split in enumerate(SPLITS):
        figures, asked = Figures(), prompts(split, args.count, SEED)
        for start in tqdm(range(0, args.count, BATCH), desc=split):
            part = asked[start : start + BATCH]
            seeds = range(SEED + 1000 * number + start, SEED + 1000 * number + start + len(part))
            with trace(pipe) as recording, autocast(torch.device("cpu")):
                drawn = pipe([p.text for p in part], generator=[torch.Generator().manual_seed(s) for s in seeds]).images
            for row, (one, found) in enumerate(zip(part, judge.find(drawn), strict=True)):
                figures.add(one, recording.heat_maps(row), found)
        rows.append(figures.row(split))
    entropies = layer_entropies(pipe, prompts("two objects", 4, SEED))
    layers = table(["layer", "entropy / ln 77"], [[name, f"{value:.3f}"] for name, value in entropies.items()])
    head = ["prompts", "right", "colour word's IoU", "own object hotter", "relation obeyed"]
    write(args.title, f"{table(head, rows)}\n\n{layers}")


if __name__ == "__main__":
    main()
