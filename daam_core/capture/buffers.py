"""What an accumulator sums into, and which part of a model's batch it takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..maps.frames import Frames
from ..types import Grid, Relation
from .region import WHOLE, Area


@dataclass(frozen=True)
class StoreOptions:
    """What is kept beyond the sums of Eq. 6.

    Attributes:
        layers: the layers apart.
        steps: the steps apart.
        heads: the heads apart (summed over steps; the aggregation "castorini" needs it).
        self_attention: the attention of the picture to itself.
        relations: what else an attention of text and picture tells: "text->image", "text->text".
        output: what the attention gives out, held against each word and against itself (see `OutputSums`).
    """

    layers: bool = False
    steps: bool = False
    heads: bool = False
    self_attention: bool = False
    relations: tuple[Relation, ...] = ()
    output: bool = False


@dataclass(frozen=True, eq=False)
class BatchSlice:
    """Which part of a model's batch is recorded, and what it is about; one value serves all layers and steps.

    Attributes:
        start, stop: the rows of the batch, one for each picture.
        part: which prompt, where a picture is made of several (AND, regions, schedules).
        area: which part of the picture these rows are.
    """

    start: int
    stop: int
    part: int = 0
    area: Area = WHOLE

    @property
    def index(self) -> slice:
        return slice(self.start, self.stop)


@dataclass
class GridSums:
    """The sums of Eq. 6 at one resolution and in one area of the picture, `[2, images, frames * n, channels]` float32.

    Attributes:
        both: `total` over heads, layers and steps, and `late`: the same with step j = 1, 2, … weighted by j squared.
        num_terms: heads x layers x steps that went into them, at one position of one latent frame.
        frames: of a video, those that are kept apart.
    """

    grid: Grid
    area: Area
    both: Tensor
    num_terms: int = 0
    frames: Frames | None = None

    @property
    def terms(self) -> int:
        """The terms at one position of the picture: of views whose mean is taken, those of one."""
        return self.num_terms if self.area.counted else 0

    @property
    def total(self) -> Tensor:
        return self.both[0]

    @property
    def time_weighted(self) -> Tensor:
        return self.both[1]


@dataclass
class StepBuffer:
    """What was recorded in this step: of a resolution, or of a layer where layers are kept apart.

    Attributes:
        now: running sum of this step `[images, frames * n, channels]`, of what did not wait in a batch.
        dirty: whether there is anything in it.
        into: where the step goes when it is done.
        total: this layer's own sum over steps, where steps are not kept.
        steps: float16 `[images, n, words]` each.
    """

    grid: Grid
    area: Area
    layer: int | None
    now: Tensor
    into: GridSums
    total: Tensor | None
    dirty: bool = False
    step_terms: int = 0
    steps: list[Tensor] = field(default_factory=list)
