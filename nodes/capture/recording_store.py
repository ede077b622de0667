"""The last recordings, found by the latent that the sampler gave out.

A latent is the one link that every graph has between a sampler and what comes after it. Pictures are kept one by one,
so that taking one out of a batch, or batches put together, still find their maps. Several Records may have made the very
same picture: the latent finds all of them, and the graph tells which one is meant.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from torch import Tensor

from ...daam_core.errors import NothingRecorded
from ...daam_core.maps.heatmaps import HeatMaps
from ...daam_core.maps.relabel import by_index
from .context_alignment import words_for
from .packed_latents import picture_of
from .prompt_tokens import PromptTokens
from .tensor_hash import tensor_hash

MOST_PICTURES = 64
MOST_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Source:
    """Who made a recording.

    Attributes:
        node: id of the Record node in its graph, empty where it is not known.
        inputs: what it was asked for, (name, value) each.
        linked: for each of these that another node gave, what stood before it in the graph, (name, `executed_graph.digest`).
    """

    node: str = ""
    inputs: tuple[tuple[str, Hashable], ...] = ()
    linked: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RecordInGraph:
    """A Record node as it stands in a graph.

    Attributes:
        inputs: those that are typed in; what another node gives is known once it has run.
        linked: what stands before those that another node gives, see `Source`.
    """

    node: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    linked: Mapping[str, str] = field(default_factory=dict)

    def made(self, source: Source) -> bool:
        """Whether a recording is this node's, as it is set now."""
        given, before = dict(source.inputs), dict(source.linked)
        same = all(self.inputs.get(name, value) == value for name, value in given.items())
        return source.node == self.node and same and before == {k: v for k, v in self.linked.items() if k in given}


@dataclass(frozen=True)
class _Kept:
    maps: HeatMaps | None
    failure: str
    bytes: int
    note: str = ""


class RecordingStore:
    """A bounded memory of recorded pictures; the oldest goes first. Holds no model and nothing on a device."""

    def __init__(self, pictures: int = MOST_PICTURES, most_bytes: int = MOST_BYTES) -> None:
        self._pictures, self._most_bytes = pictures, most_bytes
        self._kept: OrderedDict[tuple[str, Source], _Kept] = OrderedDict()
        self._gone: deque[str] = deque(maxlen=1024)
        self._lock = Lock()

    def keep(
        self,
        latents: Sequence[Tensor],
        maps: Sequence[HeatMaps] | None,
        failure: str = "",
        source: Source = Source(),
        note: str = "",
    ) -> None:
        """Remember the maps of one run, or why there are none; each of `latents` is `[pictures, …]`.

        Args:
            note: what is missing although there are maps.
        """
        with self._lock:
            pictures = [_Kept(one, failure, one.nbytes, note) for one in maps or ()] or [_Kept(None, failure, 0)]
            for samples in latents:
                for i, picture in enumerate(samples):
                    key = tensor_hash(picture), source
                    self._kept.pop(key, None)
                    self._kept[key] = pictures[min(i, len(pictures) - 1)]
            while len(held := self._held()) > 1 and (len(held) > self._pictures or self.bytes > self._most_bytes):
                self._gone.append(self._kept.popitem(last=False)[0][0])

    @property
    def bytes(self) -> int:
        """Bytes of all maps that are kept; a picture that is known by two latents counts once."""
        return sum(kept.bytes for kept in self._held())

    def _held(self) -> list[_Kept]:
        return list({id(kept): kept for kept in self._kept.values()}.values())

    def find(
        self, samples: Tensor, tokens: PromptTokens | None = None, among: Sequence[RecordInGraph] = ()
    ) -> tuple[HeatMaps, ...]:
        """The maps of each picture of a latent `[pictures, …]`.

        Args:
            tokens: give words to maps that were recorded without.
            among: the Record nodes that this latent may come from, as the graph has them.

        Raises:
            NothingRecorded: nobody recorded this latent, recording failed, or its words are not known; the text says what
                to do.
        """
        return tuple(_worded(self.recorded(picture, among), tokens) for picture in picture_of(samples))

    def recorded(self, picture: Tensor, among: Sequence[RecordInGraph] = ()) -> HeatMaps:
        """The maps of one picture's latent `[c, …]` as they were recorded, with or without words. Raises NothingRecorded."""
        maps = self._kept_of(picture, among).maps
        assert maps is not None
        return maps

    def gave_out(self, samples: Tensor) -> bool:
        """Whether a recorded run gave out a picture of a latent `[pictures, …]`, as it is."""
        keys = {tensor_hash(picture) for picture in picture_of(samples)}
        with self._lock:
            return not keys.isdisjoint({*(own for own, _ in self._kept), *self._gone})

    def note(self, samples: Tensor, among: Sequence[RecordInGraph] = ()) -> str:
        """What is missing of the maps of a latent `[pictures, …]`, empty where nothing is. Raises NothingRecorded."""
        notes = (self._kept_of(picture, among).note for picture in picture_of(samples))
        return " ".join(dict.fromkeys(filter(None, notes)))

    def _kept_of(self, picture: Tensor, among: Sequence[RecordInGraph]) -> _Kept:
        """What is kept of one picture, with maps. Raises NothingRecorded."""
        key = tensor_hash(picture)
        with self._lock:
            found = {source: kept for (own, source), kept in self._kept.items() if own == key}
            gone = key in self._gone
        kept = _one_of(found, among)
        if gone and kept is None:
            raise NothingRecorded(
                f"The recording of this picture was dropped: the last {self._pictures} pictures are kept, fewer where they "
                f"take more than {self._most_bytes // 2**20} MB together. Change the sampler's seed (or anything else of it) "
                "and queue again, or use Save Heat Maps for what you want to come back to."
            )
        if kept is None:
            raise NothingRecorded(
                "No recording belongs to this latent. Connect the latent straight from the sampler (not from VAE Encode or "
                "Empty Latent), and let that sampler's model come out of the Record Attention node. A sampler that does no "
                "step (denoise 0) records nothing, and what a node pastes together of several runs was sampled by none of them."
            )
        if kept.maps is None:
            raise NothingRecorded(kept.failure)
        return kept


