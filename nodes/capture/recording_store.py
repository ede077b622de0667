"""The last recordings, found by the latent that the sampler gave out.

A latent is the one link that every graph has between a sampler and what comes after it. Pictures are kept one by one,
so that taking one out of a batch, or batches put together, still find their maps.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from torch import Tensor

from ...daam_core.errors import NothingRecorded
from ...daam_core.maps.heatmaps import HeatMaps
from ...daam_core.maps.relabel import by_index
from .context_alignment import words_for
from .prompt_tokens import PromptTokens
from .tensor_hash import tensor_hash

MOST_PICTURES = 64
MOST_BYTES = 512 * 2**20


@dataclass(frozen=True)
class _Kept:
    maps: HeatMaps | None
    failure: str
    bytes: int


class RecordingStore:
    """A bounded memory of recorded pictures; the oldest goes first. Holds no model and nothing on a device."""

    def __init__(self, pictures: int = MOST_PICTURES, most_bytes: int = MOST_BYTES) -> None:
        self._pictures, self._most_bytes = pictures, most_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._gone: deque[str] = deque(maxlen=1024)
        self._lock = Lock()

    def keep(self, latents: Sequence[Tensor], maps: Sequence[HeatMaps] | None, failure: str = "") -> None:
        """Remember the maps of one run, or why there are none; each of `latents` is `[pictures, …]`."""
        with self._lock:
            pictures = [_Kept(one, failure, one.nbytes) for one in maps or ()] or [_Kept(None, failure, 0)]
            for samples in latents:
                for i, picture in enumerate(samples):
                    key = tensor_hash(picture)
                    self._kept.pop(key, None)
                    self._kept[key] = pictures[min(i, len(pictures) - 1)]
            while len(held := self._held()) > 1 and (len(held) > self._pictures or self.bytes > self._most_bytes):
                self._gone.append(self._kept.popitem(last=False)[0])

    @property
    def bytes(self) -> int:
        """Bytes of all maps that are kept; a picture that is known by two latents counts once."""
        return sum(kept.bytes for kept in self._held())

    def _held(self) -> list[_Kept]:
        return list({id(kept): kept for kept in self._kept.values()}.values())

    def find(self, samples: Tensor, tokens: PromptTokens | None = None) -> tuple[HeatMaps, ...]:
        """The maps of each picture of a latent `[pictures, …]`.

        `tokens` gives words to maps that were recorded without.

        Raises:
            NothingRecorded: nobody recorded this latent, recording failed, or its words are not known; the text says what
                to do.
        """
        return tuple(_worded(self.recorded(picture), tokens) for picture in samples)

    def recorded(self, picture: Tensor) -> HeatMaps:
        """The maps of one picture's latent `[c, …]` as they were recorded, with or without words. Raises NothingRecorded."""
        key = tensor_hash(picture)
        with self._lock:
            kept, gone = self._kept.get(key), key in self._gone
        if gone and kept is None:
            raise NothingRecorded(
                f"The recording of this picture was dropped: the last {self._pictures} pictures are kept, fewer where they "
                f"take more than {self._most_bytes // 2**20} MB together. Change the sampler's seed (or anything else of it) "
                "and queue again, or use Save Maps for what you want to come back to."
            )
        if kept is None:
            raise NothingRecorded(
                "No recording belongs to this latent. Connect the latent straight from the sampler (not from VAE Encode or "
                "Empty Latent), and let that sampler's model come out of the Record node."
            )
        if kept.maps is None:
            raise NothingRecorded(kept.failure)
        return kept.maps


RECORDINGS = RecordingStore()
"""Nodes have no state of their own; a run is recorded in one node and asked for in another."""


def maps_of(samples: Tensor, prompt: PromptTokens | None = None) -> tuple[HeatMaps, ...]:
    """See `RecordingStore.find`."""
    return RECORDINGS.find(samples, prompt)


def _worded(maps: HeatMaps, tokens: PromptTokens | None) -> HeatMaps:
    if not by_index(maps.prompt):
        return maps
    if tokens is None:
        raise NothingRecorded(
            "This run was recorded, but without its words. Encode the prompt with the CLIP that comes out of Record, "
            "or give this node that CLIP and the text."
        )
    return maps.with_prompt(words_for(tokens, maps.prompt.length))
