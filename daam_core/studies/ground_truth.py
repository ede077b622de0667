"""What the masks are compared with: rendered scenes, the segmenter's view of a generated picture, or a folder of masks.

(a) `rendered`: scenes drawn by code, noised and denoised one step at each of nine noise levels; their masks are exact.
(b) `generated`: pictures of the embedded model while they are made; the segmenter, trained on the same world and never on
    the model's pictures, finds what is in them. Its own accuracy is measured beside.
(c) `bed`: scenes of other silhouettes, grounds and sizes than the embedded world's (`mask_bed_scenes`), as in (a).
(d) a folder: see `annotated_folder`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cli.argument_types import whole_argument
from ..diffusers.trace import KeptAxis
from ..errors import BadArgument, quoted
from ..tiny.shapes import NOUNS
from . import annotated_folder as folders
from . import mask_bed_scenes
from .model_runner import ModelRunner, Sample
from .prompts import SPLITS, WORLD_SEED, picture_units, study_prompts
from .segment import segmenter
from .study import Measured, Unit

KINDS = ("generated", "rendered", "bed")
DEFAULT_SCENES = 100
DEFAULT_BED_SCENES = 24
ACCURACY_SCENES = 64
ACCURACY = "segmenter accuracy"
OUTSIDE = frozenset({"truth", "judge_scenes"})
"""Options that only choose units: what they change is in the units."""


@dataclass(frozen=True)
class Observed:
    """A recorded picture with true masks.

    Attributes:
        masks: bool `[H, W]` by word as the prompt has it.
        unseen: words of the prompt that should be in the picture and are not.
        segmented: what the segmenter sees, by noun; None where the truth is not of its world.
        difference: mean difference, 0..255, from the stored picture that the masks belong to, where there is one.
    """

    sample: Sample
    masks: Mapping[str, Tensor]
    unseen: tuple[str, ...] = ()
    segmented: Mapping[str, Tensor] | None = None
    difference: float | None = None


def add_truth_options(parser: argparse.ArgumentParser) -> None:
    """--truth, --style, --words and what folders need."""
    parser.add_argument(
        "--truth",
        default="generated",
        metavar="KIND",
        help="generated (default): the model's pictures, masks by the trained segmenter; rendered: drawn scenes, noised and "
        "denoised one step, exact masks; bed: the same with shapes and grounds that no model was trained on; "
        "or a FOLDER of pictures and masks, yours or one of "
        "castorini/daam's experiments",
    )
    parser.add_argument(
        "--style", choices=("flat", "shaded"), default="flat", help="of rendered scenes: flat art, or light and shadow"
    )
    parser.add_argument(
        "--words",
        type=lambda text: [word.strip().casefold() for word in text.split(",") if word.strip()],
        metavar="WORDS",
        help="score only these words, with commas between (default: all that have a mask)",
    )
    parser.add_argument(
        "--judge-scenes",
        type=whole_argument(1),
        default=ACCURACY_SCENES,
        metavar="N",
        help="scenes with exact masks on which the segmenter's own accuracy is measured (default: %(default)s)",
    )
    folders.add_folder_options(parser)


def truth_units(options: argparse.Namespace) -> list[Unit]:
    """All units of the chosen truth; with the segmenter as truth also one that measures its accuracy.

    Raises:
        BadArgument: no such truth, no units, or words that never occur.
        BadPrompt: a bad prompts file.
    """
    if options.truth == "rendered":
        if options.prompts is not None:
            raise BadArgument("Rendered scenes have captions of their own: leave out --prompts, or --truth rendered.")
        units = _scene_units(options)
    elif options.truth == "bed":
        if options.prompts is not None:
            raise BadArgument("Scenes of the bed have captions of their own: leave out --prompts, or --truth bed.")
        units = _bed_units(options)
    elif options.truth == "generated":
        units = picture_units(options, study_prompts(options), truth="generated")
        if not any(world_nouns(unit.content["prompt"]) for unit in units):
            raise BadArgument(
                f"None of the {len(units)} prompts names a thing that the trained segmenter knows; the first is "
                f"{quoted(units[0].content['prompt'])}. It knows {', '.join(NOUNS)}."
            )
    elif Path(options.truth).is_dir():
        units = folders.folder_units(options)
    else:
        raise BadArgument(f"--truth is {', '.join(KINDS)} or a folder, and there is no folder {quoted(options.truth)}.")
    _check_words(options.words, units)
    if options.truth in ("generated", "rendered"):
        units.append(Unit(ACCURACY, {"truth": ACCURACY, "scenes": options.judge_scenes}))
    return units


def observe(
    unit: Unit,
    runner: ModelRunner,
    options: argparse.Namespace,
    *,
    keep: Sequence[KeptAxis] = (),
) -> Observed:
    """Record the picture of a unit and give the true masks of its words."""
    content = unit.content
    if content["truth"] == "rendered":
        seen = _rendered(content, options.style, runner, keep)
    elif content["truth"] == "bed":
        seen = _of_bed(content, runner, keep)
    elif content["truth"] == "generated":
        seen = _generated(content, runner, keep)
    else:
        sample, masks, difference = folders.observe(content, runner, options, keep=keep)
        seen = Observed(sample, masks, difference=difference)
    if options.words is None:
        return seen
    masks = {word: mask for word, mask in seen.masks.items() if word.casefold() in options.words}
    return Observed(seen.sample, masks, tuple(w for w in seen.unseen if w in options.words), seen.segmented, seen.difference)


def segmenter_accuracy(scenes: int) -> dict[str, float]:
    """Mean IoU of the segmenter on unseen scenes with exact masks: as drawn, and as the autoencoder shows them."""
    from ..tiny.load import load_tiny
    from ..tiny.segmenter import exact_overlap

    judge, vae = segmenter(), load_tiny().vae
    drawn, decoded = exact_overlap(judge, None, WORLD_SEED, scenes), exact_overlap(judge, vae, WORLD_SEED, scenes)
    return {"drawn": round(drawn, 6), "decoded": round(decoded, 6)}


def measured_segmenter(unit: Unit) -> Measured:
    """`segmenter_accuracy` of a unit of scenes, a row a kind of scene."""
    found = segmenter_accuracy(unit.content["scenes"])
    return Measured([{"split": unit.key, "word": kind, "mask": "segmenter", "iou": iou} for kind, iou in found.items()])


def segmented(image: NDArray[np.uint8]) -> dict[str, Tensor]:
    """What the segmenter sees in a picture of the embedded world: bool `[128, 128]` by noun.

    Raises:
        BadArgument: a picture of another size, which is not of that world.
    """
    from ..tiny.scenes import SIZE

    if image.shape != (SIZE, SIZE, 3):
        raise BadArgument(
            f"The trained segmenter knows pictures of the embedded world, {SIZE} x {SIZE} px, and this model's are "
            f"{image.shape[1]} x {image.shape[0]}. Give pictures with masks: --truth FOLDER."
        )
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    return {noun: found.mask for noun, found in segmenter().find(pixels)[0].items()}


def world_nouns(prompt: str) -> list[str]:
    """The embedded world's nouns that a prompt names, in order, each once."""
    words = "".join(c if c.isalnum() else " " for c in prompt.casefold()).split()
    return list(dict.fromkeys(word for word in words if word in NOUNS))


