"""`daam-lens read PICTURE`: what it writes, and one sentence for what a user can get wrong."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daam_core import HeatMaps
from daam_core.cli.parser import main
from daam_core.errors import BadArgument
from daam_core.picture_files import load_picture
from daam_core.studies.mask_bed_scenes import bed_scene

from .test_cli import complaint


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG file that promises a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"x")


def test_a_picture_is_read(tmp_path: Path) -> None:
    scene = bed_scene("flat", 110, (150, 100))
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    out = tmp_path / "out"
    nouns = ",".join(scene.masks)
    asked = ["read", str(tmp_path / "scene.png"), "--prompt", scene.caption, "--words", nouns, "--out", str(out)]
    assert main([*asked, "--save", "picture,masks,record,report"]) == 0
    assert {p.name for p in out.iterdir()} == {
        "picture.png", "record.safetensors", "report.txt", "report.json", *(f"mask_{noun}.png" for noun in scene.masks)
    }  # fmt: skip
    maps = HeatMaps.load(out / "record.safetensors")
    assert maps.steps == 4 and np.array_equal(maps.picture, scene.image)
    for noun, truth in scene.masks.items():
        mask = np.asarray(Image.open(out / f"mask_{noun}.png")) > 127
        assert (mask & truth).sum() / (mask | truth).sum() >= 0.8


def test_concepts_are_enough(tmp_path: Path) -> None:
    scene = bed_scene("flat", 111)
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    (noun,) = scene.masks
    out = tmp_path / "out"
    asked = ["read", str(tmp_path / "scene.png"), "--concepts", noun, "--out", str(out), "--save", "masks,report"]
    assert main(asked) == 0 and (out / f"mask_{noun}.png").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("there-is-none.png", None, "no such file"),
        ("text.png", b"not a picture", "no picture that can be read"),
        ("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture that can be read"),
        ("cut.png", png(64, 64), "cannot be read"),
        ("bomb.png", png(60000, 60000), "too many pixels"),
        ("large.png", png(12000, 12000), "12000 x 12000 pixels"),
    ],
)
def test_what_is_no_picture_is_said_before_a_model_is_loaded(
    name: str, content: bytes | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert says in complaint(capsys, "read", str(path), "--prompt", "a house", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_in_the_arguments_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "scene.png")
    Image.new("RGB", (64, 64)).save(path)
    assert "--prompt" in complaint(capsys, "read", path)
    assert "is for a folder" in complaint(capsys, "read", path, "--labels", "house")
    assert "takes --labels" in complaint(capsys, "read", str(tmp_path), "--prompt", "a house")
    assert "is empty" in complaint(capsys, "read", path, "--prompt", " ")
    assert "'boat' is not in the prompt" in complaint(capsys, "read", path, "--prompt", "a house", "--words", "boat")
    assert "noise levels from 1 to 999" in complaint(capsys, "read", path, "--prompt", "a house", "--noise", "0,300")
    assert "passes in all" in complaint(capsys, "read", path, "--prompt", "a house", "--samples", "300")


def test_pictures_are_turned_as_the_camera_says(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=turned)
    loaded = load_picture(tmp_path / "photo.png")
    assert loaded.shape == (16, 8, 3) and loaded[:8].min() == 255 and loaded[8:].max() == 0
    with pytest.raises(BadArgument, match="cannot be read"):
        load_picture(tmp_path)
