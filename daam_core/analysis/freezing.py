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

from ..errors import BadArgument, UnsupportedModel
from ..prompt import Prompt


@dataclass(frozen=True)
class Freeze:
    """Picture ``copy`` of the batch attends to its columns ``to`` as picture ``source`` attends to its columns ``of``.

    ``to[i]`` takes over ``of[i]``. The copy's other columns share what is left in their own proportions, so that every
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
    """Attention with some columns taken over: all ``[..., keys]``, rows that sum to one before and after.

    ``P'[to] = S[of]``, and on the other columns ``P' = P (1 - sum S[of]) / (1 - sum P[to])``; a row that had nothing
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


def shared_columns(source: Prompt, copy: Prompt, words: Sequence[str] | None, changed: Sequence[str]) -> Freeze:
    """What to freeze between two prompts that differ in ``changed`` words of the copy (pictures 0 and 1 of a batch).

    Args:
        words: labels of the words to freeze, which both prompts have; None: all of the copy but ``changed``, and the
            start token, the end token and the padding too.
        changed: labels of the copy's words that the source does not have.

    Raises:
        BadArgument: a word has another number of tokens in the two prompts.
    """
    labels = [w.label for w in copy.words if w.label not in set(changed)] if words is None else list(words)
    of: list[int] = []
    to: list[int] = []
    for label in labels:
        theirs, ours = _columns(source, label), _columns(copy, label)
        if len(theirs) != len(ours):
            raise BadArgument(f"{label!r} has {len(theirs)} tokens in {source.text!r} and {len(ours)} in {copy.text!r}.")
        of += theirs
        to += ours
    if words is None:
        # Of the padding, the shorter one's columns are taken; both prompts fill the same 77.
        for theirs, ours in ((source.start, copy.start), (source.end, copy.end), (source.padding, copy.padding)):
            of += theirs[: len(ours)]
            to += ours[: len(theirs)]
    return Freeze(0, 1, tuple(of), tuple(to))


def _columns(prompt: Prompt, label: str) -> list[int]:
    rows = set(prompt.find(label).rows)
    return [token.column for token in prompt.tokens if token.row in rows]


@contextmanager
def freezing(unet: Any, images: int, guided: bool, freezes: Sequence[Freeze]) -> Iterator[None]:
    """Draw with these columns frozen; the attention's own processors are back when the block ends, however it ends.

    Args:
        unet: a diffusers UNet.
        images: pictures of the batch.
        guided: whether rows of the negative prompt come first (classifier-free guidance); they are left alone.
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
            undo.append(_replaced(attn, images, guided, freezes))
        yield
    finally:
        for restore in reversed(undo):
            restore()


def _replaced(attn: Any, images: int, guided: bool, freezes: Sequence[Freeze]) -> Callable[[], None]:
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
        first = images if guided else 0
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
