"""Run by a WebUI at each start and by ComfyUI-Manager after an install: quick when nothing is missing.

OpenCV comes in four builds (opencv-python, -headless, -contrib, both) that put their files into one folder, so a second
build over the first spoils both: nothing is installed where any of them can be imported. PyTorch is the host's own.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

NEEDED = {"cv2": "opencv-python-headless>=4.8", "numpy": "numpy", "PIL": "pillow", "safetensors": "safetensors"}


def missing() -> list[str]:
    """What has to be installed, as pip takes it; nothing is imported to find out."""
    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


def install(packages: list[str]) -> None:
    """With the WebUI's own installer where there is one, so that its log and its index are used; else by this Python's pip."""
    try:
        import launch

        for package in packages:
            launch.run_pip(f'install "{package}"', f"{package} for DAAM Lens")
    except (ImportError, AttributeError):
        subprocess.run([sys.executable, "-m", "pip", "install", *packages], check=True)


# Hosts run this file as a script; they never import it.
if __name__ == "__main__" and (lacking := missing()):
    print(f"DAAM Lens: installing {', '.join(lacking)}")
    install(lacking)
