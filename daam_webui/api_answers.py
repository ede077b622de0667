"""What answers to a program have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daam_core.maps.heatmaps import HeatMaps


def concepts_of_run(maps: HeatMaps, words: Sequence[str]) -> dict[str, Any]:
    """Those of some words that are not in the prompt, with how likely each is in the picture."""
    named = {word: maps.presence(word) for word in words if maps.is_concept(word)}
    return {word: {"presence": found.score, "likely": found.word == "likely"} for word, found in named.items()}
