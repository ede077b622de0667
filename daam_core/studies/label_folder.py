"""A folder of pictures to label maps, for people who annotate; a stopped run goes on, processes share the pictures."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..diffusers.reading import read_picture
from ..errors import BadArgument
from ..files import atomic_write, writable_folder
from ..picture_files import ENDINGS, load_picture
from ..prompt.alignment import LONE_SURROGATES
from ..types import Image
from .label_files import labels_of, numbers_of
from .label_maps import label_map, objects_of, palette_png
from .model_runner import ModelRunner
from .processes import processes
from .shards import Cost, Kept, Shards
from .study import Measured, Unit

MAPS, OBJECTS, NAMES = "label_maps", "annotations.json", "labels.json"
SETTINGS = ("noise", "samples", "seed", "size", "method", "tau")


def label_folder(options: argparse.Namespace) -> list[Path]:
    """Write the label map of every picture of a folder, then all objects in COCO's form.

    A picture that cannot be read is left out: the others are labelled and written before that is raised.

    Args:
        options: of `daam-lens read FOLDER`: picture (the folder), labels, out, model, device, and how a picture is read.

    Returns:
        What was written, by the first process; the others give nothing.

    Raises:
        DaamLensError: whatever a user can cause, in one sentence.
    """
    folder, out = Path(options.picture), Path(options.out or "daam-lens-labels")
    labels = labels_of(options.labels, pictures_in(folder, out))
    if not labels:
        raise BadArgument(f"There is no picture with labels in {folder}; pictures end in {', '.join(ENDINGS)}.")
    numbers = numbers_of(labels)
    names = map_names(list(labels))
    units = [
        Unit(name, {"labels": list(group), "bytes": (folder / name).stat().st_size, "map": names[name]})
        for name, group in labels.items()
    ]
    writable_folder(out / MAPS)
    here = processes(options.device)
    runner = ModelRunner(options.model, here.device or options.device)
    recipe = {name: getattr(options, name) for name in SETTINGS} | {"weights": runner.weights_digest, "numbers": numbers}
    shards = Shards(out, "labels", recipe)
    shards.open()
    done = {key for key in shards.read(units) if (out / MAPS / names[key]).is_file()}
    here.wait()
    from tqdm import tqdm

    unread: dict[str, str] = {}
    mine = here.share([unit for unit in units if unit.key not in done])
    for unit in tqdm(mine, desc="reading", unit="picture", disable=not here.first):
        start = (time.perf_counter(), time.process_time())
        try:
            picture = load_picture(folder / unit.key)
        except BadArgument as error:
            unread[unit.key] = str(error)
            continue
        measured = _label(picture, out, unit, numbers, runner, options)
        shards.append(here.index, unit, measured, Cost(time.perf_counter() - start[0], time.process_time() - start[1]))
    here.wait()
    if not here.first:
        return []
    kept = shards.read(units)
    missing = [unit.key for unit in units if unit.key not in kept]
    if len(missing) == len(units):
        raise BadArgument(next(iter(unread.values()), "No picture is labelled. Start the command again."))
    told = json.dumps({"0": "", **{str(number): name for name, number in numbers.items()}}, ensure_ascii=False, indent=1)
    written = [
        out / MAPS,
        atomic_write(out / NAMES, (told + "\n").encode()),
        atomic_write(out / OBJECTS, lambda file: _write_objects(file, [u for u in units if u.key in kept], kept, numbers)),
    ]
    if missing:
        raise BadArgument(
            f"{len(missing)} of {len(units)} pictures are not labelled; the rest is in {out}. The first is {missing[0]}: "
            + unread.get(missing[0], "start the command again.")
        )
    return written


def pictures_in(folder: Path, out: Path) -> list[str]:
    """Names of the pictures in a folder and the folders in it, with `/` between; what lies in `out` is left out."""
    if not folder.is_dir():
        raise BadArgument(f"There is no folder {folder}.")
    apart = out.resolve()
    found = [path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in found if not path.resolve().is_relative_to(apart))


def map_names(pictures: Sequence[str]) -> dict[str, str]:
    """The name of each picture's label map: its own with `.png`.

    Raises:
        BadArgument: two would be the same, or a picture's name is no text (a byte of another encoding).
    """
    for picture in pictures:
        if LONE_SURROGATES.search(picture):
            raise BadArgument(f"The name of the picture {picture!a} holds a broken character. Rename it (as UTF-8).")
    names = {picture: str(Path(picture).with_suffix(".png").as_posix()) for picture in pictures}
    taken: dict[str, str] = {}
    for picture, name in names.items():
        if (other := taken.setdefault(name.casefold(), picture)) != picture:
            raise BadArgument(f"{other} and {picture} would have the same label map, {name}. Rename one of them.")
    return names


def _label(
    picture: Image, out: Path, unit: Unit, numbers: Mapping[str, int], runner: ModelRunner, options: argparse.Namespace
) -> Measured:
    group: list[str] = unit.content["labels"]
    maps = read_picture(
        runner.pipe, picture, concepts=group, noise=options.noise, samples=options.samples, seed=options.seed,
        size=options.size,
    )  # fmt: skip
    labels = label_map(maps, {name: numbers[name] for name in group}, options.method, options.tau)
    path = out / MAPS / unit.content["map"]
    writable_folder(path.parent)
    atomic_write(path, palette_png(labels))
    size: dict[str, Any] = {"label": None, "height": labels.shape[0], "width": labels.shape[1]}
    return Measured([size, *objects_of(labels, group, numbers)])


def _write_objects(file: BinaryIO, units: Sequence[Unit], kept: Mapping[str, Kept], numbers: Mapping[str, int]) -> None:
    """COCO's form, picture by picture: never more than one picture's objects are held."""

    def write(value: Any, before: str = "") -> None:
        file.write((before + json.dumps(value, ensure_ascii=False)).encode())

    file.write(b'{"info": {"description": "label maps by DAAM Lens"}, "images": [')
    for i, unit in enumerate(units):
        size = kept[unit.key].rows[0]
        image = {"id": i + 1, "file_name": unit.key, "height": size["height"], "width": size["width"]}
        write(image, "\n" if i == 0 else ",\n")
    file.write(b'],\n"categories": ')
    write([{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()])
    file.write(b',\n"annotations": [')
    count = 0
    for i, unit in enumerate(units):
        size, *rows = kept[unit.key].rows
        for row in rows:
            count += 1
            one = {
                "id": count, "image_id": i + 1, "category_id": row["number"], "iscrowd": 0, "area": row["area"],
                "bbox": [row["x"], row["y"], row["width"], row["height"]],
                "segmentation": {"size": [size["height"], size["width"]], "counts": row["runs"]},
            }  # fmt: skip
            write(one, "\n" if count == 1 else ",\n")
    file.write(b"]}\n")
