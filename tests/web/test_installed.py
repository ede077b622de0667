"""The explorer's files reach an installed package, where there is no web/ folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_wheel_brings_the_explorer(tmp_path: Path) -> None:
    """Built like any package's, unpacked elsewhere, and asked for its page."""
    if subprocess.run([sys.executable, "-c", "import setuptools.build_meta, wheel"], capture_output=True).returncode:
        pytest.skip("setuptools and wheel are not installed here")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "daam_core", "web"):
        # Links, not copies: the build only reads, and its own folders stay in `source`.
        (source / name).symlink_to(ROOT / name)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", build], capture_output=True, text=True, cwd=source)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    code = "from daam_core.explorer.standalone import script, web_folder; print(web_folder()); script()"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path / "installed",
        env={"PYTHONPATH": str(tmp_path / "installed"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()) == tmp_path / "installed" / "daam_core" / "explorer_web"
