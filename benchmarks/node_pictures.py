"""Pictures of the nodes for their help pages: `python -m benchmarks.node_pictures [NODE ...]` takes them in a real ComfyUI.

Each node is photographed in the first example workflow that has it, after that workflow ran (where it needs no files); one that
stands in none, alone. Beside those whose work is a picture stands what the next preview shows.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from daam_core import load_tiny, trace
from daam_core.render import report_table
from tests.comfyui.hosts import ROOT
from tests.comfyui.page import ComfyPage

from .comfyui_page import comfyui_page

PICTURES = ROOT / "web" / "docs" / "images"
MARGIN, TITLE = 14, 30
GROUND = (24, 24, 26)
PROMPT = "a red house and a green tree"
LOADERS = {"CheckpointLoaderSimple", "UNETLoader", "CLIPLoader", "VAELoader", "LoraLoader"}
"""An example with one of them needs files, and is shown as it is loaded."""
PREVIEWED = {"CompareMaps", "HeatMaps", "Mask", "ReadPicture", "Timeline", "TinyModel", "WordsInRegion"}
"""Nodes beside which stands what their graph's next preview shows."""
LEFT, TOP = 320, 130
"""Where a node is put on the screen."""
_NEXT_PREVIEW = """(() => {
  let row = [app.graph._nodes.find(n => n.type === %s)];
  const seen = new Set(row);
  while (row.length) {
    const found = row.find(n => n.type === "PreviewImage");
    if (found) return String(found.id);
    const numbers = row.flatMap(n => n.outputs ?? []).flatMap(o => o.links ?? []);
    const links = numbers.map(number => app.graph.links[number] ?? app.graph.links.get?.(number));
    row = links.map(l => app.graph.getNodeById(l.target_id)).filter(n => n && !seen.has(n) && seen.add(n));
  }
  return null; })()"""
_PLACE = """(() => {
  const node = app.graph._nodes.find(n => n.type === %s);
  const rect = app.canvas.canvas.getBoundingClientRect();
  app.canvas.ds.scale = 1; app.canvas.ds.offset = [%d - node.pos[0], %d - node.pos[1]]; app.canvas.deselectAll?.();
  app.canvas.setDirty(true, true);
  return [rect.left + %d, rect.top + %d, node.size[0], node.size[1]]; })()"""


def workflow_of(name: str) -> dict[str, Any] | None:
    """The first example that has such a node; one that needs no files before others."""
    found: dict[bool, dict[str, Any]] = {}
    for path in sorted((ROOT / "example_workflows").glob("*.json")):
        workflow: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if name in kinds_of(workflow):
            found.setdefault(needs_files(workflow), workflow)
    return found.get(False) or found.get(True)


def kinds_of(workflow: dict[str, Any]) -> set[str]:
    """The types of its nodes, those inside subgraphs too."""
    inner = [one for graph in workflow.get("definitions", {}).get("subgraphs", []) for one in graph["nodes"]]
    return {node["type"] for node in [*workflow["nodes"], *inner]}


def needs_files(workflow: dict[str, Any]) -> bool:
    """Whether it loads a model from a file."""
    return bool(kinds_of(workflow) & LOADERS)


def photograph(page: ComfyPage, name: str, folder: Path) -> tuple[Image.Image, list[Image.Image]]:
    """The node with its edge, as it stands in the graph, and what the next preview shows."""
    browser = page.browser
    workflow = workflow_of(name)
    previewed: list[Image.Image] = []
    place = _PLACE % (json.dumps(name), LEFT, TOP, LEFT, TOP)
    if workflow is None:
        browser.js(f"(() => {{ app.graph.clear(); app.graph.add(LiteGraph.createNode({json.dumps(name)})); return true; }})()")
    else:
        browser.js(f"app.loadGraphData({json.dumps(workflow)}).then(() => true)")
        time.sleep(1)
        if not needs_files(workflow):
            outputs = page.queue()["outputs"]
            if name.removeprefix("DaamLens") in PREVIEWED:
                previewed = pictures_of(page, outputs[browser.js(_NEXT_PREVIEW % json.dumps(name))]["images"])
    browser.js(place)
    time.sleep(1.5)
    left, top, width, height = browser.js(place)
    time.sleep(0.5)
    shot = Image.open(io.BytesIO(browser.screenshot(folder / "shot.png").read_bytes())).convert("RGB")
    box = (left - MARGIN, top - TITLE - MARGIN, left + width + MARGIN, top + height + MARGIN)
    sides = (max(0, int(box[0])), max(0, int(box[1])), min(shot.width, int(box[2])), min(shot.height, int(box[3])))
    return shot.crop(sides), previewed


def pictures_of(page: ComfyPage, images: list[dict[str, str]], most: int = 3) -> list[Image.Image]:
    """Some of a preview's pictures, from the first to the last, of a size that can be read and does not fill a page."""
    found = []
    for i in dict.fromkeys(np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int).tolist()):
        one = images[i]
        picture = Image.open(page.server.base / one["type"] / one["subfolder"] / one["filename"]).convert("RGB")
        widest = 640 if picture.width > 2 * picture.height else 288  # a table needs room for its letters
        factor = 2.0 if picture.height < 200 and picture.width < 200 else min(1.0, widest / picture.width)
        found.append(picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.LANCZOS))
    return found


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
    with comfyui_page((1500, 1100), example=True) as (page, folder):
        names = [name for name in page.server.get("/object_info") if name.startswith("DaamLens")]
        for name in wanted or names:
            shot, previewed = photograph(page, name, folder)
            result = result_of(name)
            picture = beside([shot, *previewed, *([] if result is None else [result])])
            picture.save(PICTURES / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main(sys.argv[1:])
