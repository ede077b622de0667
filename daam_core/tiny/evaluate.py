"""How good the embedded model is: named nouns in named colours, judged by the segmenter, and the autoencoder's error.

The prompts come from seeds of their own and are used for nothing else: no number of the model was tuned on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from ..errors import BadArgument, CannotWrite, quoted
from ..opencv import cv2
from ..render.captioned_sheet import captioned_sheet
from . import autoencoder
from .captions import BACKGROUNDS, RELATIONS, Background, Relation, Thing, caption, random_pairs
from .loop import Log
from .precision import autocast
from .scenes import SIZE
from .segmenter import LEAST_SHARE, Found, Segmenter, exact_overlap

SEED = 9000
SIDES = (SIZE, 2 * SIZE)
# split -> (objects, whether the first pair is unreal)
SPLITS: dict[str, tuple[int, bool]] = {
    "one object": (1, False),
    "two objects": (2, False),
    "held-out one": (1, True),
    "held-out two": (2, True),
}
GOALS: dict[str, float] = {"one object": 0.98, "two objects": 0.92, "held-out one": 0.95, "held-out two": 0.85}
# Of unreal pairs as far below as the UNet's.
TRANSFORMER_GOALS: dict[str, float] = {"one object": 0.90, "two objects": 0.75, "held-out one": 0.87, "held-out two": 0.68}


@dataclass(frozen=True)
class Prompt:
    """An evaluation prompt and what its picture must show."""

    text: str
    pairs: tuple[tuple[str, str], ...]
    relation: Relation
    background: Background


@dataclass(frozen=True)
class SplitResult:
    """Figures of one split, all 0..1.

    `right`: every named noun in its named colour. `clean`: right and nothing else in the picture. `repeated`: one noun
    in several places (see `repeats`). `wrong` lists what was asked for and what the segmenter saw.
    """

    pictures: int
    right: float
    clean: float
    repeated: float
    goal: float
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """All figures; `decibels` and `overlap_*` are measured on unseen rendered scenes. `side` is the pictures', in pixels."""

    splits: dict[str, SplitResult]
    decibels: float
    decibels_held_out: float
    latent_mean: list[float]
    latent_std: list[float]
    overlap_drawn: float
    overlap_decoded: float
    steps: int
    guidance: float
    side: int = SIZE

    def lines(self) -> list[str]:
        """The figures as sentences."""
        texts = [
            f"{name}: {100 * r.right:.1f} % right (goal {100 * r.goal:.0f} %), {100 * r.clean:.1f} % and nothing else, "
            f"{100 * r.repeated:.1f} % with an object in several places, {r.pictures} pictures of {self.side} px"
            for name, r in self.splits.items()
        ]
        texts.append(f"autoencoder: {self.decibels:.2f} dB, {self.decibels_held_out:.2f} dB on unreal pairs")
        texts.append(f"segmenter: IoU {self.overlap_drawn:.3f} on drawn, {self.overlap_decoded:.3f} on decoded unseen scenes")
        return texts


def prompts(split: str, count: int, seed: int = SEED) -> list[Prompt]:
    """The first `count` prompts of a split: every colour is named, relations and places vary."""
    if split not in SPLITS:
        raise BadArgument(f"There is no split {quoted(split)}; there are {', '.join(SPLITS)}.")
    objects, held_out = SPLITS[split]
    rng = np.random.default_rng([seed, list(SPLITS).index(split)])
    found: list[Prompt] = []
    for _ in range(count):
        pairs = random_pairs(rng, objects, held_out)
        relation = RELATIONS[int(rng.choice(len(RELATIONS), p=[0.55, 0.15, 0.15, 0.15]))]
        background = BACKGROUNDS[int(rng.choice(len(BACKGROUNDS), p=[0.36, 0.16, 0.16, 0.16, 0.16]))]
        text = caption([Thing(noun, colour) for colour, noun in pairs], relation, background).text
        found.append(Prompt(text, tuple(pairs), relation, background))
    return found


def verdict(prompt: Prompt, found: dict[str, Found]) -> tuple[bool, bool]:
    """(right, clean): see `SplitResult`."""
    right = all(noun in found and found[noun].colour == colour for colour, noun in prompt.pairs)
    return right, right and len(found) == len(prompt.pairs)


