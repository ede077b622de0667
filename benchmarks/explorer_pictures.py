"""The README's pictures of the explorer: `python -m benchmarks.explorer_pictures` draws them anew into assets/.

One picture of the model inside, its page in a headless Chromium; a mark of the page's own stands for the mouse.
"""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from daam_core import HeatMaps, load_tiny, trace
from daam_core.explorer.standalone import write_explorer
from tests.web.chromium import Chromium, find
from tests.web.hands import middle, over, slide

ASSETS = Path(__file__).resolve().parents[1] / "assets"
PROMPT = "a red house and a green tree"
SEED = 18
SIZE = (1200, 800)
ANIMATED = (840, 560)
MARK = """(() => { const m = document.createElement('div'); m.id = 'mark';
  m.style.cssText = 'position:fixed;width:16px;height:16px;margin:-8px;border-radius:50%;background:#fffc;z-index:9;' +
    'box-shadow:0 0 0 2px #000a;pointer-events:none;left:-30px;top:-30px';
  document.body.append(m); })()"""


def recorded() -> HeatMaps:
    pipe = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    with trace(pipe, keep=("layers", "steps")) as recording:
        pipe(PROMPT, generator=torch.Generator().manual_seed(SEED))
    return recording.heat_maps()


def shot(browser: Chromium, folder: Path) -> Image.Image:
    return Image.open(io.BytesIO(browser.screenshot(folder / "shot.png").read_bytes())).convert("RGB")


def point(browser: Chromium, place: tuple[float, float]) -> None:
    browser.mouse("Moved", *place)
    browser.js(f"Object.assign(document.getElementById('mark').style, {{left: '{place[0]}px', top: '{place[1]}px'}})")


def stills(browser: Chromium, maps: HeatMaps, folder: Path) -> None:
    """Light: a word that is pointed at. Dark: the mask of two words."""
    word = {w.text: i for i, w in enumerate(maps.prompt.words)}
    for theme in ("light", "dark"):
        browser.theme(theme)
        browser.open(write_explorer(maps, folder / "explorer.html"))
        if theme == "light":
            browser.mouse("Moved", *middle(browser, f"[data-word='{word['house']}']"))
        else:
            browser.click(*middle(browser, f"[data-word='{word['house']}']"))
            browser.click(*middle(browser, f"[data-word='{word['tree']}']"))
            slide(browser, "tau", "0.4")
            browser.mouse("Moved", *over(browser, 40, 100, maps.size))
        time.sleep(0.5)
        shot(browser, folder).save(ASSETS / f"explorer_{theme}.webp", quality=88, method=6)


def moving(browser: Chromium, maps: HeatMaps, folder: Path) -> None:
    """Along the words, over the picture, two words that are kept, the slider."""
    browser.theme("dark")
    browser.open(write_explorer(maps, folder / "explorer.html"))
    browser.js(MARK)
    frames: list[Image.Image] = []
    lengths: list[int] = []

    def keep(length: int) -> None:
        frames.append(shot(browser, folder).resize(ANIMATED, Image.Resampling.LANCZOS))
        lengths.append(length)

    content = [i for i, word in enumerate(maps.words) if word in maps.content_words]
    for i in content:
        point(browser, middle(browser, f"[data-word='{i}']"))
        keep(900)
    for y, x in ((92, 39), (78, 39), (84, 88), (104, 88), (30, 64)):
        point(browser, over(browser, y, x, maps.size))
        keep(600)
    for word in ("house", "tree"):
        place = middle(browser, f"[data-word='{maps.words.index(word)}']")
        point(browser, place)
        browser.click(*place)
        keep(600)
    point(browser, over(browser, 20, 110, maps.size))
    keep(1200)
    for tau in (0.3, 0.4, 0.5, 0.6):
        slide(browser, "tau", str(tau))
        point(browser, middle(browser, "[name='tau']"))
        keep(500)
    file = ASSETS / "explorer.webp"
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=lengths, loop=0, quality=80, method=4)
    print(f"{file.name}: {len(frames)} frames, {file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    path = find()
    if path is None:
        print("No Chromium here: looked at CHROMIUM_PATH and for chromium, google-chrome.")
        return
    maps = recorded()
    with Chromium(path, SIZE) as browser, tempfile.TemporaryDirectory() as folder:
        browser.resize(*SIZE)
        stills(browser, maps, Path(folder))
        moving(browser, maps, Path(folder))


if __name__ == "__main__":
    main()
