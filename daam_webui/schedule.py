"""Which text each picture is told at each step of a pass, by the host's own prompt parser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Texts = tuple[tuple[int, str], ...]
"""(last step, text), as the host's schedules are."""


@dataclass(frozen=True)
class PassTexts:
    """The texts of one pass: for each picture its AND parts with their schedules, and its negative prompt's schedule."""

    prompts: tuple[tuple[Texts, ...], ...]
    negatives: tuple[Texts, ...]


def pass_texts(parser: Any, prompts: Sequence[str], negatives: Sequence[str], steps: Sequence[Any]) -> PassTexts:
    """The host's reading of prompts.

    Args:
        parser: the host's `modules.prompt_parser`.
        prompts, negatives: one text for each picture, LoRA tags already taken out.
        steps: the arguments after the prompts of the host's `get_learned_conditioning_prompt_schedules`.
    """
    indexes, flat, _ = parser.get_multicond_prompt_list(list(prompts))
    schedules = [_frozen(s) for s in parser.get_learned_conditioning_prompt_schedules(list(flat), *steps)]
    others = [_frozen(s) for s in parser.get_learned_conditioning_prompt_schedules(list(negatives), *steps)]
    return PassTexts(tuple(tuple(schedules[i] for i, _weight in parts) for parts in indexes), tuple(others))


def text_at(schedule: Texts, step: int) -> str:
    """What is said at a step, counted from 0; by the host's rule, the first entry that has not ended, else the first."""
    return next((text for last, text in schedule if step <= last), schedule[0][1])


def groups(passes: Sequence[PassTexts], image: int, negative: bool = False) -> list[list[str]]:
    """A picture's texts by AND part, over all passes."""
    if negative:
        return [[text for one in passes for _, text in one.negatives[image]]]
    count = max(len(one.prompts[image]) for one in passes)
    return [
        [text for one in passes if group < len(one.prompts[image]) for _, text in one.prompts[image][group]]
        for group in range(count)
    ]


def _frozen(schedule: Sequence[Sequence[Any]]) -> Texts:
    return tuple((int(last), str(text)) for last, text in schedule)
