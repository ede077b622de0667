"""README's picture of a ComfyUI graph, assets/comfyui.jpg: `python -m benchmarks.graph_picture` takes it in a real ComfyUI.

It shows the first example workflow after it ran.
"""

from __future__ import annotations

import io
import time
from pathlib import Path

from PIL import Image

from tests.comfyui.hosts import ROOT
from tests.comfyui.page import ComfyPage

from .comfyui_page import comfyui_page

EXAMPLE = ROOT / "example_workflows" / "01 Heat map of each word.json"
PICTURE = ROOT / "assets" / "comfyui.jpg"
WIDTH = 1500
WINDOW = (1700, 1000)
CORNER = (110, 150)
"""Where the graph begins on the screen: right of the page's own bar, below its tabs."""
_SHOW = """((width, left, top) => {
  const nodes = app.graph._nodes, edge = 16, title = 44;  // with the pack's name above it
  nodes.find(n => n.type === 'PreviewImage').setSize([440, 470]);  // its pictures are what the graph is for
  const x0 = Math.min(...nodes.map(n => n.pos[0])) - edge, y0 = Math.min(...nodes.map(n => n.pos[1])) - title - edge;
  const x1 = Math.max(...nodes.map(n => n.pos[0] + n.size[0])) + edge;
  const y1 = Math.max(...nodes.map(n => n.pos[1] + n.size[1])) + edge;
  const scale = width / (x1 - x0), rect = app.canvas.canvas.getBoundingClientRect();
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [(left - rect.left) / scale - x0, (top - rect.top) / scale - y0];
  app.canvas.deselectAll?.();
  app.canvas.setDirty(true, true);
  return Math.round((y1 - y0) * scale); })"""


def photograph(page: ComfyPage, folder: Path) -> Image.Image:
    """The whole graph after it ran, `WIDTH` pixels wide."""
    browser = page.browser
    browser.resize(*WINDOW)
    browser.js(f"app.loadGraphData({EXAMPLE.read_text(encoding='utf-8')}).then(() => true)")
    time.sleep(1)
    page.queue()
    time.sleep(1.5)
    show = f"{_SHOW}({WIDTH}, {CORNER[0]}, {CORNER[1]})"
    browser.js(show)
    browser.mouse("Moved", *CORNER)
    time.sleep(1.5)
    height = browser.js(show)
    time.sleep(0.5)
    shot = Image.open(io.BytesIO(browser.screenshot(folder / "shot.png").read_bytes())).convert("RGB")
    return shot.crop((*CORNER, CORNER[0] + WIDTH, min(shot.height, CORNER[1] + height)))


def main() -> None:
    """Write the picture; it says where the host or the browser was looked for, where there is none."""
    with comfyui_page(WINDOW) as (page, folder):
        photograph(page, folder).save(PICTURE, quality=88)


if __name__ == "__main__":
    main()
