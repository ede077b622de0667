"""What the nodes hand to each other, and ComfyUI's pictures and masks as the core wants them, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from comfy_api.latest import io
from numpy.typing import NDArray
from torch import Tensor

from ..daam_core.errors import BadArgument
from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.opencv import cv2

T = TypeVar("T")
Picture = NDArray[np.uint8]
MapsHandle = tuple[HeatMaps, ...]
"""One recording: the maps of each picture of a batch."""
MAPS = io.Custom("DAAM_LENS_MAPS")
GROUND = 34
"""Grey of the ground that heat is painted on where no picture is known."""


def hidden(node: Any, name: str) -> Any:
    """A hidden input of a node that is being executed ("prompt", "unique_id"), None where nobody gave it."""
    return getattr(getattr(node, "hidden", None), name, None)


def coloured(image: Tensor) -> Tensor:
    """IMAGE `[pictures, H, W, 3 or 4]`, or of one channel, which is grey -> the same in three, `[pictures, H, W, 3]`."""
    return image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(*image.shape[:-1], 3)


def pictures_of(image: Tensor) -> list[Picture]:
    """IMAGE 0..1 -> uint8 `[H, W, 3]` each, see `coloured`."""
    values = (coloured(image).detach().float().cpu().nan_to_num().clamp(0, 1) * 255).round()
    return [one.numpy().astype(np.uint8) for one in values]


def image_of(pictures: Iterable[Picture], count: int | None = None) -> Tensor:
    """uint8 `[H, W, 3]` each -> IMAGE `[pictures, H, W, 3]` float32 0..1; smaller ones stand in the middle of the largest.

    With their `count`, and all of one size, no more than one of them is held beside the IMAGE.
    """
    if count is None:
        pictures = list(pictures)
        count = len(pictures)
    out = torch.empty(0)
    others: list[tuple[int, Picture]] = []
    for i, picture in enumerate(pictures):
        if i == 0:
            out = torch.empty(count, *picture.shape)
        if tuple(out.shape[1:3]) == picture.shape[:2]:
            torch.div(torch.from_numpy(np.array(picture)), 255, out=out[i])
        else:
            others.append((i, picture))
    return _of_several_sizes(out, others) if others else out


def _of_several_sizes(out: Tensor, others: Sequence[tuple[int, Picture]]) -> Tensor:
    height = max(out.shape[1], *(picture.shape[0] for _, picture in others))
    width = max(out.shape[2], *(picture.shape[1] for _, picture in others))
    whole = torch.full((len(out), height, width, 3), GROUND / 255)
    placed = dict(others)
    for i in range(len(out)):
        one = torch.from_numpy(placed[i].copy()).float() / 255 if i in placed else out[i]
        top, left = (height - one.shape[0]) // 2, (width - one.shape[1]) // 2
        whole[i, top : top + one.shape[0], left : left + one.shape[1]] = one
    return whole


def with_pictures(handle: MapsHandle, image: Tensor | None, of_video: bool = False) -> MapsHandle:
    """The same maps, knowing the finished pictures (and their size); a single picture serves all. Of videos the batch holds the
    frames, those of one video after those of the other.

    Args:
        of_video: the maps are of a video, though they may have no frames; its frame in the middle is their picture then.

    Raises:
        BadArgument: there are neither one nor as many pictures, or the frames are not those that a video of so many latent
            frames has.
    """
    if image is None:
        return handle
    if len(image) > len(handle) and any(maps.num_frames > 1 for maps in handle):
        return _with_videos(handle, image)
    if of_video and len(image) > len(handle) and len(image) % len(handle) == 0:
        each = len(image) // len(handle)
        image = image[each // 2 :: each]
    return tuple(
        dataclasses.replace(maps, picture=picture, size=(picture.shape[0], picture.shape[1]))
        for maps, picture in zip(handle, as_many(pictures_of(image), len(handle), "picture(s)"), strict=True)
    )


def _with_videos(handle: MapsHandle, image: Tensor) -> MapsHandle:
    each, rest = divmod(len(image), len(handle))
    if rest or any(maps.frames is not None and maps.frames.ratio(each) is None for maps in handle):
        latents = " and ".join(str(maps.num_frames if maps.frames is None else maps.frames.latents) for maps in handle)
        raise BadArgument(
            f"{len(image)} pictures are not the frames of {len(handle)} video(s) of {latents} latent frames. Connect the "
            "frames as VAE Decode gives them."
        )
    videos = [image[i * each : (i + 1) * each] for i in range(len(handle))]
    return tuple(maps.with_video(np.stack(pictures_of(video))) for maps, video in zip(handle, videos, strict=True))


def frames_shown(maps: HeatMaps) -> int:
    """How many pictures show these maps: of a video the video's frames where it is known, else its maps' own."""
    return maps.num_frames if maps.video is None or maps.num_frames == 1 else len(maps.video)


def grounds(maps: HeatMaps) -> list[Picture]:
    """The frames of a video, or an even ground for each frame of its maps; of a picture itself alone."""
    if maps.num_frames == 1:
        return [ground(maps)]
    return [ground(maps)] * maps.num_frames if maps.video is None else list(maps.video)


def ground(maps: HeatMaps) -> Picture:
    """The picture itself (of a video the frame in its middle), or an even ground of its size."""
    return np.full((*maps.size, 3), GROUND, np.uint8) if maps.picture is None else maps.picture


def mask_batch(masks: Sequence[Tensor]) -> Tensor:
    """Masks `[H, W]`, bool or 0..1 -> MASK `[masks, H, W]` float32 of the first one's size."""
    size = tuple(masks[0].shape)
    return torch.stack([mask.float() if tuple(mask.shape) == size else resized(mask.float(), size) for mask in masks])


def resized(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map or mask `[h, w]` at another (height, width), float32."""
    values = mask.detach().float().cpu().numpy()
    return torch.from_numpy(cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))


def as_many(given: Sequence[T], count: int, what: str) -> Sequence[T]:
    """One of `given` for each of `count` recordings; a single one serves all.

    Raises:
        BadArgument: there are others, and nobody can say which belong together.
    """
    if len(given) not in (1, count):
        raise BadArgument(
            f"{len(given)} {what} and {count} recorded picture(s): nobody can say which belong together. Connect those of the "
            "same latent, as many as it has, or a single one for all. Latent From Batch and Image From Batch take the same out "
            "of both."
        )
    return list(given) * count if len(given) == 1 else given
