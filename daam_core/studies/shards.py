"""Where measured units are kept until all are there: JSON lines, one file a process, one line a unit.

A line is appended whole and synced; what a killed process left half-written at the end of its file is dropped. Rows of
other settings lie in another folder, named after a digest of the settings.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import file_name, png_bytes, writing
from .files import KEPT, write_whole
from .study import Measured, Picture, Row, Unit

Recipe = Mapping[str, Any]


def digest(value: Any) -> str:
    """16 hexadecimal digits of plain JSON content."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock and of the processor (all threads; the same on a busy machine), and the most megabytes that the
    process has held so far (None on systems that do not tell)."""

    seconds: float
    processor: float
    memory: int | None = None


@dataclass(frozen=True)
class Kept:
    """A measured unit as it lies on disk: its line, the files of its pictures by name, what it took."""

    line: bytes
    pictures: dict[str, Path]
    cost: Cost

    @property
    def rows(self) -> list[Row]:
        """Read when they are needed: a large study has more rows than fit into memory as dicts."""
        rows: list[Row] = json.loads(self.line)["rows"]
        return rows


class Shards:
    """The shards of one study with one recipe (all settings that rows depend on) in an output folder."""

    def __init__(self, out: Path, study: str, recipe: Recipe) -> None:
        self.folder = out / ".measured" / f"{study}-{digest(recipe)}"
        self._recipe = dict(recipe)

    def open(self) -> None:
        """Make the folder and note the recipe in it. Raises CannotWrite."""
        with writing(self.folder, KEPT):
            self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "recipe.json"
        if not note.exists():
            write_whole(note, (json.dumps(self._recipe, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())

    def read(self, units: Sequence[Unit]) -> dict[str, Kept]:
        """Those of `units` that are measured already, by key; a unit whose content changed counts as not measured."""
        wanted = {unit.key: digest(unit.content) for unit in units}
        found: dict[str, Kept] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in _whole_lines(path):
                entry = _parsed(line)
                key = entry.get("unit")
                if key in wanted and entry.get("content") == wanted[key]:
                    pictures = {name: self.folder / file for name, file in entry["pictures"].items()}
                    if all(file.is_file() for file in pictures.values()):
                        found[key] = Kept(line, pictures, Cost(*entry["cost"]))
        return found

    def append(self, process: int, unit: Unit, measured: Measured, cost: Cost) -> None:
        """Keep one unit in the shard of this process.

        Raises:
            CannotWrite: the disk is full, or the folder cannot be written.
        """
        pictures = {name: self._keep_picture(unit, name, pixels) for name, pixels in measured.pictures.items()}
        entry = {
            "unit": unit.key,
            "content": digest(unit.content),
            "rows": measured.rows,
            "pictures": pictures,
            "cost": [round(cost.seconds, 3), round(cost.processor, 3), cost.memory],
        }
        # NaN is no JSON, and a study that lets one through has not decided what it means.
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        path = self.folder / f"part-{process}.jsonl"
        with writing(path, KEPT):
            _drop_half_line(path)
            with path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    def _keep_picture(self, unit: Unit, name: str, pixels: Picture) -> str:
        file = f"{file_name(unit.key)}-{digest([unit.key, name])[:8]}.png"
        write_whole(self.folder / file, png_bytes(pixels))
        return file


def _whole_lines(path: Path) -> list[bytes]:
    """The lines that end in a newline: the last one may have been cut by a kill."""
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    whole = isinstance(entry, dict) and {"unit", "content", "rows", "pictures", "cost"} <= entry.keys()
    return entry if whole else {}


def _drop_half_line(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0:
            return
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
