"""The explorer in headless Chromium on the CPU: size of its data, first draw, hover to drawn overlay.

    python -m benchmarks.explorer

Hover is measured inside the page, from the pointer event's handler to the frame's pixels being readable (reading one back
waits for the drawing), for words never shown before (of several fresh pages), which are drawn smaller at once, then as fine as
the screen, and for words whose maps are ready at that size. It is the size that the picture has on the screen: two sizes of
window are measured. Writes its section of results.md.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from daam_core.explorer.page_data import page_data
from daam_core.explorer.standalone import write_explorer
from tests.web.chromium import Chromium, find
from tests.web.samples import heat_maps

from .report import table, write

WORDS = 20
CASES = {
    "SD 1.5, 512 x 512": ((512, 512), ((64, 64), (32, 32), (16, 16), (8, 8))),
    "SDXL, 1024 x 1024": ((1024, 1024), ((64, 64), (32, 32))),
    "SDXL, 832 x 1216": ((832, 1216), ((52, 76), (26, 38))),
}
WINDOWS = ((1280, 900), (1600, 1400))
FRESH = 5
HEAD = [
    "picture", "atlas", "drawn at", "first draw", "of it, processor", "hover, new word", "of it, processor",
    "as fine as the screen", "hover, ready", "pointer to ranking", "mask slider",
]  # fmt: skip
FIRST = """(async () => {
  const old = document.querySelector('daam-explorer'); const data = old.data; old.remove();
  const fresh = document.createElement('daam-explorer'); document.body.append(fresh);
  window.requestIdleCallback = () => 0;
  const from = performance.now(); await fresh.load(data); fresh.hover([1]);
  fresh.shadowRoot.querySelector('.frame .overlay').getContext('2d').getImageData(0, 0, 1, 1);
  return performance.now() - from; })()"""
HOVER = """(() => {
  const e = document.querySelector('daam-explorer');
  const c = e.shadowRoot.querySelector('.frame .overlay').getContext('2d'); const times = [];
  for (let i = 0; i < %d; i++) {
    const from = performance.now(); e.hover([i]); c.getImageData(0, 0, 1, 1); times.push(performance.now() - from); }
  e.hover(null); return times; })()"""
SHARP = """(() => {
  const e = document.querySelector('daam-explorer');
  const c = e.shadowRoot.querySelector('.frame .overlay').getContext('2d'); const times = [];
  for (let i = 0; i < %d; i++) {
    e.hovered = [i];
    const from = performance.now(); e.model.heat([i]); e.screen.draw(); c.getImageData(0, 0, 1, 1);
    times.push(performance.now() - from); }
  e.hovered = null; return times; })()"""
POINT = """(() => {
  const e = document.querySelector('daam-explorer'); const f = e.shadowRoot.querySelector('.frame');
  const r = f.getBoundingClientRect(); const times = [];
  for (let i = 0; i < 50; i++) {
    const clientX = r.x + r.width * (i + .5) / 50, clientY = r.y + r.height * ((i * 7) % 50 + .5) / 50;
    const from = performance.now();
    f.dispatchEvent(new PointerEvent('pointermove', {clientX, clientY, bubbles: true})); times.push(performance.now() - from);
  }
  return times; })()"""
SLIDE = """(() => {
  const e = document.querySelector('daam-explorer'); e.toggle([1]);
  const c = e.shadowRoot.querySelector('.frame .overlay').getContext('2d'); const times = [];
  for (let i = 0; i < 20; i++) {
    const from = performance.now(); e.changeMask({...e.settings, tau: .2 + i / 40}); c.getImageData(0, 0, 1, 1);
    times.push(performance.now() - from); }
  return times; })()"""


def processor(browser: Chromium) -> float:
    """Milliseconds that the page's own thread has computed: what a busy machine cannot lengthen."""
    metrics = {one["name"]: one["value"] for one in browser.send("Performance.getMetrics")["metrics"]}
    return 1000 * float(metrics["TaskDuration"])


def figures(browser: Chromium, file: Path, window: tuple[int, int]) -> list[str]:
    """Size of the stage's heat, then the times, in one window: median (largest)."""
    browser.resize(*window)
    browser.send("Performance.enable", timeDomain="threadTicks")
    computed: list[list[float]] = [[], []]
    first: list[float] = []
    new: list[float] = []
    for _ in range(FRESH):
        browser.open(file)
        # Nothing is prepared behind the measurement's back: these words are as new as if the pointer had been quicker.
        ticks = [processor(browser)]
        first.append(browser.js(FIRST))
        ticks.append(processor(browser))
        new += browser.js(HOVER % WORDS)
        ticks.append(processor(browser))
        computed[0].append(ticks[1] - ticks[0])
        computed[1].append((ticks[2] - ticks[1]) / WORDS)
    drawn = browser.js("document.querySelector('daam-explorer').model.heatSize")
    sharp, ready, point, slide = (browser.js(script) for script in (SHARP % WORDS, HOVER % WORDS, POINT, SLIDE))
    measured = (first, computed[0], new, computed[1], sharp, ready, point, slide)
    times = [f"{statistics.median(x):.1f} ({max(x):.1f})" for x in measured]
    return [f"{drawn[1]} x {drawn[0]}", *times]


def main() -> None:
    path = find()
    if path is None:
        print("No Chromium here: looked at CHROMIUM_PATH and for chromium, google-chrome.")
        return
    rows = []
    with Chromium(path) as browser, tempfile.TemporaryDirectory() as folder:
        for name, (size, grids) in CASES.items():
            maps = heat_maps([f"word{i}" for i in range(WORDS)], size, grids)
            data = page_data(maps)
            file = write_explorer(maps, Path(folder, "explorer.html"))
            rows += [[name, f"{len(data.atlas) / 1000:.0f} kB", *figures(browser, file, window)] for window in WINDOWS]
    text = f"{WORDS} words; milliseconds, median (largest). Bounds: 16 ms a hover, 200 ms to the first draw, 150 kB. "
    load = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    text += f"Other work on the machine ({load}) lengthens everything but the processor's time.\n\n"
    write("The explorer in headless Chromium", text + table(HEAD, rows))


if __name__ == "__main__":
    main()
