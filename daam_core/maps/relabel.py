"""Maps recorded by column number, because nobody knew the words, and the words that were told afterwards."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import BadArgument
from ..prompt.prompt import Prompt
from .data import Detail

if TYPE_CHECKING:
    from .heatmaps import HeatMaps


def by_index(prompt: Prompt) -> bool:
    """Whether a prompt has no words but the numbers of its columns (see `Prompt.by_index`)."""
    return bool(prompt.words) and not prompt.text and prompt == Prompt.by_index(prompt.length)


def relabel(maps: HeatMaps, prompt: Prompt) -> HeatMaps:
    """Maps of `Prompt.by_index`, with the channels and words of `prompt`; exact, because channels are sums of columns.

    Raises:
        BadArgument: the maps have words already, or the prompt has another number of columns than was recorded.
    """
    if not by_index(maps.prompt):
        raise BadArgument("These maps have their words already; words can only be given to maps recorded without them.")
    if maps.prompt.length % prompt.length:
        raise BadArgument(
            f"The model read {maps.prompt.length} columns and this prompt has {prompt.length}: "
            "give the very text (and CLIP) that the picture was made with."
        )
    selection = prompt.selection(maps.prompt.length)  # [columns, channels]
    tokens = [token.column for token in prompt.tokens]

    def merged(x: Tensor) -> Tensor:
        """`[..., columns + 3, h, w]` -> `[..., channels, h, w]`."""
        columns = x[..., 1 : maps.prompt.length + 1, :, :].movedim(-3, -1)
        return (columns @ selection.to(x.dtype)).movedim(-1, -3).contiguous()

    detail = maps.detail
    return dataclasses.replace(
        maps,
        prompt=prompt,
        sums={grid: merged(x) for grid, x in maps.sums.items()},
        time_weighted={grid: merged(x) for grid, x in maps.time_weighted.items()},
        heads=maps.heads and {i: merged(x) for i, x in maps.heads.items()},
        detail=detail and Detail({grid: x[:, :, tokens] for grid, x in detail.values.items()}, detail.layers, detail.by_step),
    )
