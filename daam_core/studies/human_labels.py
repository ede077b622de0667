"""Labels of people: whether a picture shows both things it was asked for, one line a picture."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Collection, Mapping
from pathlib import Path

from ..errors import BadArgument, quoted
from .tables import read_rows, rows_bytes

_YES, _NO = frozenset({"yes", "y", "1", "true"}), frozenset({"no", "n", "0", "false"})


def read_labels(path: Path, units: Collection[str]) -> dict[str, bool]:
    """Both-appear labels by unit key from a CSV file with the columns unit and both; empty labels are passed over.

    Raises:
        BadArgument: unreadable, a column is missing, a unit that this study does not have, a unit twice, or a label that
            is neither yes nor no; the text names the line.
    """
    found: dict[str, bool] = {}
    for where, row in read_rows(path, ("unit", "both"), "labels"):
        unit, label = row["unit"], row["both"].lower()
        if unit not in units:
            raise BadArgument(f"{where}: this study has no unit {quoted(unit)}.")
        if unit in found:
            raise BadArgument(f"{where}: {quoted(unit)} is labelled twice.")
        if label and label not in _YES | _NO:
            raise BadArgument(f"{where}: the label {quoted(label)} is neither yes nor no.")
        if label:
            found[unit] = label in _YES
    if not found:
        raise BadArgument(f"{path} holds no labels: write yes or no into its column both.")
    return found


def labels_template(prompts: Mapping[str, str]) -> bytes:
    """The file to fill in: unit, prompt, both (empty)."""
    return rows_bytes([("unit", "prompt", "both"), *((unit, prompt, "") for unit, prompt in prompts.items())])


def pictures_page(prompts: Mapping[str, str], pictures: Mapping[str, Path]) -> bytes:
    """A page of all pictures with their prompts, to label them by: one HTML file that opens from disk."""
    figures = "\n".join(
        f'<figure><img alt="" src="data:image/png;base64,{b64encode(pictures[unit].read_bytes()).decode()}">'
        f"<figcaption>{html.escape(prompt)}<br><small>{html.escape(unit)}</small></figcaption></figure>"
        for unit, prompt in prompts.items()
        if unit in pictures
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Pictures to label</title>'
        "<style>:root{color-scheme:light dark}body{font:15px/1.4 system-ui,sans-serif;display:flex;flex-wrap:wrap;gap:1rem;"
        "margin:1rem}figure{margin:0;width:14rem}img{width:100%}</style>"
        f"<body>\n{figures}\n</body></html>\n"
    ).encode()
