"""What every part writes files with: whole or not at all, under safe names, with one sentence for what goes wrong."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .errors import BadArgument, CannotWrite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_NAME = 40
"""Characters of a file name made from a word; 40 of four bytes each stay inside every file system's 255 bytes."""


def typed_path(text: str) -> Path:
    """A path that was typed; its "~" is the home folder also where a shell leaves it (`--out=~/maps`)."""
    return Path(os.path.expanduser(text))


def writable_folder(path: str | Path) -> Path:
    """The folder, made if need be, once a file could be written into it.

    Raises:
        CannotWrite: it is a file, or nothing can be written there.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # a ValueError for a name that no folder can have
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            reason = "a file of that name is in the way"
        raise CannotWrite(
            f"Cannot write into {cut_path(folder)}: {reason[:1].lower()}{reason[1:]}. Choose another folder."
        ) from None
    return folder


def bounded_bytes(path: str | Path, most: int, what: str) -> bytes:
    """All of a file of at most `most` bytes. What is larger, or has no end (a device, a pipe), is read no further.

    Args:
        path: the file.
        most: bytes.
        what: what it is taken for, for the sentence: "file of labels".

    Raises:
        BadArgument: it is larger.
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise BadArgument(f"{path} has more than {most} bytes: that is no {what}.")
    return content


def bounded_text(path: str | Path, most: int, what: str, encoding: str = "utf-8") -> str:
    """`bounded_bytes` as text, every end of a line as "\\n". Raises UnicodeDecodeError, too."""
    return io.TextIOWrapper(io.BytesIO(bounded_bytes(path, most, what)), encoding).read()


def file_name(text: str) -> str:
    """A word or prompt as part of a file name: letters of any alphabet, digits, emoji; everything else is a hyphen.

    `file_name("house#2") == "house-2"`; never empty, never with a slash, a dot or a leading hyphen.
    """
    kept = [c if _fits(c) else "-" for c in unicodedata.normalize("NFC", text)]
    joined = "-".join(part for part in "".join(kept).split("-") if part)
    return joined[:LONGEST_NAME].strip("-") or "word"


def file_names(words: Sequence[str]) -> list[str]:
    """A name for each word, all different even where upper and lower case are the same: `a/b`, `A b` -> `a-b`, `A-b-2`."""
    names: list[str] = []
    taken: set[str] = set()
    for word in words:
        name = plain = file_name(word)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


@contextlib.contextmanager
def writing(path: str | Path, advice: str = "") -> Iterator[None]:
    """What goes wrong with a file inside the block, as one sentence that ends with `advice`.

    Raises:
        CannotWrite: any OSError, or the ValueError of a name that no file can have.
    """
    try:
        yield
    except CannotWrite:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CannotWrite(f"Cannot write {cut_path(path)}: {reason[:1].lower()}{reason[1:]}. {advice}".rstrip()) from error


def atomic_write(
    path: str | Path, content: bytes | Callable[[BinaryIO], object], *, durable: bool = False, advice: str = ""
) -> Path:
    """Write a file whole or not at all: an older file of that name stays until the new one is complete.

    Args:
        path: the file. A link is followed; what is no ordinary file (`/dev/stdout`, a pipe) is written to directly, and so
            is what this process has open (`/dev/stdout` where it goes into a file): there it goes on.
        content: the bytes, or what writes them into an open binary file.
        durable: wait until the disk has it, so that not even a power cut leaves half a file.
        advice: a sentence for the end of the complaint.

    Returns:
        `path`.

    Raises:
        CannotWrite: no such folder, no permission, disk full.
    """
    path = Path(path)
    with writing(path, advice):
        if (number := _open_number(path)) is not None:
            if sys.stdout is not None:
                sys.stdout.flush()  # what was printed before stands before it
            with os.fdopen(os.dup(number), "wb") as file:
                _fill(file, content)
            return path
        target = Path(os.path.realpath(path))
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            with target.open("wb") as file:
                _fill(file, content)
            return path
        # Its own short name: the file's may already be as long as a name can be.
        beside = target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with beside.open("xb") as file:
                _fill(file, content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            beside.replace(target)
        except BaseException:
            with contextlib.suppress(OSError, ValueError):
                beside.unlink(missing_ok=True)
            raise
    return path


def write_text(path: str | Path, text: str) -> Path:
    """`atomic_write` of UTF-8; half a surrogate pair, which no file can hold, becomes a question mark. Raises CannotWrite."""
    return atomic_write(path, text.encode("utf-8", "replace"))


def png_bytes(pixels: NDArray[np.uint8], level: int = 6, palette: Sequence[int] = ()) -> bytes:
    """A picture as a PNG file in memory.

    Args:
        pixels: uint8 `[H, W]` (grey) or `[H, W, 3]`.
        level: 1 (quick) .. 9 (small).
        palette: red, green, blue of each value in turn, for `[H, W]` of numbers; none is grey.
    """
    from PIL import Image

    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    if palette:
        picture.putpalette(palette)
    picture.save(file, "PNG", compress_level=level)
    return file.getvalue()


def write_png(path: str | Path, pixels: NDArray[np.uint8]) -> Path:
    """`atomic_write` of `png_bytes`. Raises CannotWrite."""
    return atomic_write(path, png_bytes(pixels))


def relative_path(path: Path) -> str:
    """The path as a person would type it from here."""
    try:
        return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)
    except OSError:
        return str(path)


def cut_path(path: str | Path, most: int = 160) -> str:
    """A path as a sentence names it: its end where it is long, on one line."""
    text = " ".join(str(path).splitlines())
    return text if len(text) <= most else "…" + text[1 - most :]


def _open_number(path: Path) -> int | None:
    """The number under which this process has a file open, of a path that says so (`/dev/stdout`, `/dev/fd/3`,
    `/proc/self/fd/1`); else None. Such a path leads to the file's own, which must not be replaced: what was printed before
    would be lost, and what is printed after."""
    own = {"/dev/fd", "/proc/self/fd", f"/proc/{os.getpid()}/fd"}
    for _ in range(40):  # links that a system follows
        if path.name.isdecimal() and len(path.name) <= 9 and {str(path.parent), os.path.realpath(path.parent)} & own:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _fits(c: str) -> bool:
    # Letters, marks (vowel signs of many scripts), digits, and pictures such as emoji.
    return unicodedata.category(c)[0] in "LMN" or unicodedata.category(c) == "So" or c == "_"


def _fill(file: BinaryIO, content: bytes | Callable[[BinaryIO], object]) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content)
