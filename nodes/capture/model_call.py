"""One call of the diffusion model: whose rows stand in its batch, and what of it ran already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ...daam_core.capture.attention_call import AttentionCall
from ...daam_core.capture.buffers import BatchSlice
from ...daam_core.capture.counted_call import CountedCall
from ...daam_core.capture.token_layout import TokenLayout
from ...daam_core.errors import NothingRecorded
from ...daam_core.types import Grid
from .batch_rows import Row, Side


@dataclass
class Call:
    """One call of the diffusion model.

    Attributes:
        batch: rows of its batch.
        wanted: whose rows are recorded, and where in the batch they stand.
        own: the rows whose attention to itself is the whole picture's, None where there are none.
        layout: where text and picture stand in a transformer, None for a UNet.
        context: the text it was given, `[batch, columns, d]`.
        proved: the text at a layer that was last held against it.
        counted: the attentions of a transformer.
        attended: (layer, grid, queries and keys) of a UNet's attention to the text whose output is read and still to come.
        entered: what has run already, see `enter`.
        blocks: how many a transformer has, see `blocks_of`.
        layers: how many attended to the text so far.
        whole_video: whether it was shown all latent frames of a video: those of a part of it are summed.
    """

    batch: int
    wanted: list[tuple[Side, BatchSlice]]
    own: BatchSlice | None
    layout: TokenLayout | None = None
    context: Tensor | None = None
    whole_video: bool = True
    blocks: int = 0
    proved: Tensor | None = field(default=None, init=False)
    counted: CountedCall | None = field(default=None, init=False)
    attended: tuple[int, Grid, AttentionCall] | None = field(default=None, init=False)
    entered: set[str] = field(default_factory=set, init=False)
    layers: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.layout is not None:
            self.counted = CountedCall(self.layout, self.batch, blocks=self.blocks)

    def enter(self, part: str) -> None:
        """A part of the model runs: its network, or a UNet's layer by its path.

        Raises:
            NothingRecorded: it ran before in this call.
        """
        if part in self.entered:
            raise NothingRecorded(
                f"another node runs the model several times for one prediction (a reference picture does): {part} ran twice, "
                "and nobody can say which time it was the picture's. Record without that node"
            )
        self.entered.add(part)


def own_slice(rows: Sequence[Row | None], slices: Sequence[BatchSlice]) -> BatchSlice | None:
    """The first rows that are the prompt on the whole picture."""
    for row, batch_slice in zip(rows, slices, strict=True):
        if row is not None and row.side == "prompt" and row.area.whole:
            return batch_slice if row.part == 0 else None
    return None
