"""Where records may lie: inside ComfyUI's output and input folders, and nowhere else."""

from __future__ import annotations

from pathlib import Path

from ..daam_core.errors import BadArgument, quoted
from ..daam_core.prompt.alignment import LONE_SURROGATES

SUFFIX = ".safetensors"


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, if that lies inside of `folder` once links are followed.

    Raises:
        BadArgument: it leads out of the folder, is no text, or is a link that leads back to itself.
    """
    if LONE_SURROGATES.search(name):
        raise BadArgument(f"{quoted(name)} holds a character that no text can hold. Rename the file and press R.")
    root = folder.resolve()
    hostile = "\0" in name or Path(name).is_absolute()
    try:
        path = root if hostile else (root / name).resolve()
    except RuntimeError:  # as Python up to 3.12 says it
        raise BadArgument(f"{quoted(name)} is a link that leads back to itself. Give the file's own name.") from None
    if hostile or not path.is_relative_to(root):
        raise BadArgument(f"{quoted(name)} leads out of ComfyUI's {root.name} folder. Give a name inside of it.")
    return path


def records_in(folder: Path, kind: str) -> list[str]:
    """All safetensors files below a folder as `"name [kind]"`, newest first; without those whose names are no text."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.rglob(f"*{SUFFIX}") if path.is_file() and path.resolve().is_relative_to(folder.resolve())]
    # A broken character in a sentence ends ComfyUI's queue.
    found = [path for path in found if not LONE_SURROGATES.search(str(path))]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [f"{path.relative_to(folder).as_posix()} [{kind}]" for path in found]
