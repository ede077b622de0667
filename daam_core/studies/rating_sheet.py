"""The rating sheet of generalised attribution (paper, section 4.2): one HTML file that opens from disk.

A rater sees a picture, the heat of one of its words over it and the prompt, and presses 1 to 5. Everything of a
person's (words, prompts) reaches the page as text. The part of speech stays here, so that nobody rates by it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

TEMPLATE = Path(__file__).with_name("rating_sheet.html")
CHECK_EVERY = 12
"""One attention check for so many items, and at least one."""


@dataclass(frozen=True)
class Item:
    """One word of one picture.

    Attributes:
        id: unique in the sheet.
        before, word, after: the prompt, cut at the word.
        tag: part of speech of the word; not shown.
        picture, overlay: names of image files among `Sheet.images`.
    """

    id: str
    before: str
    word: str
    after: str
    tag: str
    picture: str
    overlay: str


@dataclass(frozen=True)
class Check:
    """An attention check: the sheet asks for one certain rating, 1 to 5."""

    id: str
    asked: int


@dataclass(frozen=True)
class Sheet:
    """Everything that is rated; ratings name its `id`, which depends on the items alone, not on their order."""

    items: tuple[Item, ...]

    @cached_property
    def id(self) -> str:
        """12 hexadecimal digits of the items' ids, words and prompts."""
        items = [[item.id, item.before, item.word, item.after] for item in sorted(self.items, key=lambda item: item.id)]
        return hashlib.sha256(json.dumps(items).encode()).hexdigest()[:12]

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """The attention checks, the same for all raters; what they ask for is drawn from the sheet's own id."""
        count = max(1, round(len(self.items) / CHECK_EVERY)) if self.items else 0
        asked = np.random.default_rng(int(self.id, 16)).integers(1, 6, count)
        return tuple(Check(f"check-{number + 1}", int(value)) for number, value in enumerate(asked))

    def order(self, seed: int) -> list[Item | Check]:
        """Items and checks as they are shown: shuffled with a seed; the first one is never a check."""
        generator = np.random.default_rng(seed)
        shown: list[Item | Check] = [self.items[i] for i in generator.permutation(len(self.items))]
        for check in self.checks:
            shown.insert(int(generator.integers(1, len(shown) + 1)), check)
        return shown


def sheet_html(sheet: Sheet, images: dict[str, bytes], seed: int) -> str:
    """The whole page. `images` are PNG or JPEG files by name."""
    shown = sheet.order(seed)
    used = sorted({name for item in sheet.items for name in (item.picture, item.overlay)})
    data = {
        "id": sheet.id,
        "pictures": {name: _address(images[name]) for name in used},
        "items": [_shown(entry, sheet.items[number % len(sheet.items)]) for number, entry in enumerate(shown)],
    }
    return TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/", _safe_json(data))


def _shown(entry: Item | Check, stand_in: Item) -> dict[str, Any]:
    """What the page gets of one entry; a check is dressed as another item, so that only its line tells."""
    item = stand_in if isinstance(entry, Check) else entry
    shown: dict[str, Any] = {name: getattr(item, name) for name in ("before", "word", "after", "picture", "overlay")}
    return shown | {"id": entry.id, "ask": entry.asked if isinstance(entry, Check) else None}


def _address(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def _safe_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever a prompt says."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
