"""Pictures of people in every mode that PIL opens: read as a viewer shows them, or refused by a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from daam_core.errors import BadArgument
from daam_core.picture_files import load_picture, mask_pixels
from daam_core.picture_input import checked_picture, size_to_read
from daam_core.render.overlay import as_picture

from .maps.test_heatmaps import made
from .maps.videos import LATENTS, random_video


def ramp(top: int) -> np.ndarray:
    return np.linspace(0, top, 48).round().reshape(6, 8)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_of_16_bits_is_not_cut_off_at_255(tmp_path: Path, ending: str) -> None:
    """PIL's own conversion made such a picture white all over."""
    deep = Image.fromarray(ramp(65535).astype(np.uint16))
    deep.save(path := tmp_path / f"deep.{ending}")
    for read in (load_picture(path), checked_picture(deep), checked_picture(Image.fromarray(ramp(65535).astype(np.int32)))):
        assert np.abs(read[..., 0] - ramp(255)).max() <= 1 and (read == read[..., :1]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_not_the_colour_that_lies_under_it(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Image.Image, "has_transparency_data", raising=False)  # as in Pillow 9.5, which WebUIs pin
    image = Image.new("RGBA", (4, 2), (10, 10, 10, 255))
    image.putpixel((0, 0), (10, 10, 10, 0))
    if mode == "P":
        image = Image.new("P", (4, 2), 1)
        image.putpalette([0, 0, 0, 10, 10, 10])
        image.putpixel((0, 0), 0)
        image.save(path := tmp_path / "clear.png", transparency=0)
    else:
        image.convert(mode).save(path := tmp_path / "clear.png")
    read = load_picture(path)
    assert read[0, 0].tolist() == [255] * 3 and read[1, 3].tolist() == [10] * 3


@pytest.mark.parametrize(
    "numbers",
    [np.random.default_rng(0).random((4, 4), np.float32), np.full((4, 4), -1, np.int32), np.full((4, 4), 2**20, np.int32)],
)
def test_numbers_of_no_known_range_are_refused(tmp_path: Path, numbers: np.ndarray) -> None:
    Image.fromarray(numbers).save(path := tmp_path / "numbers.tif")
    with pytest.raises(BadArgument, match="range that is not known"):
        load_picture(path)


@pytest.mark.parametrize("mode", ["La", "LA", "I;16", "RGB"])
def test_pictures_of_any_mode_and_without_a_pixel(mode: str) -> None:
    """Pillow itself converts no "La", and the smallest number of no pixel was asked for."""
    assert as_picture(Image.new(mode, (3, 2))).shape == (2, 3, 3)
    assert mask_pixels(Image.new(mode, (3, 2))).shape == (2, 3)
    with pytest.raises(BadArgument, match="0 x 2 pixels shows nothing"):
        as_picture(Image.new(mode, (0, 2)))


@pytest.mark.parametrize("size", [(0, 0), (40.5, 40), "ab", 5, (8, 8, 8), (10**9, 10**9), None])
def test_a_size_that_cannot_be_read_is_said(size: object) -> None:
    with pytest.raises(BadArgument, match="size is"):
        size_to_read(size)  # type: ignore[arg-type]


def test_pictures_that_maps_are_laid_over_are_read_alike() -> None:
    """`with_picture`, overlays and frames of a video made 16 bits white, and showed the colour under what is transparent."""
    maps, video = made(), random_video()
    deep = Image.fromarray(ramp(65535).astype(np.uint16))
    clear = Image.new("RGBA", (8, 6), (10, 10, 10, 0))
    for picture, expected in ((deep, ramp(255)), (clear, np.full((6, 8), 255.0))):
        frames = video.with_video([picture] * LATENTS).video
        assert frames is not None
        for read in (maps.with_picture(picture).picture, as_picture(picture), frames[0]):
            assert read is not None and np.abs(read[..., 0] - expected).max() <= 1
    with pytest.raises(BadArgument, match="range that is not known"):
        maps.with_picture(Image.new("F", (8, 6), 0.5))


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("house.png", "not str"),
        (None, "not NoneType"),
        ([[1], [1, 2]], "not list"),
        (np.zeros((4, 4, 4), np.uint8), "uint8 .4, 4, 4."),
        (torch.zeros(3, 4, 4, requires_grad=True), "not Tensor"),
        (np.zeros((4, 4, 3)), "float64 .4, 4, 3."),
    ],
)
def test_what_is_no_picture_is_named(what: object, named: str) -> None:
    """By its type or shape; never by NumPy's own text."""
    with pytest.raises(BadArgument, match=named):
        made().with_picture(what)  # type: ignore[arg-type]


def test_what_a_decoder_says_of_damage_is_not_printed(tmp_path: Path) -> None:
    """Files with a few spoiled bytes are opened or refused by one sentence, and nothing of PIL's own goes to a terminal."""
    whole = {}
    for ending in ("png", "jpg", "webp", "bmp", "tif", "gif"):
        Image.fromarray(np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)).save(path := tmp_path / f"whole.{ending}")
        whole[ending] = path.read_bytes()
    draw = np.random.default_rng(0)
    for i in range(60):
        for ending, content in whole.items():
            spoiled = bytearray(content)
            for at in draw.integers(0, len(content), 3):
                spoiled[at] = draw.integers(0, 256)
            (tmp_path / f"{i}.{ending}").write_bytes(spoiled if i % 2 else spoiled[: draw.integers(0, len(content))])
    code = (
        "import sys, pathlib\nfrom daam_core.errors import BadArgument\nfrom daam_core.picture_files import *\nrefused = 0\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try:\n        assert load_picture(path).ndim == 3 and load_mask(path).ndim == 2\n"
        "    except BadArgument as error:\n        refused += 20 < len(str(error)) < 300\nprint(refused)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stderr == "" and int(done.stdout) > 100
