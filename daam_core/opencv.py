"""OpenCV, imported when something of it is used: hosts load without it, and only what needs it asks for it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import MissingPackage

SENTENCE = (
    "This needs OpenCV, and no build of it is installed. Install one with the Python that runs this: "
    "python -m pip install opencv-python-headless"
)


class _OpenCV:
    """Stands for the module `cv2`; any of its names may be asked for.

    Raises:
        MissingPackage: no build of OpenCV can be imported.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            module = import_module("cv2")
        except ImportError as error:
            raise MissingPackage(SENTENCE) from error
        return getattr(module, name)


cv2: Any = _OpenCV()
