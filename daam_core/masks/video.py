"""Masks of a video's words: one decision for all of its frames, so that they show the same object.

The steps are those of `methods`, and what makes a mask of frames is this:

1. *Level.* Frames are laid below each other as one tall picture: the maximum of Eq. 7, Otsu's level, the rivals and the
   competition are those of the whole video. A frame in which the word has little heat has a small mask, or none.
2. *Propagation* along the video's attention to itself, across frames, where that was recorded at all frames.
3. "best" without it, or with cells that are too coarse, takes heat that is smoothed over neighbouring frames (1, 2, 1). It lets
   a frame whose own peak is at least `FAINTEST` of the video's be as bright as the brightest.
4. *Edge.* Each frame is snapped to its own picture.
5. Of "best", a part that stands in one frame alone, with nothing near it in the frames before and after, is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.upsample import bicubic
from ..defaults import DEFAULT_TAU
from ..errors import DetailMissing
from ..opencv import cv2
from ..types import Grid, Size
from .figure_ground import DEFAULT, SIDE, separate_figure
from .grabcut import snap_grabcut
from .guided_filter import snap_guided
from .methods import Heat, MaskMethod, MaskResult, asked_method, first_believed
from .propagate import propagated
from .resize import resized, working_picture
from .rivals import rivals
from .threshold import compete, minmax, stretched

FAINTEST = 0.5
"""A frame with less than this share of the video's peak is taken for one without the object."""

LEAST_CELLS = 100
"""Of a frame, in self-attention that the default propagates along."""


@dataclass(frozen=True)
class VideoInputs:
    """What is known of a word and the words it may have to share a video with; the word itself is first.

    Attributes:
        levels: float32 `[words, frames, h, w]` for each recorded resolution, Eq. 6 before upscaling.
        time_weighted: float32 `[words, frames, h, w]` at native size, step j weighted by j squared.
        self_attention: grid (h, w) and float32 `[n, n]` (query, key) of all frames one after the other, n = frames * h * w,
            where recorded.
        pictures: uint8 `[frames, H, W, 3]`, where known.
        size: (height, width) of the mask.
    """

    levels: Sequence[Tensor]
    time_weighted: Tensor
    self_attention: tuple[Grid, Tensor] | None
    pictures: npt.NDArray[np.uint8] | None
    size: Size

    @property
    def frames(self) -> int:
        return int(self.time_weighted.shape[1])

    @property
    def has_fine_attention(self) -> bool:
        """Whether there is self-attention of cells that are small enough for the default: it loses what they cannot show."""
        return self.self_attention is not None and self.self_attention[0][0] * self.self_attention[0][1] >= LEAST_CELLS

    @cached_property
    def maps(self) -> Tensor:
        """float32 `[words, frames, H, W]`, Eq. 6 at the size of the mask."""
        return self._upscaled(self.size)

    def native(self, heat: Heat) -> Tensor:
        """float32 `[words, frames, h, w]` at the finest recorded grid."""
        h, w = self.time_weighted.shape[-2:]
        return self.time_weighted if heat == "late" else self._upscaled((int(h), int(w)))

    def _upscaled(self, size: Size) -> Tensor:
        return bicubic([level.flatten(0, 1) for level in self.levels], size).unflatten(0, (-1, self.frames))


def make_video_mask(inputs: VideoInputs, method: str = "best", tau: float = DEFAULT_TAU) -> MaskResult:
    """The mask of the first word of a video by a named method: bool `[frames, H, W]`; see `make_mask`.

    Raises:
        BadArgument: an unknown method (the text lists those that are), or tau outside 0..1.
        DetailMissing: the method needs the frames' pictures or self-attention, and the recording has none.
    """
    asked = asked_method(method, tau, inputs.has_fine_attention, inputs.pictures is not None)
    return first_believed(
        asked,
        method,
        lambda one: _mask(inputs, one, tau),
        lambda one, mask: one.believed(_tall(mask), _tall(inputs.maps[0])),
    )


def _mask(inputs: VideoInputs, method: MaskMethod, tau: float) -> Tensor | None:
    """bool `[frames, H, W]` by this method and no other; None where self-attention was to be used and says nothing."""
    if method.edge != "none" and inputs.pictures is None:
        raise DetailMissing(
            f"This method snaps to each frame's picture, and those of {inputs.frames} frames are not known: ask for as many "
            "frames as the video has; where the recording holds no video, `with_video` gives them."
        )
    heat = _heat(inputs, method)
    if heat is None:
        return None
    heat = heat[[0, *rivals(_tall(heat), 0)]]
    if method.decision == "figure":
        return _figures(heat, inputs, method)
    words, frames = heat.shape[:2]
    heat = resized(heat.flatten(0, 1), inputs.size).unflatten(0, (words, frames))
    if inputs.pictures is None or method.edge == "none":
        return _frames(method.decided(_tall(heat), tau), frames)
    if method.edge == "guided":
        scaled = heat if words == 1 else _frames(stretched(_tall(heat)), frames)
        snapped = [snap_guided(scaled[:, f], picture) for f, picture in enumerate(inputs.pictures)]
        return _frames(method.decided(_tall(torch.stack(snapped, 1)), tau), frames)
    where = _frames(method.decided(_tall(heat), tau), frames)
    cuts = [snap_grabcut(heat[:1, f], p, where=where[f][None])[0] for f, p in enumerate(inputs.pictures)]
    return torch.stack(cuts)


