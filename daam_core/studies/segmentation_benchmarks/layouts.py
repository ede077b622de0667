"""Data sets as people have them on disk: which pictures there are, which classes are in each, and the true label maps.

- *ImageNet-Segmentation*, as ConceptAttention's `data_processing.py` writes it from `gtsegs_ijcv.mat`: `images/N.png`,
  `segmentation_masks/N.png` (0 is background) and `data.csv` with a line for each N in order, column `simplified_name`.
- *VOC*: `JPEGImages/NAME.jpg`, `SegmentationClass/NAME.png` (palette; 0 background, 1 to 20, 255 not judged) and
  `ImageSets/Segmentation/val.txt`, in the folder itself or in its `VOCdevkit/VOC2012` or `VOC2012`.
- *COCO-Object*: `val2017/NAME.jpg` and `annotations/instances_val2017.json`; objects are painted in the order of the file,
  later ones over earlier ones, groups (`iscrowd`) are not judged.

Nothing is downloaded. Every name in a file is looked for inside the data set's folder and nowhere else.
"""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BadArgument, quoted
from ...files import bounded_text
from ...picture_files import checked_pixels, load_label_map
from ..coco_outlines import mask_of

NOT_JUDGED = 255
LARGEST_LIST = 2**30
"""Bytes of a list of pictures; COCO's own has 20 MB."""
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog", "horse",
    "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Example:
    """One picture of a data set.

    Attributes:
        key: unique in the data set.
        picture: its file.
        classes: numbers of the classes that are in it, from 1.
    """

    key: str
    picture: Path
    classes: tuple[int, ...]


class DataSet(ABC):
    """Pictures with true label maps.

    Attributes:
        classes: names of the classes; class i is `classes[i - 1]`, 0 is the background.
    """

    classes: Sequence[str]

    @abstractmethod
    def examples(self) -> list[Example]:
        """All pictures, in the data set's order. Raises BadArgument where something is missing or damaged."""

    @abstractmethod
    def truth(self, example: Example) -> Labels:
        """int64 `[H, W]`: 0 background, classes from 1, `NOT_JUDGED`. Raises BadArgument."""


