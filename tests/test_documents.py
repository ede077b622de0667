"""Documents: figures are those of the benchmarks, lists those of the registries, snippets run, links lead somewhere."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.documents import DOCUMENTS, FIGURES, RESULTS, Figure, cells, filled, texts
from daam_core.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_figures_and_lists_are_the_present_ones(name: str) -> None:
    """Run `python -m benchmarks.documents` where this fails."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert filled(text, texts(RESULTS.read_text(encoding="utf-8"))) == text


def test_every_figure_is_used_and_a_change_of_results_reaches_the_documents() -> None:
    results = RESULTS.read_text(encoding="utf-8")
    all_text = "".join((ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS)
    assert not [name for name in FIGURES if f"<!-- {name} -->" not in all_text]
    for name, figure in FIGURES.items():
        cell = cells(results, figure)
        number = re.match(r"[\d.]+", cell)
        assert number, f"{name}: {cell}"
        start = results.index(f"## {figure.section}\n")  # another section may have the same row
        before, behind = results[:start], results[start:]
        line = next(x for x in behind.splitlines() if cell in x and all(v in x for v in figure.row.values()))
        changed = before + behind.replace(line, line.replace(cell, cell.replace(number[0], "9.5")), 1)
        assert texts(changed)[name] != texts(results)[name] or number[0] == "9.5", name


def test_a_place_or_figure_that_is_not_known_is_said() -> None:
    with pytest.raises(LookupError, match="'magic'"):
        filled("<!-- magic -->1<!-- / -->", {})
    with pytest.raises(LookupError, match="0 sections"):
        cells("# x", Figure("nothing", {}, "a", str))
    with pytest.raises(LookupError, match="0 rows"):
        cells("## a\n| with | b |\n| --- | --- |\n| x | 1 |\n", Figure("a", {"with": "y"}, "b", str))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    missing = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not missing


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def _snippets(page: Path) -> list[str]:
    """The Python of a page, without what talks to a server, a model that is not here, or castorini's package."""
    return [b for b in _blocks(page, "python") if not re.search(r"requests|from_pretrained|\bdaam\.", b)]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if _snippets(page)], ids=lambda page: page.name)
def test_python_of_the_documents_runs_and_says_nothing_else(page: Path, tmp_path: Path) -> None:
    """All blocks of a page in order, in one interpreter."""
    blocks = _snippets(page)
    code = "\n".join(blocks)
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line for line in re.split(r"[\r\n]+", done.stderr) if line.strip() and "it/s]" not in line and "s/it]" not in line]
    # What a scheduler of diffusers does with NumPy is a warning to its makers, and off by default.
    assert not [line for line in said if "transformers]" in line or "diffusers]" in line or "FutureWarning" in line], said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_documents_are_understood(page: Path) -> None:
    """Every `daam-lens …` line of a block parses (studies and records are only named)."""
    for block in _blocks(page, "(?:bash|sh)?"):
        for line in block.splitlines():
            match = re.search(r"(?:^|&& |\$ )daam-lens (.+?)(?:\s+#.*)?$", line)
            if match is None or re.search(r"[…|]| \\$", line):
                continue
            arguments = shlex.split(match[1])
            build_parser(arguments).parse_args(arguments)


def test_what_the_site_describes_is_there() -> None:
    """A name behind `:::` that was moved stops the whole site."""
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.M)
    assert names
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


_DEFINED = re.compile(r"^ *(?:async )?(?:def|class) (\w+)", re.M)


def test_functions_of_the_equation_are_in_the_files_beside_them() -> None:
    """Every row of a table on docs/equation.md that names files and functions; a method's class may be in another of them."""
    rows = re.findall(
        r"^\|[^|]+\|[^|]+\|(.*\.py.*)\|(.*)\|$", (ROOT / "docs" / "equation.md").read_text(encoding="utf-8"), re.M
    )
    assert len(rows) > 10
    for files, functions in rows:
        places = [ROOT / "daam_core" / name.removeprefix("daam_core/") for name in re.findall(r"`([\w/]+\.py)`", files)]
        defined = {name for place in places for name in _DEFINED.findall(place.read_text(encoding="utf-8"))}
        named = {part for name in re.findall(r"`([\w.]+)`", functions) for part in name.split(".")}
        assert named and named <= defined, (files, named - defined)


@pytest.mark.parametrize("page", ["add-a-family.md", "equation.md"])
def test_files_that_a_guide_names_are_there(page: str) -> None:
    names = re.findall(r"`((?:daam_core|tests)/[\w/]+\.(?:py|md))`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(names) > 5 and not [name for name in names if not (ROOT / name).is_file()]


def test_what_a_family_s_guide_asks_for_are_fields_of_a_family() -> None:
    from daam_core.capture.family import Family

    asked = (ROOT / "docs" / "add-a-family.md").read_text(encoding="utf-8").split("## 1.")[1].split("## 2.")[0]
    fields = {name for row in re.findall(r"^\|[^|]+\|([^|]+)\|$", asked, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert len(fields) > 7 and fields <= {one.name for one in dataclasses.fields(Family)}


def test_webuis_stand_beside_families_that_there_are() -> None:
    """What the tests of WebUIs noted has the names of the registries, and no version that is not out yet."""
    from daam_core import __version__
    from daam_core.capture.families import FAMILIES
    from daam_core.capture.forge_families import FORGE_FAMILIES
    from tests.webui.checked import FILE, HOSTS

    noted = json.loads(FILE.read_text(encoding="utf-8"))
    unets = {f"Stable Diffusion {kind}" for kind in ("1", "2", "XL")}
    assert set(noted) <= {*unets, *FORGE_FAMILIES, *(family.name for family in FAMILIES)}
    known = tuple(int(x) for x in __version__.split("."))
    for hosts in noted.values():
        assert set(hosts) <= set(HOSTS.values())
        assert all(tuple(int(x) for x in version.split(".")) <= known for version in hosts.values())
