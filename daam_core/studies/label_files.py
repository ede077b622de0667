"""What a person wrote of labels: in a list, one a line, or by picture; checked before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadArgument, quoted
from ..files import bounded_text

LARGEST_FILE = 2**26
"""Bytes of a file of labels."""
MOST_LABELS = 254
"""A label map has one byte a pixel; 0 is no label, 255 is left free."""
LONGEST_LABEL = 100


def labels_of(asked: str, pictures: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The labels to look for in each picture.

    Args:
        asked: labels with commas between, a `.txt` file with one a line, or a `.json` file
            `{"picture.jpg": ["house", …], …}`;
            pictures that the last does not name are left out.
        pictures: names of the pictures there are.

    Returns:
        {picture: labels}, in the order of `pictures`.

    Raises:
        BadArgument: a file that is no such list, no label, one twice, too many, or a picture that is not there.
    """
    path = Path(asked)
    if path.suffix.lower() == ".json":
        return _by_picture(path, pictures)
    lines = _text(path).splitlines() if path.suffix.lower() == ".txt" else asked.split(",")
    labels = _checked([line.strip() for line in lines if line.strip()], asked)
    return dict.fromkeys(pictures, labels)


def numbers_of(labels: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The number of each label in a label map, from 1, in the order in which they are first named. Raises BadArgument."""
    names = list(dict.fromkeys(label for group in labels.values() for label in group))
    if len(names) > MOST_LABELS:
        raise BadArgument(f"There are {len(names)} labels; a label map tells {MOST_LABELS} apart.")
    return {name: number for number, name in enumerate(names, 1)}


def _by_picture(path: Path, pictures: Sequence[str]) -> dict[str, tuple[str, ...]]:
    text = _text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise BadArgument(f"{path} is no JSON.") from None
    if not isinstance(content, dict) or not all(isinstance(group, list) for group in content.values()):
        raise BadArgument(f'{path} does not name the labels of pictures, as in {{"house.jpg": ["house", "tree"]}}.')
    if missing := [name for name in content if name not in set(pictures)]:
        raise BadArgument(f"{path} names the picture {quoted(missing[0])}, which is not in the folder.")
    return {name: _checked(content[name], f"{path}, {name}") for name in pictures if content.get(name)}


def _checked(labels: Sequence[Any], where: str) -> tuple[str, ...]:
    """Labels, each once and fit for a prompt. Raises BadArgument."""
    if not labels or len(labels) > MOST_LABELS:
        raise BadArgument(f"There are {len(labels)} labels in {quoted(where)}; it takes 1 to {MOST_LABELS}.")
    for label in labels:
        if not isinstance(label, str) or not label.strip() or len(label) > LONGEST_LABEL or not label.isprintable():
            raise BadArgument(
                f"{quoted(str(label), 40)} in {quoted(where)} is no label: a word or a few, at most {LONGEST_LABEL} signs."
            )
    found = tuple(label.strip() for label in labels)
    if len({label.casefold() for label in found}) < len(found):
        twice = next(label for i, label in enumerate(found) if label.casefold() in {x.casefold() for x in found[:i]})
        raise BadArgument(f"The label {quoted(twice)} stands twice in {quoted(where)}.")
    return found


def _text(path: Path) -> str:
    try:
        return bounded_text(path, LARGEST_FILE, "file of labels", "utf-8-sig")
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadArgument(f"The labels in {path} cannot be read: {reason[:1].lower()}{reason[1:]}.") from None
    except UnicodeDecodeError:
        raise BadArgument(f"The labels in {path} cannot be read: it is no UTF-8 text.") from None
