"""Benchmarks of segmentation on drawn miniatures of each data set's layout; scores against explicit sums in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from daam_core.cli.parser import USER_ERROR, main
from daam_core.errors import BadArgument
from daam_core.studies.coco_outlines import runs_of
from daam_core.studies.mask_bed_scenes import bed_scene
from daam_core.studies.segmentation_benchmarks import benchmark, layouts, protocols, tallies

pytest.importorskip("torchmetrics", reason="torchmetrics is in the extra `benchmark`")
pytest.importorskip("pycocotools", reason="pycocotools is in the extra `benchmark`")
Labels = np.ndarray[Any, np.dtype[np.int64]]


def palette(path: Path, labels: Labels) -> None:
    picture = Image.fromarray(labels.astype(np.uint8), "P")
    picture.putpalette([i for n in range(256) for i in (n, 255 - n, n // 2)])
    picture.save(path)


def imagenet(folder: Path, numbers: range = range(130, 133)) -> Path:
    """Scenes of which one object is the class."""
    (folder / "images").mkdir(parents=True)
    (folder / "segmentation_masks").mkdir()
    lines = [",image_path,segmentation_mask_path,simplified_name"]
    for i, number in enumerate(numbers):
        scene = bed_scene("flat", number, (96, 120))
        noun, mask = next(iter(scene.masks.items()))
        Image.fromarray(scene.image).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / "segmentation_masks" / f"{i}.png")
        lines.append(f"{i},images/{i}.png,segmentation_masks/{i}.png,{noun}")
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    return folder


def voc(folder: Path) -> Path:
    """Two pictures: a boat (4) and a dog (12) with an edge that is not judged; a bird (3) alone."""
    home = folder / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (home / name).mkdir(parents=True)
    one = np.zeros((60, 80), np.int64)
    one[10:40, 5:35], one[20:55, 45:75], one[8:10, 5:35] = 4, 12, 255
    two = np.zeros((48, 64), np.int64)
    two[12:36, 16:48] = 3
    for name, labels in (("2007_000001", one), ("2007_000002", two)):
        palette(home / "SegmentationClass" / f"{name}.png", labels)
        colours = np.random.default_rng(0).integers(0, 255, (256, 3), dtype=np.uint8)
        Image.fromarray(colours[labels]).save(home / "JPEGImages" / f"{name}.jpg")
    (home / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000001\n2007_000002\n")
    return folder


def coco(folder: Path, numbers: range = range(140, 142)) -> Path:
    """Drawn scenes, one object as a polygon's runs, in COCO's own form; categories with gaps between their ids."""
    (folder / "val2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    scenes = [bed_scene("flat", number, (128, 128)) for number in numbers]
    nouns = sorted({noun for scene in scenes for noun in scene.masks})
    ids = {noun: 3 * i + 2 for i, noun in enumerate(nouns)}
    images: list[Any] = []
    objects: list[Any] = []
    for i, scene in enumerate(scenes):
        Image.fromarray(scene.image).save(folder / "val2017" / f"{i:012d}.jpg", quality=95)
        images.append({"id": 100 + i, "file_name": f"{i:012d}.jpg", "height": 128, "width": 128})
        for noun, mask in scene.masks.items():
            objects.append(
                {
                    "id": len(objects), "image_id": 100 + i, "category_id": ids[noun], "iscrowd": 0,
                    "segmentation": {"size": [128, 128], "counts": runs_of(mask)}, "area": int(mask.sum()),
                }
            )  # fmt: skip
    content = {"images": images, "annotations": objects, "categories": [{"id": i, "name": n} for n, i in ids.items()]}
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return folder


def run(tmp_path: Path, name: str, data: Path, *more: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    out = tmp_path / "out"
    assert main(["benchmark", name, "--data", str(data), "--out", str(out), *more]) == 0
    return pd.read_csv(out / "rows.csv"), json.loads((out / "run.json").read_text())


# -- layouts -------------------------------------------------------------------------------------------------------------


def test_voc_is_read_with_its_classes(tmp_path: Path) -> None:
    for folder in (voc(tmp_path), tmp_path / "VOCdevkit" / "VOC2012", tmp_path / "VOCdevkit"):
        data = layouts.Voc(folder)
        first, second = data.examples()
        assert (first.classes, second.classes) == ((4, 12), (3,))
        assert [data.classes[i - 1] for i in (3, 4, 12, 20)] == ["bird", "boat", "dog", "tv monitor"]
        truth = data.truth(first)
        assert truth[9, 10] == 255 and truth[20, 10] == 4 and truth[50, 60] == 12 and truth[0, 0] == 0


def test_coco_is_painted_in_order_and_crowds_are_not_judged(tmp_path: Path) -> None:
    folder = coco(tmp_path)
    path = folder / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    square = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
    crowd = {"size": [128, 128], "counts": [0, 640, 15744]}
    category = content["annotations"][0]["category_id"]
    content["annotations"] += [
        {"image_id": 100, "category_id": category, "iscrowd": 0, "segmentation": square},
        {"image_id": 100, "category_id": category, "iscrowd": 1, "segmentation": crowd},
    ]  # fmt: skip
    path.write_text(json.dumps(content))
    data = layouts.CocoObject(folder)
    first = data.examples()[0]
    truth = data.truth(first)
    assert (truth[12:28, 12:28] == 1 + sorted(c["id"] for c in content["categories"]).index(category)).all()
    assert (truth[:, :5] == 255).all() and not (truth[:, 6:] == 255).any()  # 640 pixels: five columns of 128
    scene = bed_scene("flat", 140, (128, 128))
    for noun, mask in scene.masks.items():
        number = 1 + list(data.classes).index(noun)
        free = np.ones_like(mask)
        free[:, :6], free[8:32, 8:32] = False, False
        assert ((truth == number)[free] == mask[free]).all()


LIST, MAP = (f"VOCdevkit/VOC2012/{name}" for name in ("ImageSets/Segmentation/val.txt", "SegmentationClass/2007_000001.png"))


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("voc", lambda f: (f / LIST).write_text("../../../../etc/passwd"), "outside"),
        ("voc", lambda f: (f / LIST).write_text("2007_9"), "There is no file"),
        ("voc", lambda f: (f / LIST).unlink(), "no such file"),
        ("voc", lambda f: palette(f / MAP, np.full((60, 80), 21)), "class 21"),
        ("voc", lambda f: Image.new("RGB", (8, 8)).save(f / MAP), "has colours"),
        ("imagenet", lambda f: (f / "data.csv").write_text("a,b\n1,2\n"), "simplified_name"),
        ("imagenet", lambda f: (f / "data.csv").write_bytes(b"\xff\xfe\x00"), "no UTF-8"),
        ("coco", lambda f: (f / "annotations/instances_val2017.json").write_text("[" * 100000), "no JSON"),
        ("coco", lambda f: (f / "annotations/instances_val2017.json").write_text("[]"), "no list of objects"),
        ("coco", lambda f: changed(f, "images", file_name="../../secret.jpg"), "outside"),
        ("coco", lambda f: changed(f, "images", height="9"), "'images'"),
        ("coco", lambda f: changed(f, "images", height=10**9), "pixels"),
        ("coco", lambda f: changed(f, "annotations", category_id=77), "category"),
        ("coco", lambda f: changed(f, "annotations", segmentation={"size": [9, 9], "counts": [81]}), "damaged object"),
        ("coco", lambda f: changed(f, "annotations", segmentation=[["x"]]), "damaged object"),
        ("coco", lambda f: changed(f, "annotations", segmentation=7), "damaged object"),
    ],
)  # fmt: skip
def test_hostile_data_sets_are_said(name: str, spoil: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    makers = {"voc": voc, "imagenet": imagenet, "coco": coco}
    kinds: dict[str, Any] = {"voc": layouts.Voc, "imagenet": layouts.ImageNetSegmentation, "coco": layouts.CocoObject}
    folder = makers[name](tmp_path)
    spoil(folder)
    with pytest.raises(BadArgument, match=says):
        data = kinds[name](folder)
        for example in data.examples():
            data.truth(example)


def changed(folder: Path, part: str, **values: Any) -> None:
    path = folder / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content[part][0].update(values)
    path.write_text(json.dumps(content))


# -- protocols and scores ------------------------------------------------------------------------------------------------


def test_the_hottest_label_and_the_mean() -> None:
    heats = torch.tensor([[[0.1, 0.9], [0.5, 0.2]], [[0.3, 0.2], [0.5, 0.1]]])
    assert protocols.hottest(heats, [7, 9]).tolist() == [[9, 7], [7, 7]]
    # Ranges 0.1..0.9 and 0.1..0.5: the winners' shares are 0.5, 1, 0.5, 0.125.
    assert protocols.hottest(heats, [7, 9], 0.4).tolist() == [[9, 7], [7, 0]]
    assert protocols.above_mean(heats[0]).tolist() == [[False, True], [True, False]]
    assert not protocols.above_mean(torch.ones(3, 3)).any()
    labels = np.arange(36).reshape(6, 6)
    assert protocols.judged_at(labels, 3).tolist() == [[7, 9, 11], [19, 21, 23], [31, 33, 35]]


@pytest.mark.parametrize("seed", range(3))
def test_counts_and_scores_are_those_of_explicit_sums(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, both, union, right, judged = [], np.zeros(6), np.zeros(6), 0, 0
    for picture in range(4):
        predicted, truth = random.integers(0, 6, (2, 30, 40))
        truth[random.random(truth.shape) < 0.1] = 255
        for i, (n, t, p) in tallies.counts(predicted, truth, 5).items():
            rows.append({"unit": str(picture), "class": i, "both": n, "true": t, "predicted": p, "ap": None})
        for y in range(30):
            for x in range(40):
                if truth[y, x] == 255:
                    continue
                judged += 1
                a, b = predicted[y, x], truth[y, x]
                right += a == b
                both[a] += a == b
                union[a] += 1
                union[b] += a != b
    found = tallies.scores(pd.DataFrame(rows))
    assert found["mIoU"] == pytest.approx(np.mean(both / union), abs=1e-12)
    assert found["accuracy"] == pytest.approx(right / judged, abs=1e-12)
    assert tallies.counts(np.zeros((2, 2), np.int64), np.full((2, 2), 255), 5) == {}


def test_average_precision_is_the_known_one() -> None:
    random = np.random.default_rng(0)
    heat, mask = random.random((20, 30)).astype(np.float32), random.random((20, 30)) < 0.3
    known = average_precision_score(mask.flatten(), heat.flatten())
    assert tallies.average_precision(torch.from_numpy(heat), mask) == pytest.approx(known, abs=1e-6)
    assert tallies.average_precision(torch.from_numpy(heat), np.zeros((20, 30), bool)) == 0.0


@pytest.mark.parametrize("kind", ["perfect", "empty", "shifted"])
def test_perfect_empty_and_shifted_masks_score_as_they_must(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = imagenet(tmp_path / "data")
    data = layouts.ImageNetSegmentation(folder)
    truths = [protocols.judged_at(data.truth(example)) > 0 for example in data.examples()]
    made: Callable[[Any], Any] = {"perfect": lambda m: m, "empty": np.zeros_like, "shifted": lambda m: np.roll(m, 9, axis=1)}[
        kind
    ]
    waiting = iter([torch.from_numpy(made(mask).astype(np.float32))[None] for mask in truths])
    monkeypatch.setattr(benchmark, "heats_of", lambda *_: next(waiting))
    _, about = run(tmp_path, "imagenet-segmentation", folder)
    ious = []
    for wanted in (True, False):
        n = sum(((made(mask) == wanted) & (mask == wanted)).sum() for mask in truths)
        u = sum(((made(mask) == wanted) | (mask == wanted)).sum() for mask in truths)
        ious.append(n / u)
    assert about["mIoU"] == pytest.approx(np.mean(ious), abs=1e-6)
    accuracy = np.mean([(made(mask) == mask).mean() for mask in truths])
    assert about["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    if kind == "perfect":
        assert (about["mIoU"], about["accuracy"], about["mAP"]) == (1, 1, 1)
    if kind == "empty":
        assert ious[0] == 0 and about["accuracy"] == pytest.approx(1 - np.mean(truths), abs=1e-6)


def test_voc_leaves_out_what_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every place is the class "boat" where a boat and a dog are: half right; background and edges do not count."""
    folder = voc(tmp_path / "data")

    def heats(_pipe: Any, _picture: Any, labels: Any, size: tuple[int, int], _options: Any) -> torch.Tensor:
        return torch.stack([torch.full(size, 1.0 if label == "boat" else 0.5) for label in labels])

    monkeypatch.setattr(benchmark, "heats_of", heats)
    rows, about = run(tmp_path, "voc", folder)
    assert set(rows["class"]) == {"boat", "dog", "bird"}
    boat, dog, bird = 30 * 30, 35 * 30, 24 * 32
    assert about["accuracy"] == pytest.approx((boat + bird) / (boat + dog + bird), abs=1e-6)
    assert about["mIoU"] == pytest.approx(np.mean([boat / (boat + dog), 0, 1]), abs=1e-6)
    single = tmp_path / "single"
    _, about = run(single, "voc", folder, "--protocol", "concept-attention")
    assert about["units"] == 1  # the picture of one class


# -- the whole way -------------------------------------------------------------------------------------------------------


def test_the_model_inside_finds_drawn_objects_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    folder = coco(tmp_path / "data")
    _, first = run(tmp_path, "coco-object", folder, "--limit", "1")
    rows, about = run(tmp_path, "coco-object", folder)
    assert (first["units"], about["units"]) == (1, 2)
    lines = [line for path in (tmp_path / "out" / ".measured").rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == 2 and [json.loads(line)["unit"] for line in lines] == ["100", "101"]  # a line a picture
    objects = rows[rows["class"] != "background"]
    assert (objects["both"] / objects["true"]).mean() > 0.5
    assert "IoU by class" in (tmp_path / "out" / "report.md").read_text()


def test_what_is_wrong_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["benchmark", "voc", "--data", str(tmp_path / "none"), "--out", out]) == USER_ERROR
    assert "There is no folder" in capsys.readouterr().err
    folder = str(voc(tmp_path / "data"))
    assert main(["benchmark", "voc", "--data", folder, "--out", out, "--background", "2"]) == USER_ERROR
    assert "share from 0 to 1" in capsys.readouterr().err
