"""A folder of pictures to label maps: what is written, that it goes on where it stopped, and labels that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from daam_core import read_picture
from daam_core.cli.parser import USER_ERROR, main
from daam_core.errors import BadArgument
from daam_core.maps.heatmaps import HeatMaps
from daam_core.studies import label_folder, label_maps
from daam_core.studies.coco_outlines import mask_of, packed_runs, runs_of
from daam_core.studies.label_files import labels_of, numbers_of
from daam_core.studies.mask_bed_scenes import BedScene, bed_scene


@pytest.fixture
def scenes(tmp_path: Path) -> dict[str, BedScene]:
    """Three drawn scenes in a folder and one below it, with the labels of each in a file."""
    found = {"one.png": 150, "two.jpg": 151, "below/three.webp": 152}
    drawn = {name: bed_scene("flat", number, (112, 120)) for name, number in found.items()}
    for name, scene in drawn.items():
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(path, quality=95, lossless=True)
    labels = {name: list(scene.masks) for name, scene in drawn.items()}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    return drawn


def overlap(found: Any, truth: Any) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def test_a_folder_becomes_label_maps_and_goes_on_where_it_stopped(
    tmp_path: Path, scenes: dict[str, BedScene], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    asked = ["read", str(tmp_path / "pictures"), "--labels", str(tmp_path / "labels.json"), "--out", str(out)]
    read: list[int] = []
    most = 2

    def counted(*args: Any, **how: Any) -> HeatMaps:
        if len(read) == most:
            raise KeyboardInterrupt
        read.append(len(read))
        return read_picture(*args, **how)

    monkeypatch.setattr(label_folder, "read_picture", counted)
    assert main(asked) == 130 and not (out / "annotations.json").exists()
    most = 99
    assert main(asked) == 0 and len(read) == 3  # the third picture alone
    names = json.loads((out / "labels.json").read_text())
    numbers = {name: int(number) for number, name in names.items()}
    objects = json.loads((out / "annotations.json").read_text())
    assert {c["name"]: c["id"] for c in objects["categories"]} == {n: i for n, i in numbers.items() if i}
    ious = []
    for image in objects["images"]:
        scene = scenes[image["file_name"]]
        with Image.open(out / "label_maps" / Path(image["file_name"]).with_suffix(".png")) as file:
            assert file.mode == "P" and file.size == (120, 112)
            labels = np.asarray(file)
        own = [one for one in objects["annotations"] if one["image_id"] == image["id"]]
        for one in own:
            mask = labels == one["category_id"]
            assert (mask_of(one["segmentation"], (112, 120)) == mask).all() and one["area"] == mask.sum()
            x, y, width, height = one["bbox"]
            assert mask[y : y + height, x : x + width].sum() == mask.sum() and mask[y].any() and mask[:, x].any()
        ious += [overlap(labels == numbers[noun], truth) for noun, truth in scene.masks.items()]
    assert np.mean(ious) >= 0.85


def test_a_picture_that_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, scenes: dict[str, BedScene], capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled = tmp_path / "pictures" / "one.png"
    whole = spoiled.read_bytes()
    asked = ["read", str(tmp_path / "pictures"), "--labels", str(tmp_path / "labels.json"), "--out", str(tmp_path / "out")]
    spoiled.write_bytes(whole[: len(whole) // 2])
    assert main(asked) == USER_ERROR
    said = capsys.readouterr().err
    assert "1 of 3 pictures are not labelled" in said and "The first is one.png: " in said and "cannot be read" in said
    objects = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert {image["file_name"] for image in objects["images"]} == {"below/three.webp", "two.jpg"}
    spoiled.write_bytes(whole)
    assert main(asked) == 0
    assert len(json.loads((tmp_path / "out" / "annotations.json").read_text())["images"]) == 3


def test_coco_s_own_package_reads_it(tmp_path: Path, scenes: dict[str, BedScene]) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is in the extra `benchmark`")
    out = tmp_path / "out"
    nouns = ",".join(scenes["one.png"].masks)
    (tmp_path / "pictures" / "two.jpg").unlink()
    (tmp_path / "pictures" / "below" / "three.webp").unlink()
    assert main(["read", str(tmp_path / "pictures"), "--labels", nouns, "--out", str(out), "--noise", "200"]) == 0
    read = coco.COCO(str(out / "annotations.json"))
    labels = np.asarray(Image.open(out / "label_maps" / "one.png"))
    for one in read.loadAnns(read.getAnnIds()):
        assert (read.annToMask(one).astype(bool) == (labels == one["category_id"])).all()
    assert len(read.getAnnIds()) == len(set(np.unique(labels)) - {0}) >= 1


@pytest.mark.parametrize("seed", range(3))
def test_packed_runs_are_coco_s(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is in the extra `benchmark`")
    mask = np.random.default_rng(seed).random((200, 37 + seed)) < 0.02 + 0.4 * seed
    packed = packed_runs(runs_of(mask))
    assert packed == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert (mask_of({"size": list(mask.shape), "counts": packed}, mask.shape) == mask).all()


def test_the_hotter_label_has_the_place_and_the_palette_is_voc_s() -> None:
    class Maps:
        size = (2, 3)
        masks: ClassVar = {"a": [[1, 1, 0], [0, 0, 0]], "b": [[0, 1, 1], [0, 0, 0]]}
        heats: ClassVar = {"a": [[2.0, 4.0, 0.0], [0.0, 0.0, 0.0]], "b": [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]}

        def mask(self, label: str, *_: Any, **__: Any) -> Any:
            return torch.tensor(self.masks[label]).bool()

        def heat_map(self, label: str, size: Any) -> Any:
            return torch.tensor(self.heats[label])

    maps: Any = Maps()
    assert label_maps.label_map(maps, {"a": 3, "b": 7}, "best", 0.4).tolist() == [[3, 3, 7], [0, 0, 0]]
    colours = np.array(label_maps.palette()).reshape(256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {i: tuple(colours[i]) for i in known} == known


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("l.txt", b"", "There are 0 labels"),
        ("l.txt", b"house\ntree\nHouse\n", "'House' stands twice"),
        ("l.txt", b"\xff\xfe", "no UTF-8"),
        ("l.txt", ("x" * 101).encode(), "is no label"),
        ("l.txt", b"a\x07b", "is no label"),
        ("l.txt", "\n".join(f"label {i}" for i in range(255)).encode(), "There are 255 labels"),
        ("l.json", b"[1]", "does not name the labels"),
        ("l.json", b"[" * 100000, "no JSON"),
        ("l.json", b'{"one.png": "house"}', "does not name the labels"),
        ("l.json", b'{"one.png": [1]}', "is no label"),
        ("l.json", b'{"../one.png": ["house"]}', "not in the folder"),
        ("none.txt", None, "cannot be read"),
    ],
)
def test_labels_that_are_none_are_said(name: str, content: bytes | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadArgument, match=says):
        labels_of(str(tmp_path / name), ["one.png"])


def test_labels_are_numbered_in_the_order_in_which_they_are_named() -> None:
    labels = {"a.png": ("tree", "house"), "b.png": ("house", "sun")}
    assert numbers_of(labels) == {"tree": 1, "house": 2, "sun": 3}
    assert labels_of(" house, tree ", ["a.png"]) == {"a.png": ("house", "tree")}
    with pytest.raises(BadArgument, match="There are 300 labels"):
        numbers_of({str(i): (f"label {i}",) for i in range(300)})


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()

    def complaint(*more: str) -> str:
        assert main(["read", str(pictures), "--labels", "house", "--out", str(tmp_path / "out"), *more]) == USER_ERROR
        return capsys.readouterr().err

    assert "no picture with labels" in complaint()
    Image.new("RGB", (16, 16)).save(pictures / "one.png")
    Image.new("RGB", (16, 16)).save(pictures / "One.jpg")
    assert "would have the same label map" in complaint()
    assert "no mask method" in complaint("--method", "magic")
    (pictures / "One.jpg").write_bytes(b"nothing")
    (pictures / "One.jpg").rename(pictures / "two.jpg")
    assert "two.jpg is no picture" in complaint()
    with pytest.raises(BadArgument, match=r"picture '.udcff.png' holds a broken character"):
        label_folder.map_names(["house.png", "\udcff.png"])  # a byte of another encoding, as old archives have it
