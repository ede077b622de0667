"""Run by ComfyUI-Manager after an install, and by the WebUIs at every start: quick when nothing is missing.

Only OpenCV may be missing. It comes in four builds (opencv-python, -headless, -contrib, both) that put their files into
one folder, so a second build over the first spoils both: nothing is installed where any of them can be imported.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

NEEDED = {"cv2": "opencv-python-headless>=4.8"}


def missing() -> list[str]:
    """What has to be installed, as pip takes it."""
    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


def install(packages: list[str]) -> None:
    """By this interpreter's pip."""
    subprocess.run([sys.executable, "-m", "pip", "install", *packages], check=True)


if __name__ == "__main__":
    if packages := missing():
        print(f"DAAM Lens: installing {', '.join(packages)}")
        install(packages)
