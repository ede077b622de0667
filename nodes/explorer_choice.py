"""What an explorer asks of one picture's maps; what is missing there is said with the node and the input to set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..daam_core.errors import DetailMissing, quoted
from ..daam_core.explorer.page_data import Axis, PageData, detail_data
from ..daam_core.explorer.selection import Choice, choice_mask, read_choice, united_pixels
from ..daam_core.maps.heatmaps import HeatMaps
from .mask import method_needs


def mask_of(maps: HeatMaps, choice: Choice) -> Tensor:
    """See `choice_mask`."""
    with _said_for_nodes(maps, choice):
        return choice_mask(maps, choice)


def pixels_of(maps: HeatMaps, text: str) -> NDArray[np.uint8]:
    """See `united_pixels`."""
    with _said_for_nodes(maps, read_choice(text)):
        return united_pixels(maps, text)


def detail_of(maps: HeatMaps, axis: Axis) -> PageData:
    """See `detail_data`."""
    _check_kept(maps, axis)
    return detail_data(maps, axis)


@contextmanager
def _said_for_nodes(maps: HeatMaps, choice: Choice) -> Iterator[None]:
    if choice.part is not None:
        _check_kept(maps, choice.part[0])
    try:
        yield
    except DetailMissing as error:
        method = choice.settings.method
        lacking = method == "walk" or (method in ("guided", "grabcut") and maps.picture is None)
        raise DetailMissing(method_needs(method) if lacking else str(error)) from error


def _check_kept(maps: HeatMaps, axis: Axis) -> None:
    """Raises DetailMissing: steps or layers were not kept apart."""
    detail = maps.detail
    kept = detail is not None and (detail.by_step if axis == "steps" else any(detail.layers.values()))
    if axis != "frames" and not kept:
        also = "layers + steps" if detail is not None else axis
        raise DetailMissing(
            f"The {axis} were not kept apart. Set `detail` to {quoted(also)} in the Record Attention node and queue again."
        )
