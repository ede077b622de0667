"""How well masks fit, by method: `python -m benchmarks.masks [--count 100] [--half tune|report]`.

Two truths. Generated: pictures of the embedded model, recorded while they are made, against what the segmenter sees.
Rendered: scenes of its world, flat and with light, gradients and noise, noised and denoised one step at nine noise levels,
against their exact masks. The two halves come from different seeds: choices are made on "tune", the documents'
tables are from "report".
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor
from tqdm import tqdm

from daam_core import HeatMaps, trace
from daam_core.errors import DaamLensError
from daam_core.mask_methods import METHODS
from daam_core.masks import minmax
from daam_core.overlap import iou
from daam_core.tiny.diffusion import noise_to
from daam_core.tiny.evaluate import SPLITS, prompts
from daam_core.tiny.load import load_segmenter, load_tiny
from daam_core.tiny.world import Style, scene_at

from .report import table, write

SEEDS = {"tune": 51_000, "report": 52_000}
BATCH = 10
TAUS = (0.2, 0.3, 0.4, 0.5, 0.6)
Rule = Callable[[HeatMaps, HeatMaps, str], Tensor]


@dataclass(frozen=True)
class Case:
    """One named object in one picture: paper's maps, castorini's maps, the word, the segmenter's mask."""

    maps: HeatMaps
    castorini: HeatMaps
    word: str
    truth: Tensor


NOISE_LEVELS = (900, 800, 700, 600, 500, 400, 300, 200, 100)
RENDERED: dict[str, tuple[Style, float]] = {
    "flat, one": ("flat", 0.0),
    "flat, two": ("flat", 1.0),
    "shaded, one": ("shaded", 0.0),
    "shaded, two": ("shaded", 1.0),
}


def castorini_rule(tau: float) -> Rule:
    """That package's hard mask: min-max normalised, then `>`."""
    return lambda maps, other, word: minmax(other.word(word, maps.size)) > tau


def named(method: str, tau: float = 0.4) -> Rule:
    return lambda maps, other, word: maps.mask(word, method, tau=tau)


def rules() -> dict[str, Rule]:
    """Every row of the table."""
    rows = {f"castorini's rule, > {tau}": castorini_rule(tau) for tau in TAUS}
    rows |= {f"threshold (Eq. 7), tau {tau}": named("threshold", tau) for tau in TAUS}
    rows |= {f"{m}": named(m) for m in METHODS if m not in ("threshold", "best")}
    return rows | {"best (default)": named("best")}


def cases(split: str, count: int, seed: int) -> list[Case]:
    """Objects that the prompt names and the segmenter sees."""
    pipe, judge = load_tiny(), load_segmenter()
    pipe.set_progress_bar_config(disable=True)
    asked = prompts(split, count, seed)
    found: list[Case] = []
    for start in tqdm(range(0, count, BATCH), desc=split):
        part = asked[start : start + BATCH]
        dice = [torch.Generator().manual_seed(seed + start + k) for k in range(len(part))]
        with trace(pipe, heads=True) as lens:
            pictures = pipe([p.text for p in part], generator=dice).images
        for k, (prompt, seen) in enumerate(zip(part, judge.find(pictures), strict=True)):
            maps, other = lens.heat_maps(k), lens.heat_maps(k, method="castorini")
            found += [Case(maps, other, noun, seen[noun].mask) for _, noun in prompt.pairs if noun in seen]
    return found


@torch.no_grad()
def rendered_cases(kind: str, count: int, seed: int) -> list[Case]:
    """Drawn scenes under noise, with their exact masks."""
    pipe = load_tiny()
    style, two = RENDERED[kind]
    found: list[Case] = []
    for number in tqdm(range(count), desc=kind):
        scene = scene_at(seed, number, two=two, style=style)
        pixels = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 127.5 - 1
        latent = pipe.vae.encode(pixels).latents
        dice = torch.Generator().manual_seed(seed + number)
        with trace(pipe, heads=True) as lens:
            context = pipe.encode_prompt(scene.caption, "cpu", 1, False)[0]
            for level in NOISE_LEVELS:
                t = torch.tensor([level])
                noise = torch.randn(latent.shape, generator=dice)
                pipe.unet(noise_to(latent, noise, t), t, encoder_hidden_states=context)
            pipe.maybe_free_model_hooks()
        maps = dataclasses.replace(lens.heat_maps(), picture=scene.image)
        other = lens.heat_maps(method="castorini")
        found += [Case(maps, other, one.noun, torch.from_numpy(one.mask)) for one in scene.objects]
    return found


def scores(found: list[Case]) -> dict[str, list[float]]:
    """IoU of every case by rule."""
    by_rule: dict[str, list[float]] = defaultdict(list)
    for case in found:
        for name, rule in rules().items():
            try:
                mask = rule(case.maps, case.castorini, case.word)
            except DaamLensError as error:
                raise SystemExit(f"{name}: {error}") from error
            value = iou(mask, case.truth)
            by_rule[name].append(float(value.nan_to_num(0.0)))
    return by_rule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="pictures a split (default: %(default)s)")
    parser.add_argument("--half", choices=SEEDS, default="report")
    parser.add_argument("--show", action="store_true", help="only print")
    args = parser.parse_args()
    seed = SEEDS[args.half]
    tables = {
        "Mean IoU of masks against the segmenter, generated pictures of the embedded model": {
            split: scores(cases(split, args.count, seed)) for split in SPLITS
        },
        "Mean IoU of masks against exact ones, rendered scenes noised and denoised one step": {
            kind: scores(rendered_cases(kind, args.count, seed)) for kind in RENDERED
        },
    }
    for title, columns in tables.items():
        names = list(rules())
        body = table(
            ["mask", *(f"{name} ({len(column[names[0]])})" for name, column in columns.items())],
            [[name, *(f"{mean(column[name]):.3f}" for column in columns.values())] for name in names],
        )
        if args.show or args.half == "tune":
            print(f"{title}\n\n{body}\n", flush=True)
        else:
            write(title, body)


if __name__ == "__main__":
    main()
