"""What ComfyUI's registry gets: complete for the nodes, and without what they do not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from .test_imports import ROOT, imports_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMFY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["comfy"]
MOST_BYTES = 38 * 2**20  # two models inside of 20 MB at most each; what ships is 37.3 MiB
"""14 MB of it are the UNet of the model inside."""


def _git(*arguments: str) -> set[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is no checkout of git")
    return set(done.stdout.split("\n")) - {""}


def shipped() -> set[str]:
    """Tracked files that `.comfyignore` leaves in; its patterns are those of .gitignore."""
    return _git("ls-files") - _git("ls-files", "-c", "-i", "-X", ".comfyignore")


def _reached(starts: set[str]) -> set[str]:
    """Modules that these need, their own needs included."""
    needs: dict[str, set[str]] = {}
    for one in imports_of(ROOT):
        if not one.typed:
            needs.setdefault(one.source, set()).add(one.target)
    seen: set[str] = set()
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += [part for target in needs.get(name, ()) for part in (target, target.rpartition(".")[0]) if part]
    return seen


def test_all_that_the_nodes_import_is_shipped() -> None:
    files = shipped()
    nodes = {one.source for one in imports_of(ROOT) if one.source.split(".")[0] == "nodes"}
    for name in sorted(_reached(nodes | {"daam_core.tiny.load"})):
        path = name.replace(".", "/")
        if (ROOT / f"{path}.py").is_file():
            assert f"{path}.py" in files, name
        elif (ROOT / path / "__init__.py").is_file():
            assert f"{path}/__init__.py" in files, name


def test_what_hosts_look_for_is_shipped_and_the_rest_is_not() -> None:
    files = shipped()
    assert {"__init__.py", "install.py", "requirements.txt", "pyproject.toml", "LICENSE", "README.md"} <= files
    for folder in ("web", "locales", "example_workflows", "subgraphs"):
        assert {name for name in _git("ls-files") if name.startswith(f"{folder}/")} <= files
    assert not {name.split("/")[0] for name in files} & {"tests", "benchmarks", "docs", "assets", "daam_webui", "scripts"}
    assert sum((ROOT / name).stat().st_size for name in files) < MOST_BYTES


def test_pictures_of_the_registry_have_its_sizes() -> None:
    for key, name in (("Icon", "icon.png"), ("Banner", "banner.png")):
        assert COMFY[key].endswith(f"/assets/{name}")
        with Image.open(ROOT / "assets" / name) as picture:
            width, height = picture.size
        assert (width == height <= 400) if key == "Icon" else (width * 9 == height * 21)


def test_the_oldest_comfyui_is_the_one_that_is_tested() -> None:
    assert COMFY["requires-comfyui"] == ">=0.3.64"
    assert "0.3.64" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_nothing_that_the_registry_forbids_is_shipped() -> None:
    """Its standard: no eval, no exec, no pip by subprocess at run time."""
    python = [ROOT / name for name in shipped() if Path(name).suffix == ".py"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "S102,S307,E702", "--quiet", *map(str, python)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert not [path for path in python if "import subprocess" in path.read_text(encoding="utf-8")]
