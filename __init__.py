"""DAAM Lens: which pixels did each word of a prompt paint?

This file makes the folder a package for hosts that load it as one, such as ComfyUI from `custom_nodes`. The library is
`daam_core`. A host is imported only when it calls, so pytest and every other tool can import this folder as it is.
"""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """What ComfyUI calls when it loads the folder: the extension with all nodes. Their routes are added to its server, too."""
    from .nodes.extension import DaamLens
    from .nodes.routes import serve

    serve()
    return DaamLens()
