"""Run by a WebUI at each start and by ComfyUI-Manager after an update. Installs what is missing, and nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

NEEDED = {"torch": "torch", "numpy": "numpy", "cv2": "opencv-python-headless", "PIL": "pillow", "safetensors": "safetensors"}


def missing() -> list[str]:
    """Packages that cannot be imported here; nothing is imported to find out."""
    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


def install(packages: list[str]) -> None:
    """With the host's own installer where there is one, so that its log and its index are used."""
    try:
        import launch

        for package in packages:
            launch.run_pip(f"install {package}", f"{package} for DAAM Lens")
    except (ImportError, AttributeError):
        subprocess.check_call([sys.executable, "-m", "pip", "install", *packages])


# Hosts run this file as a script; they never import it.
if __name__ == "__main__" and (lacking := missing()):
    install(lacking)
