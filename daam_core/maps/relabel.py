"""Gives words to maps that were recorded by column number because the prompt was not known then."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..attention.precision import full_precision
from ..errors import BadArgument
from ..prompt.prompt import Prompt
from .data import Detail, RecordedImage
from .relations import moved


def by_index(prompt: Prompt) -> bool:
    """Whether a prompt has no words but the numbers of its columns (see `Prompt.by_index`)."""
    return bool(prompt.words) and not prompt.text and prompt == Prompt.by_index(prompt.length)


def relabel(image: RecordedImage, prompt: Prompt) -> RecordedImage:
    """One side recorded under `Prompt.by_index`, with the channels and words of `prompt`; exact, because channels are sums of
    columns.

    Raises:
        BadArgument: the maps have words already, or the prompt has another number of columns than was recorded.
    """
    if not by_index(image.prompt):
        raise BadArgument("These maps have their words already; words can only be given to maps recorded without them.")
    length = image.prompt.length
    if prompt.length < 1 or length % prompt.length:
        raise BadArgument(
            f"The model read {length} columns and this prompt has {prompt.length}: "
            "give the very text (and CLIP) that the picture was made with."
        )
    selection = prompt.selection(length)  # [columns, channels]

    def merged(x: Tensor) -> Tensor:
        """`[..., columns + 3, h, w]` -> `[..., channels, h, w]`."""
        return merged_columns(x[..., 1 : length + 1, :, :])

    def merged_columns(x: Tensor) -> Tensor:
        """`[..., columns, h, w]` -> `[..., channels, h, w]`."""
        with full_precision(x.device):
            return (x.float().movedim(-3, -1) @ selection).movedim(-1, -3).contiguous()

    def detailed(x: Tensor) -> Tensor:
        """`[steps, layers, columns, h, w]` float16 -> the same of the prompt's own tokens."""
        return merged_columns(x)[:, :, 1:-2].half()

    detail = image.detail
    return dataclasses.replace(
        image,
        prompt=prompt,
        sums={grid: merged(x) for grid, x in image.sums.items()},
        time_weighted={grid: merged(x) for grid, x in image.time_weighted.items()},
        heads=image.heads and {i: merged(x) for i, x in image.heads.items()},
        detail=detail and Detail({grid: detailed(x) for grid, x in detail.values.items()}, detail.layers, detail.by_step),
        relations=image.relations and moved(image.relations, _places(selection)),
        output=image.output
        and dataclasses.replace(image.output, scores={grid: merged(x) for grid, x in image.output.scores.items()}),
        specials=True,  # every column was a word, so a choice of steps or layers held them all
    )


def _places(selection: Tensor) -> Tensor:
    """float32 `[columns + 3, channels]`: where each channel of maps by column goes; start, end and padding were empty."""
    return torch.cat([selection.new_zeros(1, selection.shape[1]), selection, selection.new_zeros(2, selection.shape[1])])
