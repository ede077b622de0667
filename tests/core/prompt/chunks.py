"""Token ids in chunks of 77, as a host encodes them."""

from __future__ import annotations

from collections.abc import Sequence


def chunks(ids: Sequence[int], start: int, end: int, padding: int | None = None, size: int = 75) -> list[list[int]]:
    """Cut token ids (without start and end) into chunks `[start, up to size ids, end, padding ...]` of size + 2; `padding`
    is `end` by default, as in SD 1. No ids give one empty chunk."""
    fill = end if padding is None else padding
    parts = [list(ids[i : i + size]) for i in range(0, max(len(ids), 1), size)]
    return [[start, *part, end, *[fill] * (size - len(part))] for part in parts]
