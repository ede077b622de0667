"""The text that a UNet is given in one forward: whose its rows are, and whether its keys are those of before."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..attention.precision import is_autocast
from ..errors import NothingRecorded
from ..types import Side
from .text_rows import EncodedText, Snapshot, copies_of, match_blocks, match_rows
from .unet_hooks import UNetAttentionHooks

_KNOWN = 8
"""So many texts that the UNet was given are remembered with whose they are."""


class UNetTexts:
    """The texts of one call of a pipeline.

    Args:
        encoded: gives what the pipeline has encoded so far.
        whole_call: whether every forward in this thread is the pipeline's; else a text that nobody encoded is nobody's.
    """

    def __init__(self, encoded: Callable[[], Sequence[EncodedText]], whole_call: bool) -> None:
        self._encoded, self._whole_call = encoded, whole_call
        self._made_of: tuple[Tensor, int, bool, list[int], list[Tensor | None], object] | None = None
        self._repeated: tuple[tuple[int, int, int], Snapshot, Tensor] | None = None
        self._known: dict[tuple[Any, ...], tuple[Snapshot, dict[tuple[Side, int], slice], dict[int, tuple[int, ...]]]] = {}
        self._prompted: set[int] = set()  # rows of batches that held the prompt's text

    def clear(self) -> None:
        """Let go of every text."""
        self._known.clear()
        self._made_of = self._repeated = None

    def of_part(self, side: Side, part: int) -> list[EncodedText]:
        """The texts of one side and part, picture by picture."""
        own = (text for text in self._encoded() if (text.side, text.part) == (side, part))
        return sorted(own, key=lambda text: text.image)

    def copies(self, context: Tensor) -> dict[int, tuple[int, ...]]:
        """For a row that holds a text once more, see `text_rows.copies_of`; raises as `rows`."""
        return self._read(context)[2]

    def rows(self, context: Tensor) -> dict[tuple[Side, int], slice]:
        """Whose the rows of a text are; compared once, and again where it is another tensor or was written into.

        Raises:
            NothingRecorded: they are nobody's, or two prompts' without a negative one, or the prompt's are nobody's any more.
        """
        return self._read(context)[1]

    def _read(self, context: Tensor) -> tuple[Snapshot, dict[tuple[Side, int], slice], dict[int, tuple[int, ...]]]:
        texts = self._encoded()
        key = (id(context), 0 if context.is_inference() else context._version, context.shape, len(texts))
        known = self._known.get(key)
        if known is None or not known[0].holds():
            found = match_blocks(list(context), texts)
            lacking = not found and self._whole_call
            read = sum(rows.stop - rows.start for rows in found.values())
            if "prompt" in {side for side, _ in found}:
                self._prompted.add(len(context))
            elif read < len(context) in self._prompted and self._whole_call:
                lacking = True
            if lacking and all(match_rows(list(context), texts)):
                raise NothingRecorded(
                    "The texts that the UNet was given are those of some of the pictures, or of all in another order, so "
                    "nobody knows which row is whose picture's. Change neither number nor order of the pictures in a callback."
                )
            if not found and lacking:
                raise NothingRecorded(
                    "The text that the UNet was given is none of those that the pipeline encoded, so nobody knows whose it is. "
                    "Give the pipeline the prompt itself, or embeddings made inside the trace by `pipe.encode_prompt`."
                )
            if lacking:
                raise NothingRecorded(
                    "In the middle of the run the text that the UNet was given for the prompt became another one that the "
                    "pipeline did not encode, so nobody knows which words are whose. Encode it inside the trace, by "
                    "`pipe.encode_prompt`."
                )
            if len({side for side, _ in found}) < len(found):
                raise NothingRecorded(
                    "The UNet was given several texts at once that were all encoded as prompts, so nobody knows which is the "
                    "negative one. Encode both in one call of `pipe.encode_prompt`."
                )
            if len(self._known) >= _KNOWN:
                self._known.pop(next(iter(self._known)))
            own = {i for rows in found.values() for i in range(rows.start, rows.stop)}
            copies = copies_of(list(context), own) if len(own) < len(context) else {}
            known = self._known[key] = Snapshot(context), found, copies
        return known

    def of_videos(self, context: Tensor, frames: int) -> Tensor:
        """The text of each video, where it is given once for each frame; compared once for each tensor.

        Raises:
            NothingRecorded: the frames of a video have different texts.
        """
        key = (id(context), 0 if context.is_inference() else context._version, frames)
        if self._repeated is None or self._repeated[0] != key or not self._repeated[1].holds():
            own = context[::frames]
            if not torch.equal(own.repeat_interleave(frames, 0), context):
                raise NothingRecorded("the frames of one video were given different texts, so there is no map of its prompt")
            self._repeated = key, Snapshot(context), own
        return self._repeated[2]

    def keys(self, context: Tensor, hooks: UNetAttentionHooks) -> object | None:
        """The same object as in an earlier forward whose text and weights of keys were the same, None in a compiled UNet.

        Counters tell of most that can change weights; the last step's keys are compared, too.
        """
        if hooks.compiled or context.is_inference():
            return None
        weights, versions = hooks.key_versions()
        autocast = is_autocast(context.device)
        known = self._made_of
        same = (
            known is not None
            and known[0] is context
            and known[1:4] == (context._version, autocast, versions)
            and all(map(operator.is_, known[4], weights))
        )
        if not same or known is None:
            known = self._made_of = (context, context._version, autocast, versions, weights, object())
        return known[5]