RECORDINGS = RecordingStore()
"""Nodes have no state of their own; a run is recorded in one node and asked for in another."""


def maps_of(samples: Tensor, prompt: PromptTokens | None = None, among: Sequence[RecordInGraph] = ()) -> tuple[HeatMaps, ...]:
    """See `RecordingStore.find`."""
    return RECORDINGS.find(samples, prompt, among)


def _one_of(found: Mapping[Source, _Kept], among: Sequence[RecordInGraph]) -> _Kept | None:
    """The recording that is meant, of those that made one picture; in the order in which they were made.

    Raises:
        NothingRecorded: several may be meant.
    """
    if len(found) < 2 or not (among or any(source.node for source in found)):
        return next(reversed(list(found.values())), None)  # a script without a graph means what it did last
    here = {record.node for record in among}
    left = [source for source in found if any(record.made(source) for record in among)]
    left = left or [source for source in found if source.node in here] or list(found)
    if len({source.inputs for source in left}) == 1:  # of two that keep the same, the last one is as good
        return found[left[-1]]
    nodes = " and ".join(dict.fromkeys(f"#{source.node}" if source.node else "of another program" for source in left))
    one = len({source.node for source in left}) == 1 and left[0].node in here
    advice = (
        "It is one node whose options came from another one (a list, a number that changes): type them in, or give each run "
        "another seed."
        if one
        else "Let this latent come from the sampler of one Record node alone, or give the samplers different seeds."
    )
    raise NothingRecorded(
        f"{len(left)} recordings of this very picture are kept, with different options (Record {nodes}), and the graph does "
        f"not tell which one is meant. {advice}"
    )


def _worded(maps: HeatMaps, tokens: PromptTokens | None) -> HeatMaps:
    if not by_index(maps.prompt):
        return maps
    if tokens is None:
        raise NothingRecorded(
            "This run was recorded, but its words are not known: give this node `clip` and `text`, the CLIP and the prompt "
            "that were encoded. Encoder nodes that weigh words by themselves (ADV_CLIP_emb, comfy++, down_weight) drop them on "
            "the way; with ComfyUI's own, it is enough to encode with the CLIP that comes out of Record."
        )
    return maps.with_prompt(words_for(tokens, maps.prompt.length))
