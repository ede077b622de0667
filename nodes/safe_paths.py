"""Where records may lie: inside ComfyUI's output and input folders, and nowhere else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..daam_core.errors import BadArgument, quoted
from ..daam_core.prompt.alignment import LONE_SURROGATES

SUFFIX = ".safetensors"
_JUNCTION = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
"""How Windows marks a link to a folder that is no symbolic link; it may lead out of the folder, or back to its own parent."""


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
    """All safetensors files below a folder as `"name [kind]"`, newest first; without those whose names are no text.

    ComfyUI asks for the list several times for each queued graph, and a folder may hold tens of thousands of files: a path is
    followed only where it is a link.
    """
    root = folder.resolve()
    found = []
    for file in _files_below(root):
        try:
            inside_root = not file.is_symlink() or Path(file.path).resolve().is_relative_to(root)
            if inside_root and file.is_file() and not LONE_SURROGATES.search(file.path):  # it would end ComfyUI's queue
                found.append((file.stat().st_mtime, Path(file.path).relative_to(root).as_posix()))
        except (OSError, RuntimeError):  # gone meanwhile, or a link that leads back to itself
            continue
    found.sort(key=lambda one: one[0], reverse=True)
    return [f"{name} [{kind}]" for _, name in found]


def _files_below(root: Path) -> Iterator[os.DirEntry[str]]:
    """Everything called as a record below a folder; folders that may not be read, and links to folders, are left out."""
    ahead = [str(root)]
    while ahead:
        try:
            with os.scandir(ahead.pop()) as entries:
                listed = list(entries)
        except OSError:
            continue
        ahead += [entry.path for entry in listed if _is_folder(entry)]
        yield from (entry for entry in listed if entry.name.endswith(SUFFIX))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder itself, and no link to one."""
    if not entry.is_dir(follow_symlinks=False):
        return False
    return _JUNCTION is None or getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", None) != _JUNCTION
