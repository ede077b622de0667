"""Refuses a release while placeholders stand or the version is not one: run by the release workflows, before anything else.

Usage: python .github/release_check.py [TAG]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PLACEHOLDERS = ("OWNER", "ADDRESS", "example.", "CHANGE-ME")


def problems(project: dict[str, Any], changelog: str, citation: str, tag: str = "") -> list[str]:
    """A sentence for each reason not to release."""
    found = []
    about, comfy = project["project"], project.get("tool", {}).get("comfy", {})
    addresses = {f"project.urls.{name}": url for name, url in about.get("urls", {}).items()}
    if not any(name.endswith("Repository") for name in addresses):
        found.append("pyproject.toml has no project.urls.Repository.")
    for name, value in {**addresses, **{f"tool.comfy.{name}": str(value) for name, value in comfy.items()}}.items():
        if not value or any(word in value for word in PLACEHOLDERS):
            found.append(f"{name} in pyproject.toml is a placeholder: {value!r}.")
    if not comfy.get("PublisherId"):
        found.append("pyproject.toml has no tool.comfy.PublisherId.")
    version = about["version"]
    if tag and tag.removeprefix("v") != version:
        found.append(f"The tag is {tag!r}, the version in pyproject.toml {version!r}.")
    if not re.search(rf"^## {re.escape(version)}\b", changelog, re.M):
        found.append(f"CHANGELOG.md has no section for {version}.")
    if not re.search(rf"^version: {re.escape(version)}$", citation, re.M):
        found.append(f"CITATION.cff is not of version {version}.")
    return found


def main(arguments: list[str]) -> int:
    """0 when it may be released; else 1, with the reasons."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("CHANGELOG.md", "CITATION.cff")]
    found = problems(project, texts[0], texts[1], arguments[0] if arguments else "")
    print("\n".join(found) or "Ready to release.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
