"""Every text of the nodes and their help pages is there in every language, and the files are those that the script writes."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.node_pages import LANGUAGES, ROOT, Language, translated
from benchmarks.page_texts import files

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


def _local_keys() -> set[str]:
    """English texts that the pages look up: literals of `local(…)`, and those that are looked up through a name."""
    found: set[str] = set()
    for path in (*sorted((ROOT / "web" / "explorer").glob("*.js")), ROOT / "web" / "comfyui.js"):
        source = path.read_text(encoding="utf-8")
        for call in re.findall(r"local\(([^()]*(?:\([^()]*\)[^()]*)*)", source):
            first = re.match(r'"((?:[^"\\]|\\.)*)"', call)
            if first:
                found.add(first[1])
            elif "?" in call:
                found |= set(re.findall(r'"((?:[^"\\]|\\.)*)"', call))
    panel = (ROOT / "web" / "explorer" / "mask_panel.js").read_text(encoding="utf-8")
    found |= set(re.findall(r'"([^"]+)"', panel.split("METHOD_TITLES = {")[1].split("};")[0]))
    layout = (ROOT / "web" / "explorer" / "layout.js").read_text(encoding="utf-8")
    found |= set(re.findall(r'"([^"]+)"', re.search(r"VIEWS = \[(.*)\]", layout)[1]))  # type: ignore[index]
    return found | {"steps", "layers", "frames", "all", "down", "mid", "up"}  # axes of detail, and places of layers


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_pages_say_everything_in_every_language(name: str) -> None:
    texts: dict[str, str] = json.loads((ROOT / "locales" / name / "page.json").read_text(encoding="utf-8"))
    assert set(texts) == _local_keys()
    for english, other in texts.items():
        assert sorted(re.findall(r"\{\d\}", english)) == sorted(re.findall(r"\{\d\}", other)), english


@pytest.mark.parametrize("name", LANGUAGES)
def test_webuis_panel_is_said_in_every_language(name: str) -> None:
    """Every label, button and hint of the panel and the page, as the host's own translation looks them up."""
    texts: dict[str, str] = json.loads((ROOT / "locales" / name / "webui.json").read_text(encoding="utf-8"))
    sources = "".join((ROOT / "daam_webui" / file).read_text(encoding="utf-8") for file in ("panel.py", "page.py"))
    shown = set(re.findall(r'(?:label|placeholder)="([^"]+)"', sources)) | set(re.findall(r'box\("\w+", "([^"]+)"\)', sources))
    shown |= set(re.findall(r'gr\.Button\("([^"]+)"', sources))
    page = (ROOT / "javascript" / "daam_lens.js").read_text(encoding="utf-8")
    shown |= set(re.findall(r'(?:button|field)\("([^"]+)"', page)) | set(
        re.findall(r'summary", \{ textContent: "([^"]+)"', page)
    )
    own = {"DAAM Lens", "Layers", "Words", "Negative prompt"}  # the name; and words that hosts translate by themselves
    assert shown - own == set(texts), (shown - own) ^ set(texts)


def test_files_of_the_pages_are_those_that_the_script_writes() -> None:
    for path, text in files().items():
        assert path.read_text(encoding="utf-8") == text, f"run benchmarks/page_texts.py: {path}"
