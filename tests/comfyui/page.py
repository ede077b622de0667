"""ComfyUI's own page in a headless browser: a workflow is opened, queued, and its Explorer used as a person would."""

from __future__ import annotations

import json
import time
from typing import Any

from ..web.chromium import Chromium
from .hosts import Server

_READY = (
    "!!(window.app && app.extensionManager && app.canvas && document.querySelector('canvas') && app.isGraphReady !== false)"
)
_EXPLORERS = "document.querySelectorAll('daam-explorer')"


class ComfyPage:
    """The page of a running server. `which` counts the explorers of the graph."""

    def __init__(self, browser: Chromium, server: Server, nodes_2: bool = False, palette: str = "dark") -> None:
        self.browser, self.server = browser, server
        settings = {"TutorialCompleted": True, "VueNodes.Enabled": nodes_2, "ColorPalette": palette, "Minimap.Visible": False}
        for name, value in settings.items():
            server.post(f"/settings/Comfy.{name}", value)
        browser.resize(1500, 1000)
        browser.send("Page.navigate", url=server.address)
        browser.until(_READY)
        # The page opens its last or first workflow by itself a little later; ours has to come after it.
        browser.until("app.extensionManager.workflow?.activeWorkflow != null")
        time.sleep(1)
        browser.events.clear()

    def open(self, workflow: dict[str, Any]) -> None:
        """A workflow, looked at where its first explorer is, at full size."""
        self.browser.js(f"app.loadGraphData({json.dumps(workflow)}).then(() => true)")
        self.browser.until(f"{_EXPLORERS}.length > 0")
        self.look()

    def look(self, which: int = 0) -> None:
        """Moves the canvas to an explorer."""
        self.browser.js(
            "(() => { const nodes = app.graph._nodes.filter(n => n.type === 'DaamLensExplorer');"
            f" const n = nodes[{which}]; app.canvas.ds.scale = 1; app.canvas.ds.offset = [90 - n.pos[0], 130 - n.pos[1]];"
            " app.canvas.setDirty(true, true); })()"
        )
        time.sleep(0.6)

    def queue(self) -> dict[str, Any]:
        """Presses Run; the history entry when it is done."""
        before = set(self.server.get("/history"))
        self.browser.js("app.queuePrompt(0).then(() => true)")
        end = time.monotonic() + 180
        while time.monotonic() < end:
            history = self.server.get("/history")
            if new := set(history) - before:
                time.sleep(0.3)
                return dict(history[new.pop()])
            time.sleep(0.1)
        raise TimeoutError("the graph did not end")

    def element(self, which: int = 0) -> str:
        """The explorer, as an expression."""
        return f"{_EXPLORERS}[{which}]"

    def root(self, which: int = 0) -> str:
        return f"{self.element(which)}.shadowRoot"

    def shown(self, which: int = 0) -> None:
        """Waits until the explorer shows a picture."""
        self.browser.until(f"{self.root(which)}?.querySelector('.root') != null")
        self.browser.until(f"{self.root(which)}.querySelector('.frame img')?.complete !== false")
        self.browser.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def middle(self, selector: str, which: int = 0, at: tuple[float, float] = (0.5, 0.5)) -> tuple[float, float]:
        """Screen place of a point of something in the explorer."""
        x, y = self.browser.js(
            f"(() => {{ const e = {self.root(which)}.querySelector(`{selector}`); e.scrollIntoView({{block: 'nearest'}});"
            f" const r = e.getBoundingClientRect(); return [r.x + r.width * {at[0]}, r.y + r.height * {at[1]}]; }})()"
        )
        return float(x), float(y)

    def text(self, selector: str, which: int = 0) -> str:
        return str(self.browser.js(f"{self.root(which)}.querySelector(`{selector}`)?.textContent ?? ''"))

    def stored(self, which: int = 0) -> str:
        """What the workflow keeps of the choice."""
        return str(
            self.browser.js(
                f"app.graph._nodes.filter(n => n.type === 'DaamLensExplorer')[{which}].serialize().widgets_values[0]"
            )
        )

    def drawn(self, which: int = 0) -> int:
        """A sum over the overlay's pixels: 0 when nothing is drawn."""
        return int(
            self.browser.js(
                f"(() => {{ const c = {self.root(which)}.querySelector('.frame .overlay'); const d = c.getContext('2d')"
                ".getImageData(0, 0, c.width, c.height).data; let s = 0;"
                " for (const v of d) s = (s * 31 + v) % 1000003; return s; })()"
            )
        )

    def complaints(self) -> list[str]:
        """Errors of the page that come from our files."""
        return [text for text in self.browser.errors() if "daam" in text.lower()]
