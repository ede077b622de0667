"""Everything is declared in pyproject.toml; only this cannot be: the explorer's files lie in web/ (hosts serve that
folder) and have to reach an installed package, so a built one carries a copy of them in daam_core/explorer_web."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExplorer(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "daam_core", "explorer_web")
            shutil.copytree(Path(__file__).parent / "web" / "explorer", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithExplorer})
