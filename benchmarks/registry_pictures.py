"""Icon and banner for ComfyUI's registry: `python -m benchmarks.registry_pictures` draws them anew into assets/.

One picture of the model inside; the product draws the heat of its words on it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from daam_core import HeatMaps, load_tiny, trace
from daam_core.render.overlay import blend_heatmap, enlarged, outline
from daam_core.render.text import theme_colors, write

ASSETS = Path(__file__).resolve().parents[1] / "assets"
ICON = 400  # the registry takes at most 400 x 400
BANNER = (1260, 540)  # 21:9
PROMPT = "a red house and a green tree"
WORDS = ("house", "tree")
SEED = 18
ICON_SEED = 8


def recorded(prompt: str, seed: int) -> HeatMaps:
    """The maps of one picture of the model inside."""
    pipe = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    with trace(pipe) as recording:
        pipe(prompt, generator=torch.Generator().manual_seed(seed))
    return recording.heat_maps()


def hot(maps: HeatMaps, word: str | None, side: int) -> Image.Image:
    """The picture `side` pixels wide and high, with the heat of a word on it."""
    assert maps.picture is not None
    picture = enlarged(maps.picture, 512)
    if word is not None:
        picture = blend_heatmap(picture, maps.heat_map(word, size=picture.shape[:2]))
    return Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)


def icon(maps: HeatMaps) -> Image.Image:
    """Half of the picture as it is, half with the heat of its word."""
    plain, heat = (np.asarray(hot(maps, word, ICON)) for word in (None, "house"))
    across = (np.arange(ICON)[None, :] + np.arange(ICON)[:, None]) / 2  # the border between both runs from corner to corner
    share = np.clip((across - ICON / 2) / 3 + 0.5, 0, 1)[..., None]
    return Image.fromarray((plain * (1 - share) + heat * share).round().astype(np.uint8))


def banner(maps: HeatMaps) -> Image.Image:
    """The name, what it does, and the picture beside the heat of two of its words."""
    ink = theme_colors("dark")
    sheet = Image.new("RGB", BANNER, ink.ground)
    side, gap, left = 271, 18, 62
    write(sheet, (left, 62), "DAAM Lens", 800, 52, ink.text)
    write(sheet, (left, 122), "Which pixels belong to each word of a prompt?", 1100, 26, ink.quiet)
    start = left
    tiles = [(PROMPT, hot(maps, None, side)), *((word, hot(maps, word, side)) for word in WORDS)]
    assert maps.picture is not None
    inside = maps.mask(WORDS[0], size=(512, 512)).float().numpy()
    drawn = Image.fromarray(outline(enlarged(maps.picture, 512), inside, width=5))
    tiles.append((f"mask of {WORDS[0]}", drawn.resize((side, side), Image.Resampling.LANCZOS)))
    for text, tile in tiles:
        sheet.paste(tile, (start, 180))
        write(sheet, (start, 180 + side + 30), text, side, 21, ink.quiet if text == PROMPT else ink.text)
        start += side + gap
    return sheet


def main() -> None:
    """Write both."""
    icon(recorded("a red house", ICON_SEED)).save(ASSETS / "icon.png", optimize=True)
    banner(recorded(PROMPT, SEED)).save(ASSETS / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