def _heat(inputs: VideoInputs, method: MaskMethod) -> Tensor | None:
    """float32 `[words, frames, h, w]`, propagated where the method wants it."""
    native = inputs.maps if method.is_equation_6 and method.decision != "figure" else inputs.native(method.heat)
    if not method.walks:
        return _smoothed(native) if method.decision == "figure" else native
    if inputs.self_attention is None:
        raise DetailMissing(
            f"The video's attention to itself across frames was not recorded of these {inputs.frames} frames: take the method "
            "'late' or 'best', or the recorded frames."
        )
    (h, w), attention = inputs.self_attention
    pooled = F.adaptive_avg_pool2d(native, (h, w)) if native.shape[-2:] != (h, w) else native
    walked = propagated(_tall(pooled), attention, (inputs.frames * h, w), method.walks)
    return None if walked is None else _frames(walked, inputs.frames)


def _smoothed(heat: Tensor) -> Tensor:
    """Each frame with its neighbours, 1, 2, 1; the first and the last stand for what is beyond them."""
    before, after = torch.cat([heat[:, :1], heat[:, :-1]], 1), torch.cat([heat[:, 1:], heat[:, -1:]], 1)
    return (before + 2 * heat + after) / 4


def _figures(heat: Tensor, inputs: VideoInputs, method: MaskMethod) -> Tensor:
    """Figure and ground told apart in each frame, by heat `[words, frames, h, w]` on one scale: bool `[frames, H, W]`."""
    words, frames = heat.shape[:2]
    shared = _frames(minmax(_tall(heat)), frames)
    shared = shared / shared.amax((-1, -2), keepdim=True).clamp(min=FAINTEST)
    if not bool((shared[0] > 0).any()):
        return torch.zeros(frames, *inputs.size, dtype=torch.bool)
    working = inputs.size if inputs.pictures is None else working_picture(inputs.pictures[0], SIDE).shape[:2]
    fitted = resized(shared.flatten(0, 1), (working[0], working[1])).clamp(0, 1).unflatten(0, (words, frames)).cpu()
    plain = _frames(compete(_tall(fitted), DEFAULT.level), frames)
    if inputs.pictures is None:
        return plain[0]
    masks = torch.zeros(frames, *inputs.size, dtype=torch.bool)
    for f, picture in enumerate(inputs.pictures):
        if bool(plain[0, f].any()):
            small, heat = working_picture(picture, SIDE), fitted[:, f]
            mask = separate_figure(heat, heat, [plain[:, f].numpy()], picture, small, DEFAULT, method.edge == "grabcut")
            masks[f] = mask if mask.shape == inputs.size else resized(mask[None].float(), inputs.size)[0] >= 0.5
    return without_lone_parts(masks, max(inputs.size[0] // heat.shape[-2], inputs.size[1] // heat.shape[-1]))


def without_lone_parts(masks: Tensor, reach: int) -> Tensor:
    """bool `[frames, H, W]` without the parts that stand in one frame alone: farther than `reach` pixels from everything in the
    frame before and the frame after. A mask that has no other parts stays."""
    if len(masks) < 3:
        return masks
    found = masks.numpy().astype(np.uint8)
    near = [cv2.dilate(one, np.ones((2 * reach + 1,) * 2, np.uint8)) for one in found]
    kept = found.copy()
    for f, one in enumerate(found):
        beside = [near[g] for g in (f - 1, f + 1) if 0 <= g < len(found)]
        count, labels = cv2.connectedComponents(one, connectivity=8)
        touched = np.zeros(count, bool)
        touched[np.unique(labels[np.any(beside, 0)])] = True
        kept[f] &= touched[labels]
    return torch.from_numpy(kept.astype(bool)) if kept.any() else masks


def _tall(x: Tensor) -> Tensor:
    """`[…, frames, h, w]` -> `[…, frames * h, w]`, frames below each other."""
    return x.flatten(-3, -2)


def _frames(x: Tensor, frames: int) -> Tensor:
    """The inverse of `_tall`."""
    return x.unflatten(-2, (frames, -1))
