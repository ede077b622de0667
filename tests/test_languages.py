"""Every text of the nodes and their help pages is there in every language, and the files are those that the script writes."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.node_pages import LANGUAGES, ROOT, Language, translated

ENGLISH = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", LANGUAGES)
def test_nothing_is_missing_and_nothing_left_over(name: str) -> None:
    language = Language(name)
    files = translated(language, ENGLISH)
    assert language.missing == [] and language.unused == []
    for path, text in files.items():
        assert path.read_text(encoding="utf-8") == text, f"run benchmarks/node_pages.py: {path}"
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "web" / "docs").glob(f"*/{name}.md")}
    assert pages == {path.relative_to(ROOT).as_posix() for path in files if path.suffix == ".md"}


@pytest.mark.parametrize("name", LANGUAGES)
def test_keys_are_the_english_ones(name: str) -> None:
    other = json.loads((ROOT / "locales" / name / "nodeDefs.json").read_text(encoding="utf-8"))
    assert list(other) == list(ENGLISH)
    for node, one in ENGLISH.items():
        for kind in ("inputs", "outputs"):
            assert list(other[node][kind]) == list(one[kind])


@pytest.mark.parametrize("name", LANGUAGES)
def test_what_is_typed_stays_as_it_is(name: str) -> None:
    """Code, node values and links are the same in every language, and a text is not simply the English one."""
    texts: dict[str, str] = json.loads((ROOT / "locales" / name / "texts.json").read_text(encoding="utf-8"))
    for english, other in texts.items():
        for code in re.findall(r"`[^`]+`|\*\*(?!Tip)[A-Z][^*]+\*\*(?=\.)", english):
            assert code in other or code.startswith("**"), (english, code)
    same = [english for english, other in texts.items() if english == other and len(english.split()) > 2]
    assert same == []


def test_a_missing_text_would_be_seen() -> None:
    language = Language("de")
    assert language.text("Nobody has said this.") == "Nobody has said this."
    assert language.missing == ["Nobody has said this."]
