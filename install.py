"""Run by a WebUI at each start and by ComfyUI-Manager after an install: quick when nothing is missing.

OpenCV comes in four builds (opencv-python, -headless, -contrib, both) that put their files into one folder, so a second
build over the first spoils both: nothing is installed where any of them can be imported. PyTorch is the host's own.
A WebUI installs what is missing by its own installer. ComfyUI's Manager reads requirements.txt for the rest; there, OpenCV
is only named, because no list of requirements can say "unless one of four is there".
"""

from __future__ import annotations

import importlib.util
import sys

NEEDED = {"cv2": "opencv-python-headless>=4.8", "numpy": "numpy", "PIL": "pillow", "safetensors": "safetensors"}


def missing() -> list[str]:
    """What has to be installed, as pip takes it; nothing is imported to find out."""
    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


def install(packages: list[str]) -> str:
    """Install by the WebUI's own installer, with its log and its index; elsewhere nothing is installed.

    Returns:
        The sentence to print.
    """
    try:
        from launch import run_pip
    except ImportError:
        line = " ".join(f'"{package}"' for package in packages)
        return (
            f"DAAM Lens lacks {', '.join(packages)}, so some overlays and masks will say that they need it. To install it: "
            f'"{sys.executable}" -m pip install {line}'
        )
    for package in packages:
        run_pip(f'install "{package}"', f"{package} for DAAM Lens")
    return f"DAAM Lens: installed {', '.join(packages)}"


# Hosts run this file as a script; they never import it.
if __name__ == "__main__" and (lacking := missing()):
    print(install(lacking))
