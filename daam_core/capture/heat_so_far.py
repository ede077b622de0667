"""One word's heat while the sampler still runs: Eq. 6 of the steps that are finished."""

from __future__ import annotations

from torch import Tensor

from ..attention.upsample import bicubic
from ..maps.relabel import by_index
from ..prompt.prompt import Prompt
from ..types import Grid, Size
from .buffers import GridSums
from .recording import Group, Recording
from .region import WHOLE, Area


def heat_so_far(
    recording: Recording, image: int, query: str, size: Size, area: Area = WHOLE, prompt: Prompt | None = None
) -> Tensor | None:
    """The mean attention of a word over the heads, layers and steps that were recorded so far: `heat_map / sum of num_terms`.

    Copies the word's own sums off the device, which waits for it. The recording goes on; what waited in batches is worked off
    earlier than it would be, so that sums may differ in their last bits.

    Args:
        image: number of the picture, from 0.
        query: a word or phrase of its prompt, see `Prompt.find`.
        size: (height, width) of the result.
        area: what is looked at: the whole picture, or one of the areas that are recorded (the same object), with its own sums.
        prompt: the words of a prompt that is recorded by the numbers of its columns, see `maps.relabel`.

    Returns:
        float32 `[h, w]` on the CPU, a share of attention 0..1; of a video, its first frame's. None before the first step is
        finished, after recording stopped, and where the prompt's words are not known.

    Raises:
        WordNotFound: the prompt has no such word; the text lists those it has.
        BadArgument: `prompt` has another number of columns than was recorded.
    """
    group = _running(recording, image)
    if group is None:
        return None
    position = group.images.index(image)
    channels = _channels(group.prompts[position], query, prompt)
    if channels is None:
        return None
    levels: dict[Grid, Tensor] = {}
    terms = 0
    for part in group.accumulator.sums.values():
        if not (area.whole or part.area is area):
            continue
        own = _word_sums(part, position, channels)
        if area.whole:
            own = part.area.put(own, position)
        grid = (own.shape[0], own.shape[1])
        levels[grid] = levels[grid] + own if grid in levels else own
        terms += part.terms
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


def _channels(recorded: Prompt, query: str, prompt: Prompt | None) -> list[int] | None:
    """Which channels of the sums are a word's; None where nobody knows."""
    if not by_index(recorded):
        return list(recorded.find(query).channels)
    if prompt is None:
        return None
    word, length = prompt.find(query), recorded.length
    columns = prompt.selection(length)[:, list(word.channels)].sum(1).nonzero().flatten()
    return [1 + int(column) for column in columns]  # the first channel is that of the start token, which is empty here


def _word_sums(part: GridSums, position: int, channels: list[int]) -> Tensor:
    """float32 `[h, w]` on the CPU: the word's channels of one picture, of a video those of its first frame."""
    first = 1 if part.frames is None else part.frames.sizes[0]
    sums = part.total[position, : part.grid[0] * part.grid[1], channels].sum(-1)
    return sums.unflatten(0, part.grid).cpu() / first
