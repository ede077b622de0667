"""DAAM Lens: which pixels did each word of a prompt paint?

This file makes the folder a package for hosts that load it as one, such as ComfyUI from `custom_nodes`. The library is
`daam_core`. A host is imported only when it calls, so pytest and every other tool can import this folder as it is.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """ComfyUI's door: the extension with all nodes.

    Raises:
        ImportError: OpenCV is missing; ComfyUI shows the sentence in its log.
    """
    if importlib.util.find_spec("cv2") is None:
        script = Path(__file__).with_name("install.py")
        raise ImportError(f"DAAM Lens needs OpenCV. Run `python {script}` with ComfyUI's own Python, then start ComfyUI again.")
    from .nodes.extension import DaamLens
    from .nodes.routes import serve

    serve()
    return DaamLens()
