"""The files that `daam-lens generate` writes beside the picture, and what an earlier call left in its folder."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CannotWrite
from ..files import bounded_text, file_names, relative_path, write_png, write_text
from .relation_parts import relation_entries, relation_notes, write_relations
from .video_parts import mask_of_frames, write_frame_masks, write_video_overlay

if TYPE_CHECKING:
    from torch import Tensor

    from ..maps.heatmaps import HeatMaps

REPORT = "report.json"
LARGEST_REPORT = 2**26
"""Bytes of a report of an earlier call that is read."""
MEANWHILE = (
    "Another call wrote into {} at the same time: what has one name in both, such as picture.png, may be of either. "
    "Give each its own --out."
)
EVEN = 0.98
"""Part of the picture above which a mask tells no place apart."""
_OF_A_WORD = re.compile(r"(overlay|mask|steps|looks)_.+\.(png|gif|mp4|webp)|word_matrix\.png")
_OF_THE_PICTURE = ("prompt", "negative", "model", "seed", "steps", "guidance", "height", "width")
_OF_A_MASK = ("method", "tau")


@dataclass
class Written:
    """What was written.

    Attributes:
        paths: in the order in which they are told.
        notes: sentences to end with.
    """

    paths: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_parts(maps: HeatMaps, words: Sequence[str], folder: Path, args: argparse.Namespace, done: Written) -> None:
    """Write the parts that were asked for and add them to `done`. Raises CannotWrite."""
    from tqdm import tqdm

    before = _last_report(folder)
    for word, name in tqdm(list(zip(words, file_names(words), strict=True)), desc="drawing", unit="word"):
        if maps.num_frames > 1:
            _write_film(maps, word, name, folder, args, done)
            continue
        if "overlays" in args.save:
            done.paths.append(_write_overlay(maps, word, folder / f"overlay_{name}.png", args))
        if "masks" in args.save:
            one = maps.mask(word, args.method, tau=args.tau)
            if empty := why_no_mask(one):
                done.notes.append(f"No mask of “{word}”: {empty}.")
            else:
                done.paths.append(write_png(folder / f"mask_{name}.png", grey(one)))
        if "animation" in args.save and maps.detail is not None and maps.detail.by_step and not maps.is_concept(word):
            done.paths.append(_write_animation(maps, word, folder / f"steps_{name}.gif", args))
    if "sheet" in args.save:
        done.paths.append(write_sheet(maps, words, folder, args))
    if "relations" in args.save:
        own = [word for word in words if not maps.is_concept(word)]
        done.paths += write_relations(maps, own, folder, args)
        done.notes += relation_notes(maps, own)
    if "explorer" in args.save:
        from ..explorer.standalone import write_explorer

        done.paths.append(
            write_explorer(maps, folder / "explorer.html", "record.safetensors" if "record" in args.save else None)
        )
    settings = _settings(maps, args)
    # Another call may have written here meanwhile: what its report lists is of an earlier call, too.
    meanwhile = _last_report(folder)
    if meanwhile != before:
        done.notes.append(MEANWHILE.format(relative_path(folder)))
        before = meanwhile
    if "report" in args.save:
        done.paths += _write_report(maps, words, folder, settings, done.paths)
    done.notes += _clear_leftovers(folder, {path.name for path in done.paths}, before, settings)


def _write_film(maps: HeatMaps, word: str, name: str, folder: Path, args: argparse.Namespace, done: Written) -> None:
    """A word of a video: its overlay plays, its mask is a picture a latent frame."""
    if "overlays" in args.save:
        done.paths.append(write_video_overlay(maps, word, folder / f"overlay_{name}.mp4", args))
    if "masks" in args.save:
        result, numbers = mask_of_frames(maps, word, None, args)
        if result.mask.any():
            done.paths += write_frame_masks([grey(one) for one in result.mask], name, folder, numbers)
        else:
            done.notes.append(f"No mask of “{word}”: it would be empty in every frame.")
    if "animation" in args.save and maps.detail is not None and maps.detail.by_step and not maps.is_concept(word):
        done.paths.append(_write_animation(maps, word, folder / f"steps_{name}.gif", args))


def why_no_mask(mask: Tensor) -> str:
    """Why a mask bool `[H, W]` tells no place apart, as the end of a sentence; empty where it does."""
    share = float(mask.float().mean())
    if share == 0:
        return "it would be empty, the word has no place of its own"
    return "the word lies evenly over the picture" if share > EVEN else ""


def grey(mask: Tensor) -> Any:
    """A mask of bool or 0..1 as uint8 `[H, W]`."""
    import numpy as np

    return (mask.float().clamp(0, 1) * 255).round().numpy().astype(np.uint8)


def write_sheet(maps: HeatMaps, words: Sequence[str], folder: Path, args: argparse.Namespace) -> Path:
    """`contact_sheet.png` of the words. Raises CannotWrite."""
    from ..render import word_sheet

    drawn = maps if maps.num_frames > 1 or maps.picture is not None else maps.with_picture(_picture(maps))
    sheet = word_sheet(drawn, words, opacity=args.opacity, colormap=args.colormap)
    return write_png(folder / "contact_sheet.png", sheet)


def _write_overlay(maps: HeatMaps, word: str, path: Path, args: argparse.Namespace) -> Path:
    from ..maps.statistics import mean_probability
    from ..render import overlay

    heat, label = mean_probability(maps, [word], maps.size)[0], maps.caption(word)
    return write_png(path, overlay(_picture(maps), heat, args.opacity, args.colormap, label=label, bar=True, unit="%"))


def _write_animation(maps: HeatMaps, word: str, path: Path, args: argparse.Namespace) -> Path:
    from ..maps.statistics import mean_probability
    from ..render import animate, step_frames

    heats = [mean_probability(maps.select(steps=[step]), [word], maps.size)[0] for step in range(maps.steps)]
    return animate(step_frames(_picture(maps), heats, word, args.opacity, args.colormap, unit="%"), path)


def _settings(maps: HeatMaps, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "prompt": maps.prompt.text, "negative": args.negative, "model": args.model, "seed": args.seed,
        "steps": maps.steps, "guidance": args.guidance, "height": maps.size[0], "width": maps.size[1],
        "method": args.method, "tau": args.tau, "aggregation": args.aggregation,
    }  # fmt: skip


def _write_report(
    maps: HeatMaps, words: Sequence[str], folder: Path, settings: dict[str, Any], paths: Sequence[Path]
) -> list[Path]:
    from ..maps.prompt_report import prompt_report

    own = [word for word in words if not maps.is_concept(word)]
    report = prompt_report(maps, own)
    concepts = {concept: round(maps.presence(concept).score, 4) for concept in maps.concepts}
    files = [path.name for path in paths] + ["report.txt", REPORT]
    text = f"{maps.prompt.text}\n\n" + "\n".join([*report.lines(), *concept_lines(maps)]) + "\n"
    relations = relation_entries(maps, own)
    entries = {**settings, **asdict(report), "concepts": concepts, "relations": relations, "files": files}
    data = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    return [write_text(folder / "report.txt", text), write_text(folder / REPORT, data)]


def concept_lines(maps: HeatMaps) -> list[str]:
    """What was looked for beside the prompt's words, a line each, and what the scores are worth; nothing where nothing was."""
    if not maps.concepts:
        return []
    from ..maps.queries import PRESENCE_NOTE

    return ["", *map(maps.caption, maps.concepts), PRESENCE_NOTE]