def _scene_units(options: argparse.Namespace) -> list[Unit]:
    from ..tiny.evaluate import SPLITS as world

    count = options.limit or DEFAULT_SCENES
    units = []
    for split in SPLITS:
        objects, held_out = world[split]
        for number in range(count):
            for turn in range(options.seeds):
                scene = {"seed": WORLD_SEED + SPLITS.index(split), "index": number, "two": objects - 1, "held_out": held_out}
                seed = options.first_seed + turn * 100_000 + number
                content = {"truth": "rendered", "split": split, "number": number, "seed": seed, "scene": scene}
                content["prompt"] = _scene(scene, "flat").caption
                units.append(Unit(f"{split} {number:05d} seed {seed}", content))
    return units


def _bed_units(options: argparse.Namespace) -> list[Unit]:
    size = options.size or (128, 128)
    units = []
    for kind in mask_bed_scenes.KINDS:
        for number in range(options.limit or DEFAULT_BED_SCENES):
            for turn in range(options.seeds):
                seed = options.first_seed + turn * 100_000 + number
                content = {"truth": "bed", "split": kind, "number": number, "seed": seed, "size": list(size)}
                content["prompt"] = mask_bed_scenes.bed_scene(kind, number, size).caption
                units.append(Unit(f"{kind} {number:05d} seed {seed}", content))
    return units


def _of_bed(content: Mapping[str, Any], runner: ModelRunner, keep: Sequence[KeptAxis]) -> Observed:
    height, width = content["size"]
    scene = mask_bed_scenes.bed_scene(content["split"], content["number"], (height, width))
    sample = runner.denoised(scene.image, scene.caption, content["seed"], keep=keep)
    return Observed(sample, {noun: torch.from_numpy(mask) for noun, mask in scene.masks.items()})


def _scene(scene: Mapping[str, Any], style: Any) -> Any:
    from ..tiny.scenes import scene_at

    return scene_at(scene["seed"], scene["index"], two=float(scene["two"]), held_out=scene["held_out"], style=style)


def _rendered(content: Mapping[str, Any], style: str, runner: ModelRunner, keep: Sequence[KeptAxis]) -> Observed:
    scene = _scene(content["scene"], style)
    sample = runner.denoised(scene.image, scene.caption, content["seed"], keep=keep)
    masks = {one.noun: torch.from_numpy(one.mask) for one in scene.objects}
    return Observed(sample, masks, segmented=segmented(scene.image))


def _generated(content: Mapping[str, Any], runner: ModelRunner, keep: Sequence[KeptAxis]) -> Observed:
    sample = runner.picture(content["prompt"], content["seed"], keep=keep)
    seen, named = segmented(sample.image), world_nouns(content["prompt"])
    masks = {noun: seen[noun] for noun in named if noun in seen}
    return Observed(sample, masks, tuple(noun for noun in named if noun not in seen), seen)


def _check_words(words: Sequence[str] | None, units: Sequence[Unit]) -> None:
    if not units:
        raise BadArgument("There is nothing to measure: no prompt and no picture.")
    if words is None:
        return
    if not words:
        raise BadArgument("--words holds no word.")
    texts = [f" {_spaced(unit.content['prompt'])} " for unit in units]
    never = [word for word in words if not any(f" {_spaced(word)} " in text for text in texts)]
    if len(never) == len(words):
        raise BadArgument(
            f"None of the {len(texts)} prompts has a word of --words ({', '.join(words[:8])}); the first prompt is "
            f"{quoted(units[0].content['prompt'])}."
        )


def _spaced(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())
