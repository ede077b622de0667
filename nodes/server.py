"""What nodes ask ComfyUI's server for: the graph that runs now, and a line of text at a node."""

from __future__ import annotations

import logging
import sys
from typing import Any

logger = logging.getLogger("daam_lens")


def server() -> Any:
    """ComfyUI's server, None in a script that only imports ComfyUI (importing the module there would start half of one)."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def running_graph() -> dict[str, Any] | None:
    """The graph that is executed now, None where there is none or where it cannot be told."""
    running = getattr(getattr(server(), "prompt_queue", None), "currently_running", None) or {}
    graphs = [item[2] for item in list(running.values()) if isinstance(item, (list, tuple)) and len(item) > 2]
    return graphs[0] if len(graphs) == 1 and isinstance(graphs[0], dict) else None


def show_at_node(node: str | None, text: str) -> None:
    """A line in ComfyUI's log and, where a page is open, at the node."""
    logger.info("DAAM Lens: %s", text)
    page = server()
    if page is not None and node is not None and hasattr(page, "send_progress_text"):
        page.send_progress_text(text, node)
