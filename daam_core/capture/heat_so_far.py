"""One word's heat while the sampler still runs: Eq. 6 of the steps that are finished."""

from __future__ import annotations

from torch import Tensor

from ..attention.upsample import bicubic
from ..maps.relabel import by_index
from ..prompt.prompt import Word
from ..types import Grid, Size
from .buffers import GridSums
from .recording import Group, Recording


def heat_so_far(recording: Recording, image: int, query: str, size: Size) -> Tensor | None:
    """The mean attention of a word over the heads, layers and steps that were recorded so far: `heat_map / sum of num_terms`.

    Copies the word's own sums off the device, which waits for it. The recording goes on; what waited in batches is worked off
    earlier than it would be, so that sums may differ in their last bits.

    Args:
        image: number of the picture, from 0.
        query: a word or phrase of its prompt, see `Prompt.find`.
        size: (height, width) of the result.

    Returns:
        float32 `[h, w]` on the CPU, a share of attention 0..1; of a video, its first frame's. None before the first step is
        finished, after recording stopped, and where the prompt's words are not known.

    Raises:
        WordNotFound: the prompt has no such word; the text lists those it has.
    """
    group = _running(recording, image)
    if group is None:
        return None
    position = group.images.index(image)
    prompt = group.prompts[position]
    if by_index(prompt):
        return None
    word = prompt.find(query)
    levels: dict[Grid, Tensor] = {}
    terms = 0
    for part in group.accumulator.sums.values():
        grid = part.area.canvas(part.grid)
        own = part.area.put(_word_sums(part, position, word))
        levels[grid] = levels[grid] + own if grid in levels else own
        terms += part.num_terms
    if not levels:
        return None
    return bicubic([level[None] for level in levels.values()], size)[0] / max(1, terms)


def words_are_known(recording: Recording, image: int) -> bool:
    """Whether the prompt that a picture is made with has words, and not only numbers of columns; True before it is known."""
    group = _running(recording, image)
    return group is None or not by_index(group.prompts[group.images.index(image)])


def _running(recording: Recording, image: int) -> Group | None:
    """The prompt's group of a picture with a finished step; of several in succession the last."""
    groups = [group for group in recording.groups if group.side == "prompt" and image in group.images]
    return next((group for group in reversed(groups) if group.accumulator.step_count), None)


def _word_sums(part: GridSums, position: int, word: Word) -> Tensor:
    """float32 `[h, w]` on the CPU: the word's channels of one picture, of a video those of its first frame."""
    first = 1 if part.frames is None else part.frames.sizes[0]
    sums = part.total[position, : part.grid[0] * part.grid[1], list(word.channels)].sum(-1)
    return sums.unflatten(0, part.grid).cpu() / first