def repeats(found: dict[str, Found]) -> bool:
    """Whether one of the nouns stands in several places, each at least 1.2 % of the picture, as an object must be.

    Parts a pixel or two apart are one place: a boat's sails stand that far from its hull. Of 200 drawn scenes, as large as
    256 px and shrunk, it says so of none.
    """
    near = np.ones((3, 3), np.uint8)
    for one in found.values():
        whole = cv2.dilate(one.mask.numpy().astype(np.uint8), near)
        _, _, parts, _ = cv2.connectedComponentsWithStats(whole, connectivity=8)
        if int((parts[1:, cv2.CC_STAT_AREA] >= LEAST_SHARE * one.mask.numel()).sum()) > 1:
            return True
    return False


def generate(
    pipe: DiffusionPipeline, texts: list[str], seed: int, batch: int = 16, fast: bool = True, side: int = SIZE
) -> list[Image.Image]:
    """Pictures of `texts`, `side` pixels each way; `fast` computes in bfloat16 where the device can."""
    pictures: list[Image.Image] = []
    for start in range(0, len(texts), batch):
        generators = [torch.Generator().manual_seed(seed + k) for k in range(start, min(start + batch, len(texts)))]
        part = texts[start : start + batch]
        if fast:
            with autocast(pipe.device):
                pictures += pipe(part, generator=generators, height=side, width=side).images
        else:
            pictures += pipe(part, generator=generators, height=side, width=side).images
    return pictures


def evaluate(
    pipe: DiffusionPipeline,
    judge: Segmenter,
    out: Path | None,
    log: Log,
    count: int = 200,
    fast: bool = True,
    scenes: int = 128,
    side: int = SIZE,
) -> Evaluation:
    """Draw `count` pictures a split, judge them; measure autoencoder and segmenter on `scenes` unseen scenes.

    Pictures of `side` 256 are judged at 128, which is what the segmenter knows. With `out`, writes `evaluation.json` and one
    contact sheet a split (wrong pictures framed in red).
    """
    goals = TRANSFORMER_GOALS if hasattr(pipe, "transformer") else GOALS
    own: Mapping[str, float] = pipe.own_defaults
    if count < 1:
        raise BadArgument(f"At least one picture a split is needed, got {count}.")
    if side not in SIDES:
        raise BadArgument(f"Pictures are judged with a side of {' or '.join(map(str, SIDES))} pixels, not {side}.")
    results: dict[str, SplitResult] = {}
    for number, split in enumerate(SPLITS):
        asked = prompts(split, count)
        batch = 16 * SIZE // side
        pictures = generate(pipe, [p.text for p in asked], 1_000_000 * (number + 1), batch, fast, side)
        found = judge.find([picture.reduce(side // SIZE) for picture in pictures])
        verdicts = [verdict(p, s) for p, s in zip(asked, found, strict=True)]
        wrong = [
            f"{p.text}: {', '.join(f'{f.colour} {f.noun}' for f in s.values()) or 'nothing'}"
            for p, s, (right, _) in zip(asked, found, verdicts, strict=True)
            if not right
        ]
        right, clean = (float(np.mean([v[k] for v in verdicts])) for k in (0, 1))
        repeated = float(np.mean([repeats(s) for s in found]))
        results[split] = SplitResult(count, right, clean, repeated, goals[split], wrong)
        log(f"{split}: {100 * right:.1f} % right, {100 * clean:.1f} % clean, {100 * repeated:.1f} % with repeated objects")
        if out is not None:
            # The first rows of each sheet are the wrong ones: those are what one wants to look at.
            order = sorted(range(count), key=lambda k: verdicts[k][0])[:64]
            sheet = captioned_sheet(
                [pictures[k] for k in order], [asked[k].text for k in order], [verdicts[k][0] for k in order]
            )
            _save_sheet(sheet, out / f"{split.replace(' ', '-')}.png")
    decibels, mean, std = autoencoder.quality(pipe.vae, autoencoder.render(autoencoder.SEED_UNSEEN, scenes))
    unreal, _, _ = autoencoder.quality(pipe.vae, autoencoder.render(autoencoder.SEED_UNSEEN + 1, scenes, held_out=True))
    evaluation = Evaluation(
        results,
        decibels,
        unreal,
        mean.tolist(),
        std.tolist(),
        exact_overlap(judge, None, SEED + 1, scenes),
        exact_overlap(judge, pipe.vae, SEED + 1, scenes),
        int(own["num_inference_steps"]),
        own["guidance_scale"],
        side,
    )
    if out is not None:
        (out / "evaluation.json").write_text(json.dumps(asdict(evaluation), indent=1), encoding="utf-8")
    for line in evaluation.lines():
        log(line)
    return evaluation


def _save_sheet(sheet: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except OSError as error:
        raise CannotWrite(f"The contact sheet {path} cannot be written: {error.strerror or error}.") from error
