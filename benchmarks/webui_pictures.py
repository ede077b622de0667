"""The README's pictures of the WebUIs: `python -m benchmarks.webui_pictures` takes them anew into assets/.

The model inside in a running AUTOMATIC1111 (`A1111_PATH`), its page in a headless Chromium.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from pathlib import Path

from PIL import Image

from tests.web.chromium import Chromium, find
from tests.webui.checkpoints import ldm_checkpoint
from tests.webui.hosts import Server
from tests.webui.hosts import find as find_host
from tests.webui.other_models import model_inside

WIDTH = 1100
"""Pixels of a picture; pages are laid out wider."""
ASSETS = Path(__file__).resolve().parents[1] / "assets"
PROMPT = "a red house and a green tree on grass"
FIELDS = {
    "#txt2img_prompt textarea": PROMPT, "#txt2img_steps input[type=number]": "20", "#txt2img_seed input": "44",
    "#txt2img_width input[type=number]": "128", "#txt2img_height input[type=number]": "128",
    "#txt2img_cfg_scale input[type=number]": "4",
}  # fmt: skip
SETTINGS = {
    "sd_model_checkpoint": "daam-lens-tiny", "sd_vae_decode_method": "TAESD", "live_previews_enable": True,
    "show_progress_type": "TAESD", "show_progress_every_n_steps": 1, "live_preview_refresh_period": 300,
}  # fmt: skip
SHADOW = "document.querySelector('daam-explorer').shadowRoot"
BOX = "[id$=daam_lens_enabled-checkbox] input"


def put(page: Chromium, selector: str, value: str) -> None:
    """Types a value into a field, as gradio notices it, until it stays."""
    typed = f"(e.value = {json.dumps(value)}, updateInput(e), false)"
    page.until(f"(e => e && (e.value === {json.dumps(value)} || {typed}))(document.querySelector({json.dumps(selector)}))")


def click(page: Chromium, selector: str) -> None:
    page.js(f"document.querySelector({json.dumps(selector)}).click()")


def load(page: Chromium, server: Server, theme: str) -> None:
    page.send("Page.navigate", url=f"{server.url}/?__theme={theme}")
    page.until("!!document.querySelector('#daam_lens_explorer .daam-lens-bar')")
    for selector, value in FIELDS.items():
        put(page, selector, value)
    # The host counts tokens after a key press, and nobody pressed one.
    again = "(document.querySelector('#txt2img_token_button').click(), false)"
    page.until(f"document.querySelector('#txt2img_token_counter')?.textContent.includes('9/75') || {again}")


def generate(page: Chromium) -> None:
    while not page.js("document.querySelector('#txt2img_interrupt').style.display == 'block'"):
        click(page, "#txt2img_generate")
        time.sleep(0.5)


def keep(page: Chromium, folder: Path, name: str, settle: float = 1) -> None:
    time.sleep(settle)
    shot = Image.open(io.BytesIO(page.screenshot(folder / "shot.png").read_bytes())).convert("RGB")
    size = (WIDTH, round(shot.height * WIDTH / shot.width))
    shot.resize(size, Image.Resampling.LANCZOS).save(ASSETS / f"webui-{name}.jpg", quality=88, optimize=True)


def script(page: Chromium, folder: Path) -> None:
    """The panel, the picture with a word's heat, the report."""
    click(page, BOX)
    finished(page)
    keep(page, folder, "script")


def finished(page: Chromium) -> None:
    """A run is over, and its second word stands large in the gallery."""
    generate(page)
    page.until("document.querySelector('#daam_lens_send_txt2img')?.offsetParent != null")
    page.until("document.querySelectorAll('#txt2img_gallery .thumbnail-item, #txt2img_gallery .thumbnails img').length >= 5")
    page.js("document.querySelectorAll('#txt2img_gallery button.thumbnail-item')[2].click()")
    page.js("window.scrollTo(0, 0)")


def tab(page: Chromium, folder: Path) -> None:
    """A word that is kept, its mask drawn on the picture; steps and layers are there."""
    click(page, BOX)
    page.until("document.querySelector('[id$=daam_lens_detail] input')?.offsetParent != null")
    click(page, "[id$=daam_lens_detail] input")
    generate(page)
    page.until("document.querySelector('#daam_lens_send_txt2img')?.offsetParent != null")
    page.js("daamLens.openTab()")
    page.until(f"{SHADOW}?.querySelector('.root') != null")
    house = f"[...{SHADOW}.querySelectorAll('.chip')].find(c => c.textContent == 'house')"
    page.until(f"!!{house}")
    time.sleep(1)
    x, y = page.js(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({house}.getBoundingClientRect())")
    page.click(x, y)
    page.js(f"{SHADOW}.querySelector('[data-method=best]').click()")
    page.until(f"{SHADOW}.querySelector('[data-method=best]').getAttribute('aria-pressed') == 'true'")
    page.mouse("Moved", 5, 5)
    keep(page, folder, "tab")


def live(page: Chromium, folder: Path) -> None:
    """A word's heat over the preview, in the middle of the first picture; a second one leaves time to take it."""
    click(page, BOX)
    finished(page)  # the preview is as large as what the gallery showed before
    put(page, "#txt2img_steps input[type=number]", "150")
    put(page, "#txt2img_batch_count input[type=number]", "2")
    put(page, "[id$=daam_lens_live_word] textarea", "house")
    page.js(
        "Object.assign(opts, {live_previews_enable: true, live_preview_refresh_period: 300})"
    )  # the page's, since its start
    generate(page)
    seen = "document.querySelector('#txt2img_gallery_container .livePreview img, .livePreview img')"
    page.until(f"{seen}?.naturalWidth == 512 && parseInt(document.querySelector('.progressDiv .progress')?.style.width) > 25")
    keep(page, folder, "live", 0)
    page.until("document.querySelector('#txt2img_interrupt').style.display != 'block'")


def main() -> None:
    host, why = find_host("a1111")
    browser = find()
    if host is None or browser is None:
        raise SystemExit(why or "No Chromium: set CHROMIUM_PATH.")
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        models = data / "models" / "Stable-diffusion"
        models.mkdir(parents=True)
        ldm_checkpoint(models, "tiny", 0)
        model_inside(data)
        server = Server(host, data)
        try:
            server.wait().post("/sdapi/v1/options", SETTINGS)
            for theme, height, scene in (("light", 1390, script), ("dark", 1455, tab), ("light", 1300, live)):
                with Chromium(browser, timeout=120) as page:
                    page.resize(1400, height)
                    load(page, server, theme)
                    scene(page, Path(name))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
