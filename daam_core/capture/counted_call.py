"""One call of a transformer whose layers tell nobody their names: its attentions are known by their number and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from ..errors import NothingRecorded
from .accumulator import Accumulator
from .attention_call import AttentionCall
from .buffers import BatchSlice
from .host_words import NODES, HostWords
from .token_layout import RowLayout, TokenLayout

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class CountedCall:
    """The attentions of one call of a model.

    Args:
        layout: where text and picture stand in them.
        batch: rows of the model's batch.
        words: of the host.
        blocks: how many the model has that may attend to the text, see `blocks_of`; 0 where that is not known.
    """

    def __init__(self, layout: TokenLayout, batch: int, words: HostWords = NODES, blocks: int = 0) -> None:
        self.layout = layout
        self._batch, self._words = batch, words
        self._most = 0 if layout.counted else blocks * layout.repeats  # what is counted is counted at the end
        self._attentions = self._texts = self._in_a_row = 0
        self._other: set[tuple[int, int]] = set()

    @property
    def texts(self) -> int:
        """How many attentions with text among their keys ran so far."""
        return self._texts

    def take(self, a: AttentionCall, options: Mapping[str, Any] = _NO_OPTIONS) -> tuple[int, Sequence[RowLayout]] | None:
        """The next attention: its number and the rows of its batch; None where it holds no text, or a control's.

        Args:
            options: what ComfyUI tells of it, as far as it does.

        Raises:
            NothingRecorded: it is not what the layout says.
        """
        number = self._attentions
        self._attentions += 1
        rows = self._text_rows(a)
        if rows is None:
            self._other.add((a.queries, a.keys))
            self._in_a_row = 0
            return None
        layout = self.layout
        layout.check_host(options)
        check_batch(a, self._batch, f"attention {number}", self._words)
        self._in_a_row += 1
        if layout.text_apart and self._in_a_row > layout.repeats:
            raise NothingRecorded(
                f"{self._words.another} makes the model attend to a second text beside the prompt (NAG does), and the two "
                f"cannot be told apart. {self._words.advice}"
            )
        self._texts += 1
        if self._most and self._texts > self._most:
            raise NothingRecorded(
                f"{self._words.another} makes blocks of this model attend to a text more than once (NAG does, to another): "
                f"more attentions have text among their keys than its blocks have, {self._most}, and nobody can say which are "
                f"those to the prompt. {self._words.advice}"
            )
        if layout.counted and (self._texts > len(layout.counted) or not layout.counted[self._texts - 1]):
            return None
        return number, rows

    def check_unreported(self, a: AttentionCall) -> None:
        """An attention runs that nobody tells of.

        Raises:
            NothingRecorded: text is among its keys.
        """
        try:
            rows = None if self.layout.tied and a.queries == a.keys else self.layout.find(a.queries, a.keys, self._words)
        except NothingRecorded:
            rows = ()
        if rows is not None:
            raise NothingRecorded(
                f"{self._words.another} runs attention of the model to the text, {a.queries} queries on {a.keys} keys, in a "
                "way of its own, which is shown to nobody (blocks of another node that hand no options on to it do so). Maps "
                f"without it would lack a part. {self._words.advice}"
            )

    def finish(self) -> None:
        """The call of the model is over.

        Raises:
            NothingRecorded: its attentions ran, and not as many had text among their keys as there should be.
        """
        layout, another, advice = self.layout, self._words.at_the_beginning, self._words.advice
        if not self._attentions:
            return
        if not self._texts:
            raise NothingRecorded(
                f"no attention of the model has text among its keys: by what it was given there would be {layout.expected}, "
                f"and there were {_listed(self._other)}. {another} changes how this model attends. {advice}"
            )
        if layout.counted and self._texts != len(layout.counted):
            raise NothingRecorded(
                f"{self._texts} attentions have text among their keys, and by the model's blocks and controls there would be "
                f"{len(layout.counted)}, so that nobody can say which are the picture's. {another} leaves out blocks of "
                f"this model. {advice}"
            )
        if layout.tied and not layout.blocks:
            raise NothingRecorded(
                f"this text has as many columns as the picture has patches, {layout.columns}, and nothing tells the attention "
                "to one from that to the other. Record at another size"
            )
        if layout.tied and self._attentions != (1 + layout.repeats) * layout.blocks:
            raise NothingRecorded(
                f"this text has as many columns as the picture has patches, {layout.columns}, and {self._attentions} "
                f"attentions in {layout.blocks} blocks do not tell which is which. Record at another size"
            )

    def _text_rows(self, a: AttentionCall) -> Sequence[RowLayout] | None:
        rows = self.layout.find(a.queries, a.keys, self._words)
        # As many columns of text as patches: of each block's attentions, the first is the picture's to itself.
        first = self._attentions % (1 + self.layout.repeats) == 1
        return None if self.layout.tied and first and a.queries == a.keys else rows


_LISTS = {
    *("blocks", "layers", "joint_blocks", "transformer_blocks", "visual_transformer_blocks", "patch_blocks"),
    *("double_blocks", "single_blocks", "double_layers", "single_layers", "double_stream_blocks", "single_stream_blocks"),
    *("double_stream_layers", "single_stream_layers"),
}
"""Where the hosts' transformers keep the blocks that attend to the text, each as often as its layout repeats it; refiners,
controls and what finishes the picture have lists of other names."""


def text_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a model that attend to its text, by their paths in it; none where it keeps them in no known list."""
    lists = {name: one for name, one in model.named_children() if isinstance(one, (nn.ModuleList, nn.ModuleDict))}
    return {f"{name}.{own}": block for name, one in lists.items() if name in _LISTS for own, block in one.named_children()}