def _picture(maps: HeatMaps) -> Any:
    """The recorded picture, or plain grey of its size where the record holds none: uint8 `[H, W, 3]`."""
    import numpy as np

    return maps.picture if maps.picture is not None else np.full((*maps.size, 3), 128, np.uint8)


# -- an earlier call in the same folder ------------------------------------------------------------------------------


def _last_report(folder: Path) -> dict[str, Any]:
    """The report that lies there; empty where none does, or something else of that name."""
    with suppress(OSError, ValueError, RecursionError):  # a BadArgument is a ValueError, too
        data = json.loads(bounded_text(folder / REPORT, LARGEST_REPORT, "report"))
        if isinstance(data, dict):
            return data
    return {}


def _clear_leftovers(folder: Path, written: set[str], before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Remove the words' files that the last report lists and that belong to another picture or mask; name the others.

    What the last report does not list is somebody's own, and stays.
    """
    listed = before.get("files")
    listed = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    other_picture = any(before.get(name) != now[name] for name in _OF_THE_PICTURE)
    other_mask = other_picture or any(before.get(name) != now[name] for name in _OF_A_MASK)
    removed, left = [], []
    for path in sorted(folder.iterdir()):
        if path.name in written or not _OF_A_WORD.fullmatch(path.name) or not path.is_file():
            continue
        if path.name not in listed:
            left.append(path.name)
        elif other_mask if path.name.startswith("mask_") else other_picture:
            try:
                path.unlink()
            except OSError as error:
                raise CannotWrite(f"Cannot remove {path}, which shows another prompt: {error.strerror or error}.") from None
            removed.append(path.name)
    notes = []
    if removed:
        notes.append(f"Removed what an earlier call had written here: {_few(removed)}.")
    if left:
        notes.append(f"In this folder from before, not of this picture: {_few(left)}.")
    return notes


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
