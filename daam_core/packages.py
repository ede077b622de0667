"""What to type for a package that is missing: true for the way in which DAAM Lens itself was installed."""

from __future__ import annotations

import json
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from .errors import MissingPackage

NAME = "daam-lens"
_ROOT = Path(__file__).resolve().parents[1]


def install_line(extra: str) -> str:
    """The command that brings the packages of an extra ("demo", "study", "app", …), as one line for a shell.

    DAAM Lens from a package index is named as it is there; from a folder or a file, that folder or file is named, because
    no index may have it.
    """
    try:
        source = _source(distribution(NAME))
    except PackageNotFoundError:  # run from its folder without being installed
        source = _ROOT
    if source is None:
        return f'pip install "{NAME}[{extra}]"'
    if isinstance(source, str):
        return f'pip install "{NAME}[{extra}] @ {source}"'
    constraints = source / "constraints.txt"
    pinned = f'-c "{constraints}" ' if constraints.is_file() else ""
    return f'pip install {pinned}-e "{source}[{extra}]"'


def missing(who: str, name: str | None, extra: str) -> MissingPackage:
    """The error for a package that is not installed, or is broken, with the line that brings it.

    Args:
        who: what needs it, with its verb: "The app needs".
        name: of the package or of a module in it, None where it is not known.
        extra: the extra that brings it.

    Example:
        >>> str(missing("The app needs", "fastapi.routing", "app")).startswith("The app needs fastapi, which is missing")
        True
    """
    package = (name or "").partition(".")[0][:60] or "a package"
    return MissingPackage(f"{who} {package}, which is missing here or broken: {install_line(extra)}")


def _source(installed: Distribution) -> Path | str | None:
    """The folder or the address that it was installed from, None for an index (see PEP 610)."""
    try:
        told = json.loads(installed.read_text("direct_url.json") or "null")
        url = told["url"]
    except (ValueError, KeyError, TypeError):
        return None
    if "dir_info" in told and url.startswith("file:"):
        return Path(url2pathname(urlparse(url).path))
    vcs = told.get("vcs_info", {}).get("vcs")
    return f"{vcs}+{url}" if vcs else str(url)
