"""Which row of a model's batch is which picture's, and what it says. Pure: no host, no tensors but for a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["prompt", "negative"]


@dataclass(frozen=True)
class Label:
    """What one row of the batch stands for: a side, a picture of the batch, an AND part of its prompt."""

    side: Side
    image: int
    group: int = 0


def in_order(parts: Sequence[int]) -> list[Label]:
    """The rows of one step in A1111's order: picture by picture, AND parts inside; then the negative prompts.

    Args:
        parts: number of AND parts of each picture.
    """
    prompts = [Label("prompt", image, group) for image, count in enumerate(parts) for group in range(count)]
    return prompts + [Label("negative", image) for image in range(len(parts))]


def in_chunks(
    rows: int,
    chunks: Sequence[int],
    images: int,
    which: Callable[[int, list[int]], int | None],
    recorded: set[tuple[Side, int]],
) -> list[Label | None]:
    """The rows of one call in Forge's order: one chunk for each conditioning, all pictures inside.

    Args:
        rows: rows of the batch.
        chunks: 0 for a prompt, 1 for a negative prompt, one for each chunk.
        images: pictures in a chunk.
        which: the AND part of chunk number i, given those that are still open.
        recorded: conditionings that this step has had; a second look at one (PAG, SAG) is another extension's. Added to.
    """
    if rows != images * len(chunks):
        return []
    labels: list[Label | None] = []
    for number, kind in enumerate(chunks):
        side: Side = "prompt" if kind == 0 else "negative"
        done = [group for known, group in recorded if known == side]
        group = which(number, done) if side == "prompt" else 0
        if group is None or (side, group) in recorded:
            labels += [None] * images
            continue
        recorded.add((side, group))
        labels += [Label(side, image, group) for image in range(images)]
    return labels


def in_pieces(
    rows: int, images: int, found: Callable[[slice], Sequence[tuple[Side, int]]], recorded: set[tuple[Side, int]]
) -> list[Label | None]:
    """The rows of a call in which another extension gives the model a part of what the host gave it, all pictures inside.

    Args:
        rows: rows of the batch.
        images: pictures in a piece.
        found: the conditionings that these rows may be, by their content.
        recorded: as for `in_chunks`.
    """
    if rows % images:
        return []
    labels: list[Label | None] = []
    for first in range(0, rows, images):
        alike = found(slice(first, first + images))
        if len(alike) != 1 or alike[0] in recorded:
            labels += [None] * images
            continue
        recorded.add(alike[0])
        labels += [Label(alike[0][0], image, alike[0][1]) for image in range(images)]
    return labels


def runs_of(labels: Sequence[Label | None], side: Side, images: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    """Where these pictures stand side by side: (first row, AND part of each picture) for each such place.

    A row of these pictures that does not stand so is left out; see `stray`.
    """
    found: list[tuple[int, tuple[int, ...]]] = []
    first = 0
    while first + len(images) <= len(labels):
        here = labels[first : first + len(images)]
        if all(x is not None and x.side == side and x.image == image for x, image in zip(here, images, strict=True)):
            found.append((first, tuple(x.group for x in here if x is not None)))
            first += len(images)
        else:
            first += 1
    return found


def stray(labels: Sequence[Label | None], side: Side, images: Sequence[int]) -> bool:
    """Whether a row of these pictures stands apart from the others, so that it cannot be recorded."""
    rows = sum(1 for x in labels if x is not None and x.side == side and x.image in images)
    return rows != len(images) * len(runs_of(labels, side, images))