class ImageNetSegmentation(DataSet):
    """4276 pictures of one class each; class names are the simplified ones of ConceptAttention."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        lines = list(csv.DictReader(_text(folder / "data.csv").splitlines()))
        if not lines or any(not (line.get("simplified_name") or "").strip() for line in lines):
            raise BadArgument(f"{folder / 'data.csv'} has no column simplified_name, or lines without it.")
        self._names = [str(line["simplified_name"]).strip() for line in lines]
        self.classes = tuple(dict.fromkeys(self._names))

    def examples(self) -> list[Example]:
        number = {name: i for i, name in enumerate(self.classes, 1)}
        return [
            Example(str(i), _inside(self._folder, f"images/{i}.png"), (number[name],)) for i, name in enumerate(self._names)
        ]

    def truth(self, example: Example) -> Labels:
        marked = load_label_map(_inside(self._folder, f"segmentation_masks/{example.key}.png"))
        return np.where(marked > 0, example.classes[0], 0).astype(np.int64)


class Voc(DataSet):
    """PASCAL VOC 2012, the pictures of the list `val`."""

    classes = VOC_CLASSES

    def __init__(self, folder: Path) -> None:
        homes = [folder, folder / "VOCdevkit" / "VOC2012", folder / "VOC2012"]
        self._folder = next((home for home in homes if (home / "SegmentationClass").is_dir()), folder)

    def examples(self) -> list[Example]:
        found = []
        for name in _text(self._folder / "ImageSets" / "Segmentation" / "val.txt").split():
            picture = _inside(self._folder, f"JPEGImages/{name}.jpg")
            there = np.unique(load_label_map(_inside(self._folder, f"SegmentationClass/{name}.png")))
            if wrong := [int(i) for i in there if len(self.classes) < i < NOT_JUDGED]:
                raise BadArgument(f"SegmentationClass/{name}.png holds the class {wrong[0]}; VOC has 20.")
            found.append(Example(name, picture, tuple(int(i) for i in there if 0 < i < NOT_JUDGED)))
        return found

    def truth(self, example: Example) -> Labels:
        return load_label_map(_inside(self._folder, f"SegmentationClass/{example.key}.png")).astype(np.int64)


class CocoObject(DataSet):
    """COCO 2017's validation pictures with the 80 kinds of objects; pictures without any are left out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        content = _json(folder / "annotations" / "instances_val2017.json")
        categories = sorted(_entries(content, "categories", {"id": int, "name": str}), key=lambda c: c["id"])
        self.classes = tuple(category["name"] for category in categories)
        if not 0 < len(self.classes) < NOT_JUDGED:
            raise BadArgument(
                f"instances_val2017.json names {len(self.classes)} categories; 1 to {NOT_JUDGED - 1} can be judged."
            )
        self._number = {category["id"]: i for i, category in enumerate(categories, 1)}
        wanted = {"id": int, "file_name": str, "height": int, "width": int}
        self._images = {str(image["id"]): image for image in _entries(content, "images", wanted)}
        self._objects: dict[str, list[dict[str, Any]]] = {}
        for one in _entries(content, "annotations", {"image_id": int, "category_id": int, "segmentation": object}):
            if one["category_id"] not in self._number or str(one["image_id"]) not in self._images:
                raise BadArgument("instances_val2017.json has an object of a category or picture that it does not name.")
            self._objects.setdefault(str(one["image_id"]), []).append(one)

    def examples(self) -> list[Example]:
        found = []
        for key, image in self._images.items():
            classes = sorted({self._number[one["category_id"]] for one in self._objects.get(key, ()) if not one.get("iscrowd")})
            if classes:
                found.append(Example(key, _inside(self._folder, f"val2017/{image['file_name']}"), tuple(classes)))
        return found

    def truth(self, example: Example) -> Labels:
        image = self._images[example.key]
        checked_pixels(image["width"], image["height"], f"The picture {image['file_name']}")
        labels = np.zeros((image["height"], image["width"]), np.int64)
        for one in self._objects[example.key]:
            try:
                mask = mask_of(one["segmentation"], (image["height"], image["width"]))
            except BadArgument as error:
                raise BadArgument(f"instances_val2017.json has a damaged object in {image['file_name']}: {error}.") from None
            labels[mask] = NOT_JUDGED if one.get("iscrowd") else self._number[one["category_id"]]
        return labels


def _inside(folder: Path, name: str) -> Path:
    """A file of a data set. Raises BadArgument where it is missing, or leads out of the folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadArgument(f"The data set names the file {quoted(name)}, which lies outside its folder.")
    if not path.is_file():
        raise BadArgument(f"There is no file {path}. docs/benchmarks.md shows the layout of each data set.")
    return path


def _text(path: Path) -> str:
    try:
        return bounded_text(path, LARGEST_LIST, "list of pictures")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise BadArgument(
            f"{path} cannot be read: {reason[:1].lower()}{reason[1:]}. docs/benchmarks.md shows the layout."
        ) from None


def _json(path: Path) -> Mapping[str, Any]:
    text = _text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise BadArgument(f"{path} is no JSON.") from None
    if not isinstance(content, dict):
        raise BadArgument(f"{path} is no list of objects in COCO's form.")
    return content


def _entries(content: Mapping[str, Any], name: str, wanted: Mapping[str, type]) -> list[dict[str, Any]]:
    """The dicts of one list, each with the wanted entries. Raises BadArgument."""
    found = content.get(name)
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and all(isinstance(one.get(key), kind) and key in one for key, kind in wanted.items())
        for one in found
    ):
        raise BadArgument(f"instances_val2017.json has no list {quoted(name)} whose entries have {', '.join(wanted)}.")
    return found
