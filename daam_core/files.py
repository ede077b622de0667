"""Folders and file names of what a command writes."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from .errors import CannotWrite

LONGEST_NAME = 40
"""Characters of a file name made from a word; 40 of four bytes each stay inside every file system's 255 bytes."""


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
    except OSError as error:
        raise CannotWrite(f"Cannot write into {folder}: {error.strerror or error}. Choose another folder.") from None
    return folder


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


def write_text(path: Path, text: str) -> Path:
    """Raises CannotWrite."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"Cannot write {path}: {error.strerror or error}.") from None
    return path


def shown(path: Path) -> str:
    """The path as a person would type it from here."""
    try:
        return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)
    except OSError:
        return str(path)


def _fits(c: str) -> bool:
    # Letters, marks (vowel signs of many scripts), digits, and pictures such as emoji.
    return unicodedata.category(c)[0] in "LMN" or unicodedata.category(c) == "So" or c == "_"
