"""Which channel of the maps each column of a model's context belongs to.

A prompt has columns of its own; the context that a model is given may have others, because pictures of one batch share a
length. There are three ways to it, and a host uses one or two of them:

    longest   shorter prompts of a batch are padded to the longest one's columns
    repeat    a context is repeated until lengths agree: a whole multiple, whose repeated columns are summed
    pad       a context is padded behind, or loses its last columns
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BadArgument, BadPrompt

if TYPE_CHECKING:
    from .prompt import Prompt

Fit = Literal["repeat", "pad"]
"""How a prompt of fewer columns came to fill a longer context."""
MOST_BYTES = 256 * 2**20
"""Of one prompt's selection, which grows with the square of its tokens, as does the time of every step: 8192 tokens."""


def context_channels(own: Sequence[int], keys: int, padding: int, fit: Fit = "repeat", longest: int = 0) -> list[int]:
    """The channel of each column of a context.

    Args:
        own: the channel of each column of the prompt itself (`Prompt.column_channels`).
        keys: columns of the context that the model got.
        padding: the channel of columns that were added.
        fit: how the prompt fills the context.
        longest: columns of the longest prompt of its batch, to which it was padded first; 0 where it was not.

    Returns:
        `keys` channels.

    Raises:
        BadArgument: the context is no whole multiple of the prompt, where it should be repeated.

    Example:
        >>> context_channels([0, 1, 2], 6, padding=3)
        [0, 1, 2, 0, 1, 2]
        >>> context_channels([0, 1, 2], 5, padding=3, fit="pad")
        [0, 1, 2, 3, 3]
        >>> context_channels([0, 1, 2], 8, padding=3, longest=4)
        [0, 1, 2, 3, 0, 1, 2, 3]
    """
    columns = [*own, *[padding] * (longest - len(own))]
    if fit == "pad":
        return [*columns[:keys], *[padding] * (keys - len(columns))]
    if not columns or keys < len(columns) or keys % len(columns):
        raise BadArgument(
            f"The model's context has {keys} columns and this prompt {len(columns)}, which does not fit into it: give the "
            "prompt that the model got (a repeated one is a whole multiple)."
        )
    return columns * (keys // len(columns))


def one_hot(channels: Sequence[int], num_channels: int) -> Tensor:
    """float32 `[columns, channels]` of zeros and ones: probabilities `[..., columns]` @ it sum the columns of a channel.

    Raises:
        BadPrompt: it would be larger than `MOST_BYTES`.
    """
    if len(channels) * num_channels * 4 > MOST_BYTES:
        raise BadPrompt(
            f"the prompt is too long to be recorded: {num_channels} tokens in a context of {len(channels)}, where some "
            f"{math.isqrt(MOST_BYTES // 4)} are the most; shorten it"
        )
    # Not by `F.one_hot`, which makes whole numbers of twice this size first.
    columns = torch.tensor(channels, dtype=torch.long)[:, None]
    return torch.zeros(len(channels), num_channels).scatter_(1, columns, 1.0)


def selection(prompt: Prompt, keys: int, fit: Fit = "repeat", longest: int = 0) -> Tensor:
    """`one_hot` of a prompt for a context of `keys` columns: float32 `[keys, channels]`; see `context_channels`."""
    padding = prompt.num_channels - 1
    return one_hot(context_channels(prompt.column_channels(), keys, padding, fit, longest), prompt.num_channels)


def batch_selection(prompts: Sequence[Prompt], keys: int, fit: Fit = "repeat") -> Tensor:
    """Selections of several pictures side by side, each with its own prompt: float32 `[images, keys, channels]`, with empty
    channels behind those of the shorter prompts."""
    channels = max(prompt.num_channels for prompt in prompts)
    each = [selection(prompt, keys, fit) for prompt in prompts]
    return torch.stack([F.pad(x, (0, channels - x.shape[1])) for x in each])
