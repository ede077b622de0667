"""What a person may choose of one picture, on the command line and in the app alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..types import Relation
from .trace import KeptAxis


@dataclass(frozen=True)
class Settings:
    """What a person may choose; None leaves it to the model.

    Attributes:
        seed: same seed, same picture on every device.
        steps: sampling steps.
        size: (height, width) in pixels, multiples of 8.
        guidance: how strictly to follow the prompt; 1 is none. Of two kinds, with a negative prompt the one that heeds it.
        negative: what not to paint; its words are recorded, too.
        detail: what to keep apart.
        concepts: what to look for beside the prompt's words, see `trace`.
        frames: of a video.
        relations: whose queries attend to whose keys, beside Eq. 6, see `trace`.
        output_space: record what the attention gives out, see `trace`.
    """

    seed: int = 0
    steps: int | None = None
    size: tuple[int, int] | None = None
    guidance: float | None = None
    negative: str = ""
    detail: Sequence[KeptAxis] = ()
    concepts: Sequence[str] = ()
    frames: int | None = None
    relations: Sequence[Relation] = ()
    output_space: bool = False
