"""One recording, finished: what the model attended to while it made one picture, for one of the picture's two texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..prompt.prompt import Prompt
from ..types import Block, Grid, Side
from .frames import Frames
from .output_space import OutputSpace
from .relations import Relations

Aggregation = Literal["sum", "castorini", "output", "anchor"]
"""Names of `AGGREGATIONS`."""

LIKELY = 0.77
"""From this presence score on a concept is more likely in the picture than not; chosen on the model inside (study `concepts`).
On other models only the order of the scores says something."""


@dataclass(frozen=True)
class LayerInfo:
    """A recorded cross-attention layer: module path, grid (h, w), number of heads, block of the model."""

    name: str
    grid: Grid
    heads: int
    block: Block


@dataclass(frozen=True)
class Detail:
    """Word maps kept apart by step and layer.

    Attributes:
        values: per grid, `[steps, layers, tokens, h, w]` float16 head sums; an axis that was not kept has size 1. Only
            the prompt's own tokens, not start, end and padding.
        layers: per grid, the position in `layers` of each entry of the second axis; empty where layers were not kept.
        by_step: whether the first axis is steps.
    """

    values: Mapping[Grid, Tensor]
    layers: Mapping[Grid, tuple[int, ...]]
    by_step: bool


@dataclass(frozen=True, eq=False)
class RecordedImage:
    """One side (prompt or negative prompt) of one picture; all tensors on the CPU.

    Attributes:
        sums: per grid (h, w), float32 `[channels, h, w]`: sum over heads, layers and steps (Eq. 6 before upscaling). Channels
            are start, the prompt's tokens, end, padding (see `Prompt`).
        time_weighted: the same with step j = 1, 2, … weighted by j squared.
        num_terms: per grid, heads x layers x steps summed; the channels of one position add up to it.
        layers: every recorded layer, in the order of the forward pass.
        detail: layers and steps apart, where kept.
        heads: per layer, float32 `[heads, channels, h, w]` summed over steps, where kept.
        self_attention: per grid, float32 `[n, n]` (query, key), rows sum to 1, where kept; of a video whose frames attend to
            each other, n is that of all frames, one after the other.
        prompt: the words and which channels are theirs.
        steps: calls of the model that were finished.
        timesteps: the timestep of each.
        aggregation: how heads, layers and steps became `sums`, a name of `AGGREGATIONS`.
        specials: whether the channels of start, end and padding are there (a choice of steps or layers has only words).
        relations: what the text attended to, where kept.
        frames: of a video, its frames: where there is more than one, `sums` and `time_weighted` are `[frames, channels, h, w]`,
            and the channels of one position of one frame add up to `num_terms`. Detail and heads are the mean over the frames.
        output: what the attention gave out, held against words and places, where kept.
        presence: of each word of a side of concepts, how much speaks for its being in the picture, 0..1; None of other sides.
        likely: from this presence on a concept is more likely in the picture than not.
    """

    sums: Mapping[Grid, Tensor]
    time_weighted: Mapping[Grid, Tensor]
    num_terms: Mapping[Grid, int]
    layers: tuple[LayerInfo, ...]
    detail: Detail | None
    heads: Mapping[int, Tensor] | None
    self_attention: Mapping[Grid, Tensor] | None
    prompt: Prompt
    steps: int
    timesteps: tuple[float, ...]
    aggregation: Aggregation = "sum"
    specials: bool = True
    relations: Relations | None = None
    presence: tuple[float, ...] | None = None
    likely: float = LIKELY
    frames: Frames | None = None
    output: OutputSpace | None = None

    @property
    def num_frames(self) -> int:
        """How many frames its maps have, 1 for a picture."""
        return 1 if self.frames is None else len(self.frames)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        detail = None if self.detail is None else self.detail.values
        groups = (self.sums, self.time_weighted, self.heads, self.self_attention, detail)
        more = [x for one in (self.relations, self.output) if one is not None for x in one.tensors()]
        tensors = [*more, *(x for group in groups if group for x in group.values())]
        return sum(x.numel() * x.element_size() for x in tensors)  # `nbytes` is not in PyTorch 2.0, which old WebUIs bring


class PromptSide:
    """What `HeatMaps` shows of its prompt's side, under the names of `RecordedImage`."""

    sides: Mapping[Side, RecordedImage]

    @property
    def positive(self) -> RecordedImage:
        """The prompt's side."""
        return self.sides["prompt"]

    @property
    def sums(self) -> Mapping[Grid, Tensor]:
        """Per grid (h, w), float32 `[channels, h, w]`: Eq. 6 before upscaling."""
        return self.positive.sums

    @property
    def time_weighted(self) -> Mapping[Grid, Tensor]:
        """The same with step j = 1, 2, … weighted by j squared."""
        return self.positive.time_weighted

    @property
    def num_terms(self) -> Mapping[Grid, int]:
        """Per grid, heads x layers x steps summed."""
        return self.positive.num_terms

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """Every recorded layer, in the order of the forward pass."""
        return self.positive.layers

    @property
    def detail(self) -> Detail | None:
        """Layers and steps apart, where kept."""
        return self.positive.detail

    @property
    def heads(self) -> Mapping[int, Tensor] | None:
        """Per layer, float32 `[heads, channels, h, w]` summed over steps, where kept."""
        return self.positive.heads

    @property
    def self_attention(self) -> Mapping[Grid, Tensor] | None:
        """Per grid, float32 `[n, n]` (query, key), rows sum to 1, where kept."""
        return self.positive.self_attention

    @property
    def prompt(self) -> Prompt:
        """The words and which channels are theirs."""
        return self.positive.prompt

    @property
    def steps(self) -> int:
        """Calls of the model that were finished."""
        return self.positive.steps

    @property
    def timesteps(self) -> tuple[float, ...]:
        """The timestep of each."""
        return self.positive.timesteps

    @property
    def relations(self) -> Relations | None:
        """What the text attended to, where kept."""
        return self.positive.relations

    @property
    def output(self) -> OutputSpace | None:
        """What the attention gave out, held against words and places, where kept."""
        return self.positive.output

    @property
    def aggregation(self) -> Aggregation:
        """How heads, layers and steps became `sums`, a name of `AGGREGATIONS`."""
        return self.positive.aggregation

    @property
    def frames(self) -> Frames | None:
        """Of a video, the frames of its maps; None for a picture."""
        return self.positive.frames

    @property
    def num_frames(self) -> int:
        """How many frames the maps have, 1 for a picture: more than one are an axis of every map."""
        return self.positive.num_frames

    @property
    def specials(self) -> bool:
        """Whether the channels of start, end and padding are there (a choice of steps or layers has only words)."""
        return self.positive.specials
