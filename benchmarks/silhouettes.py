"""How often one-object pictures fail the judge of silhouettes: `python -m benchmarks.silhouettes [--count 100]`.

Scenes drawn by code and shown by the autoencoder are right by making: what fails of them is a false alarm. Then the model's
pictures of one object, those that the segmenter calls right. Writes a contact sheet of the failing ones with --sheet.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from daam_core.render.captioned_sheet import captioned_sheet
from daam_core.tiny.autoencoder import to_signed
from daam_core.tiny.evaluate import generate, prompts, verdict
from daam_core.tiny.load import load_segmenter, load_tiny
from daam_core.tiny.scenes import scene_at
from daam_core.tiny.silhouettes import LIMIT, Silhouette, judge_silhouette

from .report import table, write

SEED = 700
SEED_PICTURES = 71_000


@torch.no_grad()
def drawn(vae: Any, count: int) -> list[Silhouette]:
    """Verdicts on scenes of one object, as the autoencoder shows them."""
    found = []
    for k in tqdm(range(count), desc="drawn"):
        scene = scene_at(SEED, k, two=0.0)
        z = vae.encode(to_signed(torch.from_numpy(scene.image).permute(2, 0, 1)[None])).latents
        shown = ((vae.decode(z).sample[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        found.append(judge_silhouette(shown, scene.objects[0].noun, scene.objects[0].colour))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--weights", type=Path, help="folder that 'daam-lens tiny train' made")
    parser.add_argument("--sheet", type=Path, help="picture to write, with the failing pictures")
    args = parser.parse_args()
    pipe, judge = load_tiny(weights=args.weights), load_segmenter(weights=args.weights)
    pipe.set_progress_bar_config(disable=True)
    rows = [_row("drawn by code, shown by the autoencoder", drawn(pipe.vae, args.count))]
    asked = prompts("one object", args.count, SEED_PICTURES)
    pictures = generate(pipe, [p.text for p in asked], SEED_PICTURES)
    right = [verdict(p, f)[0] for p, f in zip(asked, judge.find(pictures), strict=True)]
    kept = [(p, picture) for p, picture, is_right in zip(asked, pictures, right, strict=True) if is_right]
    told = [judge_silhouette(np.asarray(picture), p.pairs[0][1], p.pairs[0][0]) for p, picture in kept]
    rows.append(_row("made by the model, right by the segmenter", told))
    failing = [(p, picture) for (p, picture), one in zip(kept, told, strict=True) if one.fails]
    nouns = Counter(p.pairs[0][1] for p, _ in failing)
    of_all = Counter(p.pairs[0][1] for p, _ in kept)
    body = table(["pictures", "number", "fail", "median error", "95 % below"], rows)
    listed = ", ".join(f"{noun} {n} of {of_all[noun]}" for noun, n in nouns.most_common()) or "none"
    write(
        "Silhouettes",
        f"{body}\n\nA picture fails whose wrong pixels have more than {LIMIT:.0%} of the object's area. By noun: {listed}.",
    )
    if args.sheet:
        images: list[Image.Image] = [picture for _, picture in failing]
        captioned_sheet(images, [p.text for p, _ in failing]).save(args.sheet)


def _row(name: str, found: list[Silhouette]) -> list[str]:
    errors = np.array([one.error for one in found])
    part = sum(one.fails for one in found) / max(1, len(found))
    return [name, str(len(found)), f"{part:.1%}", f"{np.median(errors):.3f}", f"{np.quantile(errors, 0.95):.3f}"]


if __name__ == "__main__":
    main()
