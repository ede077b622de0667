"""From the columns of a context to the channels of the maps, in each of the ways in which hosts make lengths agree."""

from __future__ import annotations

import pytest
import torch

from daam_core.errors import BadArgument, BadPrompt
from daam_core.prompt.context import batch_selection, context_channels, selection
from daam_core.prompt.prompt import Prompt, Token, Word


def prompt(words: int, length: int) -> Prompt:
    """`<start>`, so many words of a token each, `<end>`, padding."""
    tokens = tuple(Token(i, f"w{i}", i) for i in range(1, words + 1))
    named = tuple(Word(t.text, t.text, (t.channel,)) for t in tokens)
    return Prompt("", tokens, named, (0,), (words + 1,), tuple(range(words + 2, length)), length)


def test_every_way_to_a_longer_context() -> None:
    own, padding = prompt(2, 5).column_channels(), 4
    assert own == [0, 1, 2, 3, 4]
    assert context_channels(own, 5, padding) == own
    assert context_channels(own, 10, padding) == own * 2
    assert context_channels(own, 8, padding, "pad") == [*own, 4, 4, 4]
    assert context_channels(own, 3, padding, "pad") == [0, 1, 2]
    assert context_channels(own, 14, padding, longest=7) == [*own, 4, 4] * 2
    assert context_channels(own, 9, padding, "pad", longest=7) == [*own, 4, 4, 4, 4]


@pytest.mark.parametrize(("own", "keys"), [([0, 1, 2], 4), ([0, 1, 2], 2), ([0, 1, 2], 0), ([], 3)])
def test_a_context_that_is_no_multiple_is_refused(own: list[int], keys: int) -> None:
    with pytest.raises(BadArgument, match="whole multiple"):
        context_channels(own, keys, 2)


def test_selections_sum_the_columns_of_a_channel() -> None:
    """Each column counts in exactly one channel, so probabilities keep their sum."""
    one = prompt(3, 7)
    p = torch.rand(4, 14, generator=torch.Generator().manual_seed(0)).softmax(1)
    folded = p @ selection(one, 14)
    assert torch.allclose(folded.sum(1), torch.ones(4))
    assert torch.allclose(folded[:, 2], p[:, 2] + p[:, 9])
    assert torch.allclose(folded[:, 5], p[:, [5, 6, 12, 13]].sum(1))


def test_pictures_side_by_side_have_their_own_words() -> None:
    """The shorter prompt's channels come first; those behind them stay empty."""
    both = batch_selection([prompt(3, 7), prompt(1, 7)], 7)
    assert both.shape == (2, 7, 6)
    assert torch.equal(both[0], selection(prompt(3, 7), 7))
    assert torch.equal(both[1, :, :4], selection(prompt(1, 7), 7)) and not both[1, :, 4:].any()


def test_a_selection_of_more_tokens_than_are_recorded_is_refused() -> None:
    """It grows with the square of the prompt: 20,000 tokens would take 1.6 GB, and minutes of every step. A short prompt in the
    same context, which a long negative prompt asks for, is small."""
    with pytest.raises(BadPrompt, match="too long to be recorded: 8293 tokens in a context of 8300, where some 8192 are the"):
        selection(prompt(8290, 8300), 8300)
    assert selection(prompt(4, 70), 21_000).sum(0).tolist() == [300.0] * 6 + [64 * 300.0]
