"""The README's first picture: `python -m benchmarks.hero_picture` draws it anew into assets/.

The contact sheet of the model inside, of the words that stand for objects.
"""

from __future__ import annotations

from pathlib import Path

import torch

from daam_core import load_tiny, trace
from daam_core.prompt.objects import object_words

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
    maps.contact_sheet(object_words(maps.prompt), columns=3).save(ASSETS / "hero.png", optimize=True)


if __name__ == "__main__":
    main()
