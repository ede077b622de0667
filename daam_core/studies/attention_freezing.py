"""Cross-attention held still: one picture of a batch attends to shared words as another one does (paper, section 5.2).

Source and copy are drawn in one batch, step by step side by side, so nothing has to be stored. Only the study of
adjectives uses this; outside the block the model is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import BadArgument, UnsupportedModel, quoted
from ..prompt.alignment import search_key
from ..prompt.prompt import Prompt, Word


@dataclass(frozen=True)
class Freeze:
    """Picture `copy` of the batch attends to its columns `to` as picture `source` attends to its columns `of`.

    `to[i]` takes over `of[i]`. The copy's other columns share what is left in their own proportions, so that every
    place still attends with a sum of one.
    """

    source: int
    copy: int
    of: tuple[int, ...]
    to: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.of) != len(self.to) or len(set(self.to)) != len(self.to):
            raise BadArgument(f"Columns {list(self.of)} cannot be taken over by {list(self.to)}: one for one, each once.")
        if self.source == self.copy:
            raise BadArgument(f"Picture {self.copy} cannot take over its own attention.")


def frozen(probabilities: Tensor, source: Tensor, of: Sequence[int], to: Sequence[int]) -> Tensor:
    """Attention with some columns taken over: all `[..., keys]`, rows that sum to one before and after.

    `P'[to] = S[of]`, and on the other columns `P' = P (1 - sum S[of]) / (1 - sum P[to])`; a row that had nothing
    there shares what is left evenly. With every column taken over, nothing is left to share.
    """
    taken = source[..., list(of)]
    held = torch.zeros(probabilities.shape[-1], dtype=torch.bool, device=probabilities.device)
    held[list(to)] = True
    rest = torch.where(held, 0.0, probabilities.float())
    had = rest.sum(-1, keepdim=True)
    free = int((~held).sum())
    even = (~held).float() / max(free, 1)
    share = torch.where(had > 0, rest / had.clamp(min=torch.finfo(torch.float32).tiny), even)
    changed = share * (1 - taken.float().sum(-1, keepdim=True)).clamp(min=0)
    changed[..., list(to)] = taken.float()
    return changed.to(probabilities.dtype)


def shared_words(source: Prompt, copy: Prompt) -> tuple[list[tuple[Word, Word]], list[Word]]:
    """The words that two prompts have in common before and after the place where they differ, and the copy's others.

    "a red house at sea" and "an orange house at sea" share "house", "at" and "sea"; "an" and "orange" are the copy's own.
    """
    ours, theirs = copy.words, source.words
    most = min(len(ours), len(theirs))
    front = next((k for k in range(most) if not _same(theirs[k], ours[k])), most)
    back = next((k for k in range(most - front) if not _same(theirs[-1 - k], ours[-1 - k])), most - front)
    pairs = [*zip(theirs[:front], ours[:front], strict=True)]
    pairs += zip(theirs[len(theirs) - back :], ours[len(ours) - back :], strict=True)
    return pairs, list(ours[front : len(ours) - back])


def freeze(
    pictures: tuple[int, int], prompts: tuple[Prompt, Prompt], words: Sequence[tuple[Word, Word]], specials: bool = False
) -> Freeze:
    """Let a copy attend to some words as its source does.

    Args:
        pictures: numbers of source and copy in the batch.
        prompts: theirs.
        words: which of the source's stands for which of the copy's.
        specials: also take over the start and end tokens and the padding, as far as both have it.

    Raises:
        BadArgument: two words of different numbers of tokens.
    """
    source, copy = prompts
    of: list[int] = []
    to: list[int] = []
    for theirs, ours in words:
        if len(theirs.channels) != len(ours.channels):
            raise BadArgument(
                f"{quoted(ours.text)} has {len(theirs.channels)} tokens in {quoted(source.text)} and {len(ours.channels)} in "
                f"{quoted(copy.text)}."
            )
        of += [source.tokens[row - 1].column for row in theirs.channels]
        to += [copy.tokens[row - 1].column for row in ours.channels]
    if specials:
        for theirs_at, ours_at in ((source.start, copy.start), (source.end, copy.end), (source.padding, copy.padding)):
            of += theirs_at[: len(ours_at)]
            to += ours_at[: len(theirs_at)]
    return Freeze(*pictures, tuple(of), tuple(to))


def _same(one: Word, other: Word) -> bool:
    return search_key(one.text) == search_key(other.text)


@contextmanager
def freezing(unet: Any, images: int, freezes: Sequence[Freeze]) -> Iterator[None]:
    """Draw with these columns frozen; the attention's own processors are back when the block ends, however it ends.

    Rows of the negative prompt, which come first under classifier-free guidance, are left alone.

    Args:
        unet: a diffusers UNet.
        images: pictures of the batch.
        freezes: all are taken from the unchanged attention of their sources.

    Raises:
        BadArgument: a picture outside the batch.
        UnsupportedModel: a cross-attention layer does not use diffusers' plain attention (an IP-Adapter, for example).
    """
    if bad := [f for f in freezes if not (0 <= f.source < images and 0 <= f.copy < images)]:
        raise BadArgument(f"Pictures {bad[0].source} and {bad[0].copy} are not both in a batch of {images}.")
    layers = [module for name, module in unet.named_modules() if name.endswith("attn2") and hasattr(module, "processor")]
    undo: list[Callable[[], None]] = []
    try:
        for attn in layers:
            undo.append(_replaced(attn, images, freezes))
        yield
    finally:
        for restore in reversed(undo):
            restore()


def _replaced(attn: Any, images: int, freezes: Sequence[Freeze]) -> Callable[[], None]:
    """Let one layer compute its probabilities openly and edit them; returns what takes that back."""
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    before = attn.processor
    if type(before) not in (AttnProcessor, AttnProcessor2_0):
        raise UnsupportedModel(f"Attention cannot be frozen under {type(before).__name__}: unload adapters first.")
    scores = attn.get_attention_scores

    def edited(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        # [(rows * heads), positions, keys]; rows are [negative prompts, prompts] under guidance.
        probabilities: Tensor = scores(query, key, mask)
        by_row = probabilities.unflatten(0, (-1, attn.heads))
        first = by_row.shape[0] - images
        if first not in (0, images):
            raise UnsupportedModel(f"Attention cannot be frozen with {by_row.shape[0]} rows for {images} pictures.")
        changed = by_row.clone()
        for f in freezes:
            changed[first + f.copy] = frozen(by_row[first + f.copy], by_row[first + f.source], f.of, f.to)
        return changed.flatten(0, 1)

    # diffusers' own plain processor asks the layer for its probabilities: an attribute of the instance hides the method.
    attn.processor = AttnProcessor()
    attn.get_attention_scores = edited

    def restore() -> None:
        del attn.get_attention_scores
        attn.processor = before

    return restore
