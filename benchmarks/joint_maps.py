"""What the maps of the models inside are worth on drawn scenes: `python -m benchmarks.joint_maps [--kind transformer]`.

Scenes that no model was trained on, with exact masks, are read at nine levels of noise (`read_picture`), all layers and heads
summed. IoU of a word's map, stretched to 0..1, with its object's mask, at level 0.4 and at the one level that serves best on
average; and how often the word is hotter on its own object than on the other one (of one object: than on the ground).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from daam_core.diffusers.reading import read_picture
from daam_core.tiny.load import KINDS, load_tiny
from daam_core.tiny.scenes import SIZE, scene_at

from .report import table

SEED = 660_066
NOISE = tuple(range(900, 0, -100))
LEVELS = np.arange(0.1, 0.95, 0.05)
AT = int(np.argmin(abs(LEVELS - 0.4)))


def measured(pipe: Any, count: int, two: bool) -> dict[str, tuple[list[list[float]], list[bool]]]:
    """Of nouns and colours: IoU at every level, and whether the own object is the hotter; words that stand once only."""
    found: dict[str, tuple[list[list[float]], list[bool]]] = {"noun": ([], []), "colour": ([], [])}
    for k in tqdm(range(count), desc="two objects" if two else "one object"):
        scene = scene_at(SEED, k, two=float(two))
        maps = read_picture(pipe, scene.image, scene.caption, noise=NOISE)
        masks = [torch.from_numpy(one.mask) for one in scene.objects]
        for i, one in enumerate(scene.objects):
            other = masks[1 - i] if two else ~masks[i]
            for kind, word in (("noun", one.noun), ("colour", one.colour)):
                if word not in maps.words or f"{word}#2" in maps.words:
                    continue
                heat = maps.heat_map(word, (SIZE, SIZE)).float()
                heat = (heat - heat.min()) / (heat.max() - heat.min()).clamp(min=1e-9)
                above = [heat > float(level) for level in LEVELS]
                ious, own = found[kind]
                ious.append([float((a & masks[i]).sum() / (a | masks[i]).sum()) for a in above])
                own.append(bool(heat[masks[i]].mean() > heat[other].mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="transformer", help="which model inside (default transformer)")
    parser.add_argument("--count", type=int, default=24, help="scenes of one object and of two (default 24)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = load_tiny(args.kind)
    pipe.set_progress_bar_config(disable=True)
    lines = []
    for two in (False, True):
        for kind, (ious, own) in measured(pipe, args.count, two).items():
            means = np.array(ious).mean(0)
            best = int(means.argmax())
            name = f"the {kind}, {'two objects' if two else 'one object'} ({len(ious)})"
            lines.append([name, f"{means[AT]:.2f}", f"{means[best]:.2f} ({LEVELS[best]:.2f})", f"{100 * np.mean(own):.0f} %"])
    print(table(["map of", "IoU at level 0.4", "at the best level", "own object hotter"], lines))


if __name__ == "__main__":
    main()
