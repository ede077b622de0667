"""Files: whole or not at all, one sentence for what goes wrong, and nothing but ordinary files replaced."""

from __future__ import annotations

import ast
import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daam_core.defaults import DEFAULT_OPACITY, DEFAULT_TAU
from daam_core.errors import BadArgument, CannotWrite
from daam_core.files import (
    atomic_write,
    bounded_bytes,
    bounded_text,
    png_bytes,
    writable_folder,
    write_png,
    write_text,
    writing,
)

ROOT = Path(__file__).resolve().parents[2]


def test_a_file_is_written_by_bytes_and_by_a_function(tmp_path: Path) -> None:
    assert atomic_write(tmp_path / "a", b"one") == tmp_path / "a"
    atomic_write(tmp_path / "a", lambda file: file.write(b"two"), durable=True)
    assert (tmp_path / "a").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("bad"), KeyboardInterrupt()])
def test_what_fails_half_way_leaves_the_older_file_and_nothing_beside_it(tmp_path: Path, error: BaseException) -> None:
    atomic_write(tmp_path / "a", b"old")

    def fill(file: io.BufferedWriter) -> None:
        file.write(b"half")
        raise error

    with pytest.raises((CannotWrite, KeyboardInterrupt)):
        atomic_write(tmp_path / "a", fill)  # type: ignore[arg-type]
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_name_that_no_folder_can_have_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"Cannot write into .*Choose another folder"):
        writable_folder(f"{tmp_path}/a\0b")


def test_no_folder_and_a_folder_in_the_way_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"Cannot write .*x: no such file or directory\. Choose\.$"):
        atomic_write(tmp_path / "none" / "x", b"", advice="Choose.")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CannotWrite, match="is a directory"):
        atomic_write(tmp_path / "folder", b"")
    with pytest.raises(CannotWrite):
        atomic_write(tmp_path / "a\0b", b"")
    with pytest.raises(CannotWrite, match=r"^one$"), writing("somewhere"):
        raise CannotWrite("one")


def test_a_name_as_long_as_a_file_system_takes(tmp_path: Path) -> None:
    atomic_write(tmp_path / ("n" * 255), b"x")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes with a name in a folder, and links need a right")
def test_pipes_and_links_stay_what_they_are(tmp_path: Path) -> None:
    """`--out /dev/stdout` must not replace the device by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    atomic_write(pipe, b"through")
    reader.join(10)
    assert got == [b"through"] and pipe.is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    atomic_write(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"x"


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no files by the number under which they are open here")
def test_what_is_open_is_written_on(tmp_path: Path) -> None:
    """`--out /dev/stdout >> log` replaced the log by what was written."""
    log = tmp_path / "log"
    log.write_bytes(b"before ")
    with log.open("ab") as file:
        (tmp_path / "link").symlink_to(f"/dev/fd/{file.fileno()}")
        for path in (Path(f"/dev/fd/{file.fileno()}"), tmp_path / "link"):
            atomic_write(path, b"written ")
        file.write(b"after")
    assert log.read_bytes() == b"before written written after"
    with pytest.raises(CannotWrite, match="bad file descriptor"):
        atomic_write(Path("/dev/fd/987654"), b"")


def test_a_file_where_a_folder_belongs_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "in it"):
        with pytest.raises(CannotWrite, match=r"a file of that name is in the way\. Choose another folder\.$"):
            writable_folder(folder)


def test_long_paths_are_cut_in_sentences() -> None:
    for call in (writable_folder, lambda path: atomic_write(path, b"")):
        with pytest.raises(CannotWrite) as told:
            call(Path("x" * 5000))
        assert len(str(told.value)) < 300


def test_text_that_no_file_can_hold_is_written_all_the_same(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "a \udcff “ü”")
    assert (tmp_path / "t").read_text(encoding="utf-8") == "a ? “ü”"


def test_a_png_holds_the_pixels(tmp_path: Path) -> None:
    for pixels in (np.arange(12, dtype=np.uint8).reshape(3, 4), np.arange(36, dtype=np.uint8).reshape(3, 4, 3)):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(pixels)))), pixels)
        assert np.array_equal(np.asarray(Image.open(write_png(tmp_path / "p.png", pixels))), pixels)


def _sources() -> list[tuple[Path, ast.Module]]:
    found = [path for room in ("daam_core", "nodes", "daam_webui") for path in sorted((ROOT / room).rglob("*.py"))]
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in found]


def test_files_are_renamed_and_pngs_made_in_one_place() -> None:
    """Every other file goes through `daam_core.files`: a copy of its few lines forgets one case or another."""
    allowed = {"daam_core/files.py", "daam_core/tiny/package_weights.py"}  # the latter swaps whole folders
    found = set()
    for path, tree in _sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                text = ast.unparse(node)
                if ast.unparse(node.func) == "os.replace" or (".save(" in text.split("\n")[0] and "'PNG'" in text):
                    found.add(path.relative_to(ROOT).as_posix())
    assert found - allowed == set()


def test_the_default_level_and_opacity_are_named_once() -> None:
    """No parameter, field or option called tau, level, background or opacity starts from the number itself."""
    names = {"tau", "level", "background", "opacity"}
    found = []
    for path, tree in _sources():
        for node in ast.walk(tree):
            pairs: list[tuple[str, ast.expr | None]] = []
            if isinstance(node, ast.FunctionDef):
                pairs += zip([a.arg for a in reversed(node.args.args)], reversed(node.args.defaults))  # noqa: B905
                pairs += zip([a.arg for a in node.args.kwonlyargs], node.args.kw_defaults, strict=True)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                value = node.value
                if isinstance(value, ast.Call) and value.args:
                    value = value.args[0]
                pairs.append((node.target.id, value))
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                default = next((k.value for k in node.keywords if k.arg == "default"), None)
                pairs.append((str(node.args[0].value).lstrip("-"), default))
            for name, value in pairs:
                number = value.value if isinstance(value, ast.Constant) else None
                if name in names and number in (DEFAULT_TAU, DEFAULT_OPACITY):
                    found.append(f"{path.relative_to(ROOT)}: {name} = {number}")
    assert found == []


def test_the_page_starts_from_the_same_level() -> None:
    text = (ROOT / "web" / "explorer" / "model.js").read_text(encoding="utf-8")
    assert f"DEFAULTS = {{ tau: {DEFAULT_TAU}," in text


def test_what_has_no_end_is_read_no_further(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert bounded_text(path, 10, "list", "utf-8-sig") == "a\nb\nc\n"
    with pytest.raises(BadArgument, match=r"list\.txt has more than 9 bytes: that is no list\."):
        bounded_bytes(path, 9, "list")
    if os.path.exists("/dev/zero"):
        with pytest.raises(BadArgument, match="more than 1000 bytes"):
            bounded_bytes("/dev/zero", 1000, "list")
