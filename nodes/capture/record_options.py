"""What a Record node was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from ...daam_core.capture.buffers import StoreOptions
from ...daam_core.prompt.concepts import Concept


@dataclass(frozen=True)
class Options:
    """What a Record node was asked for; `first_step` and `last_step` count sampling steps from 0, both included. The heat of
    `live_word` is shown while it samples, of none where it is empty; `concepts` are looked for beside the prompt's words."""

    keep: StoreOptions
    negative: bool = False
    first_step: int = 0
    last_step: int = 10_000
    live_word: str = ""
    concepts: tuple[Concept, ...] = ()
