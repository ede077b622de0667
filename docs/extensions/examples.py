"""For the site: a docstring's `Example:` is shown as the code that it is, not read as Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_HEADING = re.compile(r"^(\s*)Example:\s*$", re.M)


class Examples(griffe.Extension):
    """Calls the section by the name under which the parser of Google's style knows it."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rename the heading in one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _HEADING.sub(r"\1Examples:", obj.docstring.value)
