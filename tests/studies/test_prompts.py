"""What people put into a prompts file, and one sentence for each thing that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from daam_core.errors import BadPrompt
from daam_core.studies.files import read_prompts
from daam_core.studies.prompts import picture_units, study_prompts

from .fakes import options


def written(folder: Path, content: bytes) -> Path:
    path = folder / "prompts.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [b"a red house\na fish", b"a red house\r\na fish\r\n", b"\xef\xbb\xbfa red house\na fish\n", b"  a red house \na fish\n\n"],
)
def test_prompts_are_lines(tmp_path: Path, content: bytes) -> None:
    assert read_prompts(written(tmp_path, content)) == ["a red house", "a fish"]


def test_any_alphabet(tmp_path: Path) -> None:
    assert read_prompts(written(tmp_path, "ein Haus am Fluß\n赤い家 🏠\n".encode())) == ["ein Haus am Fluß", "赤い家 🏠"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a house\n\na fish\n  \nx\n", r"empty lines \(2, 4\)"),
        (b"\n\n", "is empty"),
        (b"", "is empty"),
        ("a house\nein Fluß\n".encode("latin-1"), "not UTF-8 text: line 2 holds the byte 0xDF"),
        ("a house\n".encode("utf-16"), "not UTF-8|zero bytes"),
        ("a house\n".encode("utf-16-le"), "zero bytes"),
        (b"word " * 900, "Line 1 .* more than 2000"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(BadPrompt, match=said):
        read_prompts(written(tmp_path, content))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BadPrompt, match="cannot be read"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(BadPrompt, match="cannot be read"):
        read_prompts(tmp_path)


def test_no_prompt_stands_on_both_halves(tmp_path: Path) -> None:
    """Texts that come twice count once, in a file and in the world."""
    asked = study_prompts(options(tmp_path, limit=150))
    texts = [(one.split, one.text) for one in asked]
    assert len(texts) == len(set(texts)) == 150 + 150 + 50 + 150  # one unreal thing: ten pairs in five places
    path = written(tmp_path, b"a\nb\na\nc\n")
    assert [one.text for one in study_prompts(options(tmp_path, prompts=path))] == ["a", "b", "c"]


def test_more_prompts_or_seeds_only_add_units(tmp_path: Path) -> None:
    """A study that is asked for more keeps what it has."""

    def keys(**changed: object) -> list[tuple[str, str]]:
        asked = options(tmp_path, **changed)
        return [(unit.key, str(unit.content)) for unit in picture_units(asked, study_prompts(asked))]

    few, more_prompts, more_seeds = keys(limit=2), keys(limit=4), keys(limit=2, seeds=3)
    assert set(few) < set(more_prompts)
    assert set(few) < set(more_seeds)
    assert len(few) == 8 and len(more_prompts) == 16 and len(more_seeds) == 24
    assert len({key for key, _ in more_seeds}) == 24
    path = written(tmp_path, b"a\nb\nc\n")
    assert [key for key, _ in keys(prompts=path, limit=2)] == ["prompts 00000 seed 0", "prompts 00001 seed 1"]
