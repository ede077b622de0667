"""The frames of the videos that a pipeline gave out, and whether the recorded latent frames are those of the whole video."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..maps.film import LARGEST_VIDEO
from ..maps.frames import Frames
from ..maps.heatmaps import HeatMaps
from ..maps.subset import between_references, over_frames
from ..types import Video
from .outputs import pictures_of

logger = logging.getLogger("daam_lens")
REFERENCES = "frames of references"
REFERENCES_BEHIND = "frames of references behind"
_PACKED = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor")
"""What pipelines call the number of frames that their autoencoder packs into a latent one."""


def output_videos(output: Any, given: Mapping[str, Any]) -> list[Video | None]:
    """The videos of a pipeline's output, uint8 `[frames, H, W, 3]` each, whatever its `output_type` was; None for one that is
    larger than a recording holds. Nothing for pictures and latents."""
    frames = pictures_of(output)
    if frames is None or given.get("output_type") == "latent":
        return []
    if isinstance(frames, (np.ndarray, Tensor)):
        return [_of_array(one) for one in frames] if frames.ndim == 5 else []
    if isinstance(frames, list) and frames and isinstance(frames[0], list):
        return [_of_pictures(one) for one in frames]
    return []


def with_its_video(maps: HeatMaps, video: Video | None, given: Mapping[str, Any], pipe: Any) -> HeatMaps:
    """The maps of a video over its frames; the mean over them where they are those of a part and not of the whole video.

    Args:
        video: as `output_videos` gives it, where there is one.
        given: the arguments of the pipeline's call, and under `REFERENCES` and `REFERENCES_BEHIND` what `reference_frames` and
            `references_behind` say of it.
    """
    if maps.frames is None:
        return maps
    # Without a video it is told by how many frames were asked for, and those ahead may be some of them.
    whole = video is None and whole_video(maps.frames, None, given, pipe)
    ahead, behind = (int(given.get(name, 0)) for name in (REFERENCES, REFERENCES_BEHIND))
    if ahead or behind:
        maps = maps.each_side(lambda side: between_references(side, ahead, behind))
    middle = None if video is None else video[len(video) // 2]
    if maps.frames is not None and not whole and not whole_video(maps.frames, video, given, pipe):
        logger.warning(
            "DAAM Lens: the model was shown %d latent frames at a time, which are not the whole video, so there is one map of "
            "them: the mean over the frames.",
            maps.frames.latents,
        )
        maps = maps.each_side(over_frames)
    if video is None or middle is None:
        return maps
    return maps.with_video(video) if maps.num_frames > 1 else maps.with_picture(middle)


def _of_array(one: Any) -> Video | None:
    values = one.detach().float().cpu().permute(0, 2, 3, 1).numpy() if isinstance(one, Tensor) else np.asarray(one)
    if values.shape[-1] != 3 or np.prod(values.shape[:3]) > LARGEST_VIDEO:
        return None
    if values.dtype == np.uint8:
        return values.copy()
    # Frame by frame: the numbers of a whole video would be there twice.
    return np.stack([(np.nan_to_num(frame).clip(0, 1) * 255).round().astype(np.uint8) for frame in values])


def _of_pictures(one: Any) -> Video | None:
    if not one or not all(isinstance(frame, Image.Image) and frame.size == one[0].size for frame in one):
        return None
    if len(one) * one[0].width * one[0].height > LARGEST_VIDEO:
        return None
    return np.stack([np.asarray(frame.convert("RGB")) for frame in one])


def whole_video(frames: Frames, video: Video | None, given: Mapping[str, Any], pipe: Any) -> bool:
    """Whether the recorded latent frames can be those of the whole video that a call made.

    Pipelines that make long videos of shorter ones show the model one part after the other as if each were the whole. By the
    number of frames of the video, or that it was asked for, and by how many of them the autoencoder packs into a latent one.
    """
    packed = next((int(getattr(pipe, name)) for name in _PACKED if isinstance(getattr(pipe, name, None), int)), None)
    together = _patch(getattr(pipe, "transformer", None))
    if video is not None:
        ratio = frames.ratio(len(video))
        return ratio is not None and (packed is None or ratio == packed * together)
    asked = given.get("num_frames")
    if packed is None or not isinstance(asked, int):
        return True
    return -(-((asked - 1) // packed + 1) // together) == frames.latents


def reference_frames(given: Mapping[str, Any], pipe: Any) -> int:
    """Latent frames ahead of a video that its pipeline cuts off when all steps are done: references (VACE), or the picture that
    the video starts from (HunyuanVideo)."""
    if type(pipe).__name__ == "HunyuanVideoImageToVideoPipeline":
        return int(getattr(pipe.transformer.config, "image_condition_type", None) == "latent_concat")
    seen = given.get("reference_images")
    if seen is None or not type(pipe).__name__.startswith("WanVACE"):
        return 0
    first = seen[0] if isinstance(seen, (list, tuple)) and seen and isinstance(seen[0], (list, tuple)) else seen
    return len(first) if isinstance(first, (list, tuple)) else 1


def references_behind(given: Mapping[str, Any], pipe: Any) -> int:
    """Latent frames behind a video that its pipeline cuts off when all steps are done: the picture that the video ends with."""
    ends = type(pipe).__name__ == "SkyReelsV2DiffusionForcingImageToVideoPipeline"
    return int(ends and given.get("last_image") is not None)


def _patch(model: Any) -> int:
    """Latent frames that a transformer takes as one."""
    config = getattr(model, "config", None)
    if isinstance(own := getattr(config, "patch_size_t", None), int):
        return own
    sizes = getattr(config, "patch_size", None)
    return int(sizes[0]) if isinstance(sizes, (list, tuple)) and len(sizes) == 3 else 1
