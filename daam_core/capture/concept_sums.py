"""Running sums of each picture's attention to concepts that are not in the prompt, and the record that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.upsample import bicubic
from ..errors import NothingRecorded, WordNotFound
from ..maps.data import LayerInfo, RecordedImage
from ..prompt.concepts import concept_prompt
from ..prompt.prompt import Prompt
from ..types import Grid, Layer
from .concept_texts import ConceptTexts
from .region import Area

PRESENCE_POWER = 8
"""Step j counts `j ** 8` for the presence: only when the noise is nearly gone do the heads tell things apart."""
HOTTEST = 0.03
"""The share of places whose mean is the peak of a presence."""


@dataclass(eq=False)
class GridConceptSums:
    """One resolution of one picture, float32; its first axis is the map and the presence.

    Attributes:
        now: `[2, n, concepts]`, what was added in this step.
        both: `[2, 2, n, concepts]`: `total` of all finished steps, and `late`, the same with step j weighted by j squared in
            the map and by `j ** PRESENCE_POWER` in the presence.
        dirty: whether anything was added to `now`.
        step_terms, num_terms: heads and layers of this step, and of the finished ones.
    """

    grid: Grid
    area: Area
    now: Tensor
    both: Tensor
    dirty: bool = False
    step_terms: int = 0
    num_terms: int = 0

    @classmethod
    def zeros(cls, grid: Grid, area: Area, concepts: int, device: torch.device) -> GridConceptSums:
        """Nothing yet. Places lie side by side in memory: whatever is added runs along them."""
        shape = (2, concepts, grid[0] * grid[1])
        now, both = torch.zeros(shape, device=device), torch.zeros(2, *shape, device=device)
        return cls(grid, area, now.transpose(1, 2), both.transpose(2, 3))

    @property
    def total(self) -> Tensor:
        """`[2, n, concepts]`."""
        return self.both[0]

    @property
    def late(self) -> Tensor:
        """`[2, n, concepts]`."""
        return self.both[1]


class ConceptSums:
    """What is recorded of concepts while the pictures of one side are made.

    Args:
        texts: the concepts, encoded.

    Attributes:
        prompts: the words of each picture, by its number; a concept among them has its own map already.
        step_count: finished steps.
    """

    def __init__(self, texts: ConceptTexts) -> None:
        self.texts = texts
        self.prompts: dict[int, Prompt] = {}
        self.sums: dict[int, dict[tuple[Grid, Area], GridConceptSums]] = {}
        self.layers: dict[int, Grid] = {}
        self.step_count = 0

    def place(self, image: int, grid: Grid, area: Area, device: torch.device) -> GridConceptSums:
        """The sums of a picture at one resolution."""
        own, key = self.sums.setdefault(image, {}), (grid, area)
        if key not in own:
            own[key] = GridConceptSums.zeros(grid, area, self.texts.num_concepts, device)
        return own[key]

    def prompts_of(self, image: int) -> list[Prompt]:
        """Every prompt of a picture."""
        return [self.prompts[image]] if image in self.prompts else []

    def end_step(self, number: int) -> None:
        """Step `number`, from 1, is over."""
        self.step_count += 1
        for sums in (sums for image in self.sums.values() for sums in image.values()):
            if sums.dirty:
                for into, power in zip(sums.both.unbind(1), (2, PRESENCE_POWER), strict=True):
                    now = sums.now[0 if power == 2 else 1]
                    into[0] += now
                    into[1].add_(now, alpha=float(number) ** power)
                sums.now.zero_()
                sums.dirty = False
            sums.num_terms, sums.step_terms = sums.num_terms + sums.step_terms, 0

    def release(self) -> None:
        """Let go of the model."""

    def finish(self, image: int, layers: Sequence[Layer], timesteps: Sequence[float]) -> RecordedImage | None:
        """The concepts of one picture that its prompt does not hold, on the CPU; None where it holds all of them.

        Raises:
            NothingRecorded: not one step was finished, or the attention was not finite.
        """
        told = self.prompts_of(image)
        concepts = [c for c, one in enumerate(self.texts.concepts) if not any(_holds(prompt, one.label) for prompt in told)]
        if not concepts:
            return None
        if not self.step_count or not self.sums.get(image):
            raise NothingRecorded(
                "Not one sampling step was finished, so there is no map of a concept. Let the sampler run on."
            )
        sums: dict[Grid, Tensor] = {}
        late: dict[Grid, Tensor] = {}
        presence: dict[Grid, Tensor] = {}
        terms: dict[Grid, int] = {}
        for one in self.sums[image].values():
            grid = one.area.canvas(one.grid)
            total, weighted = (one.area.put(_planes(x[:, :, concepts], one.grid), image) for x in (one.total, one.late))
            sums[grid] = sums.get(grid, 0) + _with_specials(total[0])
            late[grid] = late.get(grid, 0) + _with_specials(weighted[0])
            presence[grid] = presence.get(grid, 0) + weighted[1]
            terms[grid] = terms.get(grid, 0) + one.num_terms
        if not all(bool(x.isfinite().all()) for x in (*sums.values(), *presence.values())):
            raise NothingRecorded("The model's attention to the concepts was not a number (NaN) in this run.")
        return RecordedImage(
            sums=sums,
            time_weighted=late,
            num_terms=terms,
            layers=tuple(
                LayerInfo(layers[i].name, g, layers[i].heads, layers[i].block) for i, g in sorted(self.layers.items())
            ),
            detail=None,
            heads=None,
            self_attention=None,
            prompt=concept_prompt([self.texts.concepts[c] for c in concepts]),
            steps=self.step_count,
            timesteps=tuple(timesteps),
            presence=tuple(standing_out(presence)),
        )


def standing_out(presence: dict[Grid, Tensor]) -> list[float]:
    """How far the hottest places of each concept among its rivals stand out: `1 - mean / mean of the hottest 3 %`, 0 for an
    even map.

    Args:
        presence: per grid, `[concepts, h, w]`, see `attention.concepts.add_fractions`, late steps weighing more.
    """
    finest = max(presence, key=lambda grid: grid[0] * grid[1])
    # Products of small numbers: brought to a common scale before they are brought to a common size.
    scale = max(float(x.amax()) for x in presence.values()) or 1.0
    maps = bicubic([x / scale for x in presence.values()], finest).clamp(min=0).flatten(1)
    peak = maps.topk(max(1, int(HOTTEST * maps.shape[1])), 1).values.mean(1)
    found = torch.where(peak > 0, 1 - maps.mean(1) / peak.clamp(min=torch.finfo(maps.dtype).tiny), 0.0)
    return [float(x) for x in found.clamp(0, 1)]


def _holds(prompt: Prompt, label: str) -> bool:
    try:
        prompt.find(label)
    except WordNotFound:
        return False
    return True


def _planes(x: Tensor, grid: Grid) -> Tensor:
    """`[2, n, concepts]` on the device -> `[2, concepts, h, w]` on the CPU."""
    return x.transpose(1, 2).unflatten(-1, grid).contiguous().cpu()


def _with_specials(maps: Tensor) -> Tensor:
    """Channels of start, end and padding, which a concept has none of, around `[concepts, h, w]`."""
    return torch.nn.functional.pad(maps, (0, 0, 0, 0, 1, 2))
