"""The README's first picture: `python -m benchmarks.hero_picture` draws it anew into assets/.

The contact sheet of the model inside, of all content words: colours, too, light what they colour.
"""

from __future__ import annotations

from pathlib import Path

import torch

from daam_core import load_tiny, trace

ASSETS = Path(__file__).resolve().parents[1] / "assets"
PROMPT = "a red house and a green tree"
SEED = 0


def main() -> None:
    """Write assets/hero.png."""
    pipe = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    with trace(pipe) as recording:
        pipe(PROMPT, generator=torch.Generator().manual_seed(SEED))
    maps = recording.heat_maps()
    maps.contact_sheet(maps.content_words, columns=5).save(ASSETS / "hero.png", optimize=True)


if __name__ == "__main__":
    main()
