"""What makes masks of `HeatMaps`.

The examples are about the recording of `heatmaps`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec

import numpy as np
import PIL.Image
from torch import Tensor

from ..attention.upsample import bicubic
from ..defaults import DEFAULT_TAU
from ..errors import BadArgument
from ..masks.methods import MaskInputs, MaskResult, make_mask
from ..masks.propagate import affinity_attention
from ..masks.validate import checked_size
from ..masks.video import VideoInputs, make_video_mask
from ..opencv import cv2
from ..picture_files import picture_pixels
from ..prompt.prompt import Word
from ..prompt.search import several
from ..types import Grid, Image, Size
from .film import checked_video
from .frames import at_frames
from .queries import WordQueries
from .word_maps import check_amount, checked_count, upscaled

P = ParamSpec("P")


def _mask_of(result: Callable[Concatenate[Any, P], MaskResult]) -> Callable[Concatenate[Any, P], Tensor]:
    """A method with the arguments and the text of `result` that gives its mask alone."""

    @functools.wraps(result)
    def mask(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        return result(self, *args, **kwargs).mask

    return mask


class MaskVerbs(WordQueries):
    """Masks of the words of `HeatMaps`."""

    def mask_result(
        self,
        query: str | Word,
        method: str = "best",
        *,
        tau: float = DEFAULT_TAU,
        image: Image | PIL.Image.Image | None = None,
        competitors: Sequence[str] | None = None,
        size: Size | None = None,
        frames: int | None = None,
    ) -> MaskResult:
        """The mask of one word or phrase, and the name of the method that made it: a simpler one where the mask would
        contradict its map. `maps.mask` takes the same and gives the mask alone.

        Args:
            query: word or phrase.
            method: "best" (the product's default), "threshold" (Eq. 7: `D >= tau * max D`), "late", "otsu", "compete",
                "walk", "guided" or "grabcut"; see `MASK_METHODS`.
            tau: level as a share of the maximum, 0..1 (not used by "best" and "otsu").
            image: picture to snap to, uint8 `[H, W, 3]` or Pillow's; the recorded one by default. Of a video uint8
                `[frames, H, W, 3]`.
            competitors: the words it competes with; by default the last word of each other noun group of the prompt.
            size: (height, width) of the mask; the picture's by default.
            frames: of a video, how many frames the mask is to have, such as `len(maps.video)`; the maps' own by default.

        Returns:
            `MaskResult`; its mask is bool `[H, W]`. Of a video `[frames, H, W]`: one level for all frames, so that they show
            the same object, and the edge by each frame's picture; see `masks.video`.

        Raises:
            WordNotFound: the prompt has no such word.
            BadArgument: no such method, or tau outside 0..1.
            DetailMissing: the method needs the picture, or self-attention or in its place output space, and the recording has
                none.

        Example:
            >>> result = maps.mask_result("house", "threshold", tau=0.5)
            >>> result.method
            'threshold'
            >>> mask = maps.mask("house", "threshold", tau=0.5)
            >>> mask.dtype, tuple(mask.shape)
            (torch.bool, (32, 64))
            >>> heat = maps.heat_map("house", maps.size)
            >>> bool((mask == (heat >= 0.5 * heat.max())).all())
            True
        """
        names = [query, *(self.competitors(query) if competitors is None else several(competitors))]
        frames = checked_count(frames)
        size = None if size is None else checked_size(size)
        if self.num_frames > 1 or frames is not None:
            return make_video_mask(self._video_inputs(names, image, size, frames), method, tau)
        picture = self.picture if image is None else picture_pixels(image)
        if picture is not None and size is not None and picture.shape[:2] != tuple(size):
            picture = cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA).astype(np.uint8)
        if size is None:
            size = self.size if picture is None else (picture.shape[0], picture.shape[1])
        return make_mask(self.mask_inputs(names, picture, size), method, tau)

    mask = _mask_of(mask_result)
    """The mask of `mask_result` alone, bool `[H, W]`; the same arguments."""

    def _video_inputs(self, names: Sequence[str | Word], video: Any, size: Size | None, count: int | None) -> VideoInputs:
        """What the mask methods are given of a video."""
        if count == self.num_frames:
            count = None  # the maps' own
        shown = count or self.num_frames
        late = upscaled(self._levels("time_weighted", names), self.grid, self.frames, count)
        assert self.frames is not None  # a picture was refused
        if video is not None:
            video = checked_video(video)
            if len(video) != shown:
                raise BadArgument(f"The mask has {shown} frames, and {len(video)} pictures were given to snap to.")
        elif self.video is not None and len(self.video) == shown:
            video = self.video
        elif self.video is not None and count is None:
            video = self.video[[round(at) for at in self.frames.places(len(self.video))]]
        if size is None:
            size = self.size if video is None else (video.shape[1], video.shape[2])
        check_amount(len(names), shown, size)
        if video is not None and video.shape[1:3] != tuple(size):
            video = np.stack([cv2.resize(one, (size[1], size[0]), interpolation=cv2.INTER_AREA) for one in video])
        levels = self._levels("sums", names)
        if count is not None:
            levels = [at_frames(level, self.frames, count) for level in levels]
        return VideoInputs(levels, late, self._across_frames() if count is None else None, video, size)

    def _across_frames(self) -> tuple[Grid, Tensor] | None:
        """The attention of all frames to all frames, where it was recorded."""
        return next(iter(self.self_attention.items())) if self.self_attention else None

    def mask_inputs(self, names: Sequence[str | Word], picture: Image | None, size: Size) -> MaskInputs:
        """What the mask methods are given: of the word itself (the first of `names`) and of those it may compete with."""
        late = bicubic(self._levels("time_weighted", names), self.grid)
        return MaskInputs(self._levels("sums", names), late, self._links(), picture, size)

    def _links(self) -> tuple[Grid, Tensor] | None:
        """What heat walks along: self-attention, else the affinity of the attention's outputs."""
        if self.self_attention:
            return next(iter(self.self_attention.items()))
        if self.output is None or not self.output.affinity:
            return None
        grid, affinity = next(iter(self.output.affinity.items()))
        return grid, affinity_attention(affinity)
