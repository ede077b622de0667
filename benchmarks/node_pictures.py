"""Pictures of the nodes for their help pages: `python -m benchmarks.node_pictures [NODE ...]` takes them in a real ComfyUI.

Each node is photographed in the first example workflow that has it, after that workflow ran; one that stands in none, alone.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from daam_core import load_tiny, trace
from daam_core.render import report_table
from tests.comfyui.hosts import ROOT, Server
from tests.comfyui.hosts import find as find_host
from tests.comfyui.page import ComfyPage
from tests.web.chromium import Chromium, find

PICTURES = ROOT / "web" / "docs" / "images"
MARGIN, TITLE = 14, 30
GROUND = (24, 24, 26)
PROMPT = "a red house and a green tree"
_PLACE = """(() => {
  const node = app.graph._nodes.find(n => n.type === %s);
  const rect = app.canvas.canvas.getBoundingClientRect();
  app.canvas.ds.scale = 1; app.canvas.ds.offset = [320 - node.pos[0], 220 - node.pos[1]]; app.canvas.deselectAll?.();
  app.canvas.setDirty(true, true);
  return [rect.left + 320, rect.top + 220, node.size[0], node.size[1]]; })()"""


def workflow_of(name: str) -> dict[str, Any] | None:
    """The first example that has such a node, small enough to run in seconds."""
    for path in sorted((ROOT / "example_workflows").glob("*.json")):
        workflow: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kinds = {node["type"] for node in workflow["nodes"]}
        if name in kinds and "CheckpointLoaderSimple" not in kinds:
            return workflow
    return None


def photograph(page: ComfyPage, name: str, folder: Path) -> Image.Image:
    """The node with its edge, as it stands in the graph."""
    browser = page.browser
    workflow = workflow_of(name)
    if workflow is None:
        browser.js(f"(() => {{ app.graph.clear(); app.graph.add(LiteGraph.createNode({json.dumps(name)})); return true; }})()")
    else:
        browser.js(f"app.loadGraphData({json.dumps(workflow)}).then(() => true)")
        time.sleep(1)
        page.queue()
    browser.js(_PLACE % json.dumps(name))
    time.sleep(1.5)
    left, top, width, height = browser.js(_PLACE % json.dumps(name))
    time.sleep(0.5)
    shot = Image.open(io.BytesIO(browser.screenshot(folder / "shot.png").read_bytes())).convert("RGB")
    box = (left - MARGIN, top - TITLE - MARGIN, left + width + MARGIN, top + height + MARGIN)
    return shot.crop((max(0, int(box[0])), max(0, int(box[1])), min(shot.width, int(box[2])), min(shot.height, int(box[3]))))


def result_of(name: str) -> Image.Image | None:
    """What a node makes of the model inside, where its page should show that: the product draws it."""
    if name not in ("DaamLensOverlay", "DaamLensPromptReport"):
        return None
    pipe = load_tiny()
    with trace(pipe) as recording:
        pipe(PROMPT, generator=torch.Generator().manual_seed(0))
    maps = recording.heat_maps()
    if name == "DaamLensPromptReport":
        return Image.fromarray(report_table(maps.statistics().report(), PROMPT))
    return beside([maps.overlay(word) for word in ("house", "tree")])


def beside(pictures: list[Image.Image]) -> Image.Image:
    """Pictures in a row, their upper edges in line."""
    width = sum(one.width for one in pictures) + MARGIN * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(one.height for one in pictures)), GROUND)
    left = 0
    for one in pictures:
        row.paste(one, (left, 0))
        left += one.width + MARGIN
    return row


def main(wanted: list[str]) -> None:
    """Write `web/docs/images/*.jpg`, of all nodes or of those that are named."""
    host, chromium = find_host("0.33"), find()
    if isinstance(host, str) or chromium is None:
        sys.exit(host if isinstance(host, str) else "There is no Chromium.")
    with tempfile.TemporaryDirectory() as base:
        server = Server(host, Path(base))
        try:
            shutil.copy(ROOT / "assets" / "hero.png", server.base / "input" / "example.png")
            names = [name for name in server.get("/object_info") if name.startswith("DaamLens")]
            with Chromium(chromium, (1500, 1100), timeout=180) as browser:
                page = ComfyPage(browser, server)
                for name in wanted or names:
                    shot, result = photograph(page, name, Path(base)), result_of(name)
                    picture = shot if result is None else beside([shot, result])
                    picture.save(PICTURES / f"{name}.jpg", quality=88)
        finally:
            server.close()


if __name__ == "__main__":
    main(sys.argv[1:])