def blocks_of(model: nn.Module) -> int:
    """How many blocks a model has, at most, that attend to its text; 0 where it keeps them in no lists of its own."""
    known = len(text_blocks(model))
    return known or sum(len(one) for one in model.children() if isinstance(one, (nn.ModuleList, nn.ModuleDict)))


def add_rows(
    into: Accumulator, layer: int, layout: TokenLayout, row: RowLayout, source: BatchSlice, a: AttentionCall, whole_video: bool
) -> None:
    """Rows of the batch whose tokens stand alike: all frames at once, or summed where they are a part of a video.

    Args:
        source: which rows, and what the accumulator is to select by for the columns that their text keys are.
    """
    frames, height, width = layout.patches
    text = slice(row.text, row.text + len(row.columns))
    kept = frames if whole_video else 1
    each = kept * height * width
    for first in range(row.picture, row.picture + frames * height * width, each):
        part, keys = a.part(source.index, first, each, text)
        into.add_joint(
            layer, (height, width), part.q, part.k, part.heads, part.scale, source, keys, part.bias, part.lse, frames=kept
        )


def only_layout(rows: Sequence[RowLayout]) -> RowLayout:
    """The layout of pictures that have one text.

    Raises:
        NothingRecorded: their tokens stand at different places.
    """
    first = rows[0]
    if any(row is not first and not _alike(row, first) for row in rows):
        raise NothingRecorded(
            "the pictures of this batch have texts of different lengths, and the model puts them at different places. Queue "
            "them one by one"
        )
    return first


def check_batch(a: AttentionCall, batch: int, where: str, words: HostWords = NODES) -> None:
    """An attention has the rows of the model's batch.

    Raises:
        NothingRecorded: it has others.
    """
    if a.q.shape[0] != batch:
        raise NothingRecorded(
            f"{words.another} changes the batch inside the model: {a.q.shape[0]} rows at {where}, and the model was given "
            f"{batch} (attention couple, regional prompts and NAG do so). {words.advice}"
        )


def _alike(one: RowLayout, other: RowLayout) -> bool:
    return (one.picture, one.text, tuple(one.columns)) == (other.picture, other.text, tuple(other.columns))


def _listed(sizes: set[tuple[int, int]]) -> str:
    shown = [f"{n} on {keys}" for n, keys in sorted(sizes)[:4]]
    return ", ".join(shown) + (", …" if len(sizes) > 4 else "")
