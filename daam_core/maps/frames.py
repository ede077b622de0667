"""The frames of a video's maps: which there are, which latent frames each stands for, and where it lies in the video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadArgument, NothingRecorded, quoted

Span = tuple[int, int]
"""The first latent frame that a frame of the maps stands for, and the one behind its last."""
MOST_BYTES = 16 * 2**20
"""Of the sums of one picture's frames, float32 `[frames * h * w, channels]`; beyond it neighbouring frames share one map."""


@dataclass(frozen=True)
class Frames:
    """The frames of a video's maps.

    Attributes:
        spans: for each, the latent frames that it stands for; of several it is the mean.
        latents: latent frames of the whole video.

    Example:
        >>> Frames(((0, 2), (2, 3)), 3).note
        'The maps of 3 latent frames would take more memory than a recording may: neighbouring frames share a map, 2 in all.'
    """

    spans: tuple[Span, ...]
    latents: int

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many latent frames each stands for."""
        return tuple(stop - start for start, stop in self.spans)

    @property
    def whole(self) -> bool:
        """Whether they are the whole video, in order."""
        starts, stops = [0, *(stop for _, stop in self.spans)], [start for start, _ in self.spans]
        return starts == [*stops, self.latents]

    @property
    def note(self) -> str:
        """One sentence where frames share a map because there was no room for all; else empty."""
        if len(self) == 1 or not self.whole or len(self) == self.latents:
            return ""
        return (
            f"The maps of {self.latents} latent frames would take more memory than a recording may: neighbouring frames share "
            f"a map, {len(self)} in all."
        )

    def merged(self) -> Frames:
        """All frames as one, their mean."""
        return Frames(((0, self.latents),), self.latents)

    def chosen(self, numbers: Sequence[int]) -> list[int]:
        """Numbers of frames from 0 in order, each once; negative ones are counted from the end.

        Raises:
            BadArgument: none was chosen, or one that there is not.
        """
        if odd := [n for n in numbers if isinstance(n, bool) or not isinstance(n, int)]:
            raise BadArgument(f"frames are whole numbers, not {quoted(odd[0])}.")
        if wrong := [n for n in numbers if not -len(self) <= n < len(self)]:
            raise BadArgument(f"There is no frame {wrong[0]}: the maps have {len(self)}, counted from 0.")
        if not numbers:
            raise BadArgument(f"The choice leaves no frame; the maps have {len(self)}, counted from 0.")
        return sorted({n % len(self) for n in numbers})

    def places(self, count: int) -> list[float]:
        """Where each frame of the maps lies among `count` frames of the video, from 0; the middle of those it stands for.

        An autoencoder packs r frames into a latent one. Most keep the first frame apart: of `1 + r * (latents - 1)` frames,
        latent k > 0 holds r * (k - 1) + 1 .. r * k (Wan, HunyuanVideo, CogVideoX, LTX, Mochi). Else frames are shared out
        evenly. Where a count is both, r is the one that is a power of two. As many frames as the maps have are theirs.

        Raises:
            BadArgument: these frames are a choice, and not the whole video.

        Example:
            >>> Frames(((0, 1), (1, 2), (2, 3)), 3).places(9)
            [0.0, 2.5, 6.5]
        """
        if count == len(self):
            return [float(i) for i in range(count)]
        if not self.whole:
            raise BadArgument(
                f"These maps are of {len(self)} chosen frames, which are not the whole video of {count}: ask the whole "
                "recording for it."
            )
        first_apart = self._first_apart(count)
        return [self._middle(start, stop, count, first_apart) for start, stop in self.spans]

    def ratio(self, count: int) -> int | None:
        """How many of `count` frames of the video one latent frame holds, None where they cannot be shared out."""
        if self._first_apart(count):
            return (count - 1) // (self.latents - 1)
        return None if count % self.latents else count // self.latents

    def _first_apart(self, count: int) -> bool:
        apart, rest = divmod(count - 1, self.latents - 1)
        even = 0 if count % self.latents else count // self.latents
        return rest == 0 and (_is_power_of_two(apart) or not _is_power_of_two(even))

    def _middle(self, start: int, stop: int, count: int, first_apart: bool) -> float:
        if first_apart:
            r = (count - 1) // (self.latents - 1)
            first, last = (0 if start == 0 else r * (start - 1) + 1), r * (stop - 1)
            return (first + last) / 2
        return (count * (start + stop) / self.latents - 1) / 2


def _is_power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


def frames_within(latents: int, positions: int, channels: int, most_bytes: int = MOST_BYTES) -> Frames:
    """The frames that are kept of a video of `latents` latent frames, whose sums are float32 `[positions, channels]` each.

    Example:
        >>> frames_within(4, positions=1024, channels=2048).spans
        ((0, 2), (2, 4))
    """
    room = max(1, most_bytes // (4 * positions * channels))
    kept = min(latents, room)
    edges = [i * latents // kept for i in range(kept + 1)]
    return Frames(tuple(zip(edges[:-1], edges[1:], strict=True)), latents)


def at_frames(maps: Tensor, frames: Frames, count: int) -> Tensor:
    """Maps `[..., frames, h, w]` at `count` frames of the video, `[..., count, h, w]`: linear between the places of the maps'
    frames, and as the nearest outside them.

    Raises:
        BadArgument: see `Frames.places`.
    """
    places = torch.tensor(frames.places(count), dtype=torch.float64)
    if count == len(frames):
        return maps
    at = torch.arange(count, dtype=torch.float64)
    right = torch.searchsorted(places, at).clamp(1, len(frames) - 1)
    left = right - 1
    share = ((at - places[left]) / (places[right] - places[left])).clamp(0, 1).to(maps.dtype).to(maps.device)[:, None, None]
    return maps[..., left, :, :] * (1 - share) + maps[..., right, :, :] * share


def same_frames(several: Sequence[Frames | None]) -> Frames | None:
    """The frames that all of several have.

    Raises:
        NothingRecorded: they have different ones.
    """
    if len(set(several)) > 1:
        seen = " and ".join(sorted({str(0 if one is None else one.latents) for one in several}))
        raise NothingRecorded(f"the video had {seen} latent frames in one run, so there is no map of them")
    return several[0]


def sizes_of(frames: Frames, like: Tensor) -> Tensor:
    """How many latent frames each stands for, `[frames, 1, 1, 1]` in the dtype of `like`."""
    return torch.tensor(frames.sizes, dtype=like.dtype, device=like.device)[:, None, None, None]
