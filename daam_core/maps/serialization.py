"""A recording as named tensors and a JSON header, and back: what `records` writes and reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import BadRecord
from ..prompt.prompt import Prompt
from ..types import Grid
from .data import Detail, LayerInfo, RecordedImage

LARGEST_PICTURE = 2**27
"""Pixels of the largest picture a record may hold (11585 x 11585)."""

Packed = tuple[dict[str, Tensor], dict[str, Any]]


def pack(image: RecordedImage) -> Packed:
    """A recording -> (tensors by name, JSON-able header)."""
    tensors: dict[str, Tensor] = {}
    for part, by_grid in (("sums", image.sums), ("late", image.time_weighted)):
        tensors |= {f"{part}/{_name(g)}": x for g, x in by_grid.items()}
    if image.detail is not None:
        tensors |= {f"detail/{_name(g)}": x for g, x in image.detail.values.items()}
    for i, x in (image.heads or {}).items():
        tensors[f"heads/{i}"] = x
    tensors |= {f"self/{_name(g)}": x for g, x in (image.self_attention or {}).items()}
    if image.picture is not None:
        tensors["picture/png"] = _to_png(image.picture)
    header = {
        "prompt": image.prompt.to_dict(),
        "size": list(image.size),
        "steps": image.steps,
        "timesteps": list(image.timesteps),
        "terms": {_name(g): n for g, n in image.num_terms.items()},
        "layers": [{"name": x.name, "grid": x.grid, "heads": x.heads, "place": x.block} for x in image.layers],
        "detail": None
        if image.detail is None
        else {
            "by_step": image.detail.by_step,
            "layers": {_name(g): list(x) for g, x in image.detail.layers.items()},
        },
    }
    # One tensor may stand for two parts (late = sums after a choice of layers); a file holds each by itself.
    return {name: x.clone() for name, x in tensors.items()}, header


def unpack(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `RecordedImage` out of a record.

    Raises:
        BadRecord: a part is missing or does not fit the others.
    """
    try:
        fields = _fields(tensors, header)
    except (KeyError, OverflowError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadRecord(f"This record's parts do not fit together ({error}); record the picture again.") from error
    _check(fields)
    return fields


def _fields(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> dict[str, Any]:
    detail = header["detail"]
    values = _part(tensors, "detail")
    return {
        "sums": _part(tensors, "sums"),
        "time_weighted": _part(tensors, "late"),
        "num_terms": {_grid(name): int(n) for name, n in header["terms"].items()},
        "layers": tuple(_layer(layer) for layer in header["layers"]),
        "detail": None
        if detail is None
        else Detail(values, {_grid(g): tuple(map(int, x)) for g, x in detail["layers"].items()}, bool(detail["by_step"])),
        "heads": {int(n.split("/")[1]): x for n, x in tensors.items() if n.startswith("heads/")} or None,
        "self_attention": _part(tensors, "self") or None,
        "size": (int(header["size"][0]), int(header["size"][1])),
        "picture": _from_png(tensors["picture/png"]) if "picture/png" in tensors else None,
        "prompt": Prompt.from_dict(header["prompt"]),
        "steps": int(header["steps"]),
        "timesteps": tuple(float(t) for t in header["timesteps"]),
    }


def _check(fields: Mapping[str, Any]) -> None:
    channels = fields["prompt"].num_channels
    for part in ("sums", "time_weighted"):
        if not fields[part]:
            raise BadRecord("This record holds no heat maps; record the picture again.")
        for (h, w), x in fields[part].items():
            if tuple(x.shape) != (channels, h, w) or x.dtype != torch.float32:
                raise BadRecord(f"This record's maps are {tuple(x.shape)} where {(channels, h, w)} was promised.")
    if min(fields["size"]) < 1 or max(fields["size"]) > 65536:
        raise BadRecord(f"This record's picture size {fields['size']} is not one.")
    if any(not 0 <= channel < channels for word in fields["prompt"].words for channel in word.channels):
        raise BadRecord("This record's words point outside its maps; record the picture again.")


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[Grid, Tensor]:
    return {_grid(name.split("/")[1]): x for name, x in tensors.items() if name.startswith(f"{part}/")}


def _name(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"


def _grid(name: str) -> Grid:
    h, w = name.split("x")
    return int(h), int(w)


def _layer(layer: Mapping[str, Any]) -> LayerInfo:
    h, w = layer["grid"]
    return LayerInfo(str(layer["name"]), (int(h), int(w)), int(layer["heads"]), layer["place"])


def _to_png(picture: NDArray[np.uint8]) -> Tensor:
    _, data = cv2.imencode(".png", picture[..., ::-1])
    return torch.from_numpy(data.reshape(-1).copy())


def _from_png(data: Tensor) -> NDArray[np.uint8]:
    raw = data.contiguous().numpy().tobytes()
    # A PNG of a few bytes can promise gigabytes: its own header is believed only up to a size people paint.
    pixels = int.from_bytes(raw[16:20], "big") * int.from_bytes(raw[20:24], "big")
    picture = None
    if raw[:8] == b"\x89PNG\r\n\x1a\n" and 0 < pixels <= LARGEST_PICTURE:
        picture = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise BadRecord("The picture inside this record cannot be read; record it again.")
    return np.ascontiguousarray(picture[..., ::-1]).astype(np.uint8)
