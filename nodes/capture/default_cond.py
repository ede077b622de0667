"""Where a default prompt is at work: ComfyUI gives it what the other prompts of its list leave over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...daam_core.capture.region import Area
from ...daam_core.errors import NothingRecorded

Cond = Mapping[str, Any]
AtWork = Callable[[Cond, Tensor, Tensor], Any]
"""(conditioning, latent, timestep) -> what ComfyUI says of it, None where it is not at work; see `area_and_weight`."""


def is_default(cond: Cond) -> bool:
    """Whether a conditioning is for the rest of the picture."""
    return "default" in cond


def area_and_weight(cond: Cond, x: Tensor, timestep: Tensor) -> Any:
    """What ComfyUI says of a conditioning at work: its `area` and its weights `mult` there; None where it is not at work."""
    from comfy.samplers import get_area_and_mult  # everything else of this folder's bookkeeping runs without the host

    return get_area_and_mult(cond, x, timestep)


class DefaultAreas:
    """The areas of default prompts; one value for the same prompts at work, however often they are asked for.

    Args:
        at_work: see `area_and_weight`.
    """

    def __init__(self, at_work: AtWork = area_and_weight) -> None:
        self._at_work = at_work
        self._areas: dict[tuple[Any, ...], Area] = {}

    def area(self, conds: Sequence[Cond], x: Tensor, timestep: Tensor) -> Area:
        """What the prompts at work leave over.

        Args:
            conds: the list that the default prompt is in.
            x: the latent that is predicted, `[images, c, …, h, w]`.
            timestep: of the prediction, as the sampler has it; prompts may be at work in a part of the run.
        """
        others = [cond for cond in conds if not is_default(cond)]
        found = [(cond["uuid"], at) for cond in others if (at := self._at_work(cond, x, timestep)) is not None]
        uuids = tuple(uuid for uuid, _ in found)
        if uuids not in self._areas:
            self._areas[uuids] = Area(mask=_left_over([at for _, at in found], x))
        return self._areas[uuids]


def _left_over(found: Sequence[Any], x: Tensor) -> Tensor:
    """1 less the weights of what was found, not below 0: `[pictures, h, w]`; the weights of all channels are the same."""
    left = torch.ones_like(x)
    for one in found:
        part = left
        if one.area is not None:
            dims = len(one.area) // 2
            for i in range(dims):
                part = part.narrow(i + 2, one.area[dims + i], one.area[i])
        part -= one.mult
    return of_pictures(left.relu_()[:, 0])


def of_pictures(mask: Tensor) -> Tensor:
    """A mask `[h, w]` or `[masks, (frames,) h, w]` as `Area` has it: without frames, and a single one without the others' axis.

    Raises:
        NothingRecorded: the frames of a video have different masks.
    """
    if mask.dim() == 4 and not bool((mask == mask[:, :1]).all()):
        raise NothingRecorded(
            "a prompt has a mask for each frame of the video, and its words are not read frame by frame. Give it one mask "
            "for all frames (ConditioningSetMask with a single mask)"
        )
    mask = mask[:, 0] if mask.dim() == 4 else mask
    return mask[0] if mask.dim() == 3 and len(mask) == 1 else mask
