"""A transformer's blocks whose attention to the text nobody shows: named, unless it was seen in some call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from daam_core.capture.attention_call import AttentionCall
from daam_core.capture.counted_call import CountedCall, blocks_of, text_blocks
from daam_core.capture.host_words import EXTENSIONS
from daam_core.capture.token_layout import joint
from daam_core.capture.unrecorded_blocks import UnrecordedBlocks
from daam_core.errors import NothingRecorded

PATCHES, COLUMNS = (1, 2, 2), 3
SIZE = 4 + COLUMNS


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel: Callable[[], None] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kernel is not None:
            self.kernel()
        return x + 1


class Network(nn.Module):
    """Two kinds of blocks that attend to the text, and refiners that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.noise_refiner = nn.ModuleList([Block()])
        self.double_blocks = nn.ModuleList([Block(), Block()])
        self.layers = nn.ModuleDict({"first": Block()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in (*self.noise_refiner, *self.double_blocks, self.layers["first"]):
            x = block(x)
        return x


def run(network: Network, watched: UnrecordedBlocks, hidden: tuple[str, ...] = ()) -> torch.Tensor:
    """One call of the model; blocks of these paths show nothing."""
    counted = CountedCall(joint(1, PATCHES, COLUMNS, text_first=True), 1, blocks=blocks_of(network))
    q = torch.zeros(1, 1, SIZE, 2)

    def attend() -> None:
        counted.take(AttentionCall(q, q, 1.0))

    for path, block in text_blocks(network).items():
        assert isinstance(block, Block)
        block.kernel = None if path in hidden else attend
    watched.begin(counted)
    out: torch.Tensor = network(torch.zeros(2))
    watched.end()
    return out


def test_blocks_that_show_their_attention_are_no_trouble_and_nothing_is_left() -> None:
    network = Network()
    watched = UnrecordedBlocks(network)
    assert list(text_blocks(network)) == ["double_blocks.0", "double_blocks.1", "layers.first"] and blocks_of(network) == 3
    assert torch.equal(run(network, watched), torch.full((2,), 4.0))
    watched.require()
    watched.clear()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("hidden", "said"),
    [(("double_blocks.1",), "double_blocks.1 of this model"), (("double_blocks.0", "layers.first"), "2 blocks of this model")],
)
def test_a_block_that_ran_unseen_is_named(hidden: tuple[str, ...], said: str) -> None:
    network = Network()
    watched = UnrecordedBlocks(network, EXTENSIONS)
    for _ in range(2):
        run(network, watched, hidden)
    with pytest.raises(NothingRecorded, match=f"^{said}.* ran, and none of the attention to the text.* Switch it off"):
        watched.require()


def test_what_a_cache_leaves_out_later_was_seen() -> None:
    network = Network()
    watched = UnrecordedBlocks(network)
    run(network, watched)
    run(network, watched, ("double_blocks.0",))
    watched.require()


def test_a_call_that_nobody_records_counts_for_nothing() -> None:
    network = Network()
    watched = UnrecordedBlocks(network)
    run(network, watched)
    for block in text_blocks(network).values():
        assert isinstance(block, Block)
        block.kernel = None
    network(torch.zeros(2))
    watched.require()


def test_a_block_that_runs_within_itself_is_one() -> None:
    """Concepts are read by the block's own code, which attends in another way, while the block runs."""
    network = Network()
    watched, counted = UnrecordedBlocks(network), CountedCall(joint(1, PATCHES, COLUMNS, text_first=True), 1)
    block, q = network.double_blocks[0], torch.zeros(1, 1, SIZE, 2)
    assert isinstance(block, Block)

    def kernel() -> None:
        assert isinstance(block, Block)
        block.kernel = None
        block(torch.zeros(2))
        counted.take(AttentionCall(q, q, 1.0))

    block.kernel = kernel
    watched.begin(counted)
    block(torch.zeros(2))
    watched.require()
