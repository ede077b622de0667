"""The study of attribution: which words are on the sheet, and means from ratings that are known."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from daam_core.cli import main
from daam_core.errors import BadArgument
from daam_core.studies.attribution import AttributionStudy
from daam_core.studies.attribution_report import SHEET, cut_at, opinion_table, sheet_of
from daam_core.studies.report import Table, markdown
from daam_core.studies.study import Found, Unit
from daam_core.studies.trees import Tree
from daam_core.tiny.caption_reader import read_caption

from .staged import StagedStudio, measured, options, run

STUDY = AttributionStudy()
PROMPTS = ["a red house and a green tree", "a blue fish at sea", "a pink star above a big boat"]


def units() -> list[Unit]:
    trees = [Tree.from_caption(read_caption(text)).to_dict() for text in PROMPTS]
    return [
        Unit(f"u{n}", {"prompt": text, "split": "captions", "number": n, "seed": n, "tree": tree})
        for n, (text, tree) in enumerate(zip(PROMPTS, trees, strict=True))
    ]


@pytest.fixture
def found(tmp_path: Path) -> Found:
    runner = StagedStudio({word: (0, 0, 16, 16) for text in PROMPTS for word in text.split()})
    return measured(STUDY, runner.as_runner(), units(), options(STUDY), tmp_path)


def write(path: Path, sheet: str, ratings: dict[str, dict[str, int | str]]) -> Path:
    lines = [f"{sheet},{rater},{item},{value}" for rater, given in ratings.items() for item, value in given.items()]
    path.write_text("\n".join(["sheet,rater,item,rating", *lines]) + "\n", encoding="utf-8")
    return path


def test_all_words_with_their_place_in_the_prompt(found: Found) -> None:
    sheet, images = sheet_of(found, 1000)
    assert len(sheet.items) == sum(len(text.split()) for text in PROMPTS)
    assert {item.before + item.word + item.after for item in sheet.items} == set(PROMPTS)
    assert Counter(item.tag for item in sheet.items) == {"NOUN": 6, "ADJ": 5, "DET": 5, "CCONJ": 1, "ADP": 2}
    assert all(
        images[item.picture].startswith(b"\x89PNG") and images[item.overlay] != images[item.picture] for item in sheet.items
    )


def test_parts_of_speech_share_a_short_sheet(found: Found) -> None:
    sheet, _ = sheet_of(found, 8)
    # There is one conjunction, so the round that would take a second one goes to the others, in the order of their names.
    assert Counter(item.tag for item in sheet.items) == {"ADJ": 2, "ADP": 2, "CCONJ": 1, "DET": 2, "NOUN": 1}
    assert sheet.id == sheet_of(found, 8)[0].id != sheet_of(found, 9)[0].id


def test_other_pictures_make_another_sheet(found: Found, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    runner = StagedStudio({word: (8, 8, 16, 16) for text in PROMPTS for word in text.split()})
    other = measured(STUDY, runner.as_runner(), units(), options(STUDY), tmp_path / "other")
    assert sheet_of(found, 99)[0].id != sheet_of(other, 99)[0].id


@pytest.mark.parametrize(
    ("prompt", "words", "place", "expected"),
    [
        ("A house, a House.", ["a", "house", ",", "a", "house", "."], 4, ("A house, a ", "House", ".")),
        ("don't go", ["do", "n't", "go"], 1, ("do", "n't", " go")),
        ("  a   red  house ", ["a", "red", "house"], 1, ("  a   ", "red", "  house ")),
        ("x", ["other"], 0, ("", "other", "")),
    ],
)
def test_the_prompt_is_cut_as_it_was_typed(prompt: str, words: list[str], place: int, expected: tuple[str, str, str]) -> None:
    assert cut_at(prompt, words, place) == expected


def test_means_by_part_of_speech_are_those_of_the_ratings(found: Found, tmp_path: Path) -> None:
    given = options(STUDY)
    sheet, _ = sheet_of(found, given.sheet_items)
    checks = {check.id: check.asked for check in sheet.checks}
    by_tag = {"NOUN": (5, 4), "ADJ": (2, 4), "DET": ("abstract", 1)}
    ratings: dict[str, dict[str, int | str]] = {"anna": dict(checks), "ben": dict(checks), "bot": {}}
    for item in sheet.items:
        for rater, value in zip(("anna", "ben"), by_tag.get(item.tag, ("poor", "poor")), strict=True):
            ratings[rater][item.id] = value
        ratings["bot"][item.id] = 1
    ratings["bot"] |= {name: asked % 5 + 1 for name, asked in checks.items()}
    given.ratings = [write(tmp_path / "r.csv", sheet.id, ratings)]
    report = STUDY.conclude(found, given)
    tables = {part.title: part.frame for part in report.parts if isinstance(part, Table)}
    raters = tables["Raters"].set_index("rater")["counts"]
    assert raters.to_dict() == {"anna": "yes", "ben": "yes", "bot": "no"}
    means = tables["Mean opinion by part of speech"].set_index("part of speech")
    assert means.loc["noun", "mean opinion"] == 4.5 and means.loc["adjective", "mean opinion"] == 3
    assert means.loc["adjective", "fair or better, %"] == 50 and means.loc["determiner", "too abstract, %"] == 50
    assert means.loc["preposition", "poor picture, %"] == 100 and pd.isna(means.loc["preposition", "mean opinion"])
    text = markdown(report)
    assert "2 raters" in text and "Krippendorff's alpha" in text and "nan" not in text
    assert report.facts["krippendorff_alpha"] is not None and SHEET in report.files


def test_a_word_rated_by_many_weighs_as_one() -> None:
    rows = [("i0", 5)] * 8 + [("i1", 1)]
    table = pd.DataFrame(
        [
            {"rater": f"r{n}", "item": item, "tag": "NOUN", "word": item, "rating": float(v), "remark": ""}
            for n, (item, v) in enumerate(rows)
        ]
    )
    assert opinion_table(table).frame.set_index("part of speech").loc["noun", "mean opinion"] == 3


def test_a_file_that_is_no_ratings_is_told_before_anything_is_painted(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadArgument, match="no column 'sheet'"):
        STUDY.units(options(STUDY, "--ratings", str(tmp_path / "r.csv")))


def test_nobody_who_counts_is_said(found: Found, tmp_path: Path) -> None:
    given = options(STUDY)
    sheet, _ = sheet_of(found, given.sheet_items)
    wrong = {check.id: check.asked % 5 + 1 for check in sheet.checks}
    given.ratings = [write(tmp_path / "r.csv", sheet.id, {"bot": {sheet.items[0].id: 3, **wrong}})]
    assert "No rating is left" in markdown(STUDY.conclude(found, given))
    given.ratings = [write(tmp_path / "r.csv", sheet.id, {"anna": {sheet.items[0].id: 3}})]
    assert "One rater cannot agree" in markdown(STUDY.conclude(found, given))


def test_the_whole_way_on_the_model_inside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--limit", "1", "--steps", "2"]
    files = run(STUDY, tmp_path / "out", *arguments)
    assert SHEET in files and "Give rating_sheet.html to your raters" in files["report.md"].read_text()
    sheet = json.loads(files["run.json"].read_text())["sheet"]
    page = files[SHEET].read_text()
    names = [entry["id"] for entry in json.loads(page.split('id="sheet">')[1].split("</script>")[0])["items"]]
    good = write(
        tmp_path / "good.csv",
        sheet,
        {rater: dict.fromkeys([n for n in names if "check" not in n], v) for rater, v in (("anna", 4), ("ben", 5))},
    )
    again = run(STUDY, tmp_path / "out", *arguments, "--ratings", str(good))
    assert "Mean opinion by part of speech" in again["report.md"].read_text()
    before = again["report.md"].read_bytes()
    bad = [
        write(tmp_path / "unknown.csv", sheet, {"anna": {"nowhere": 3}}),
        write(tmp_path / "range.csv", sheet, {"anna": {names[0]: 9}}),
        write(tmp_path / "other.csv", "0" * 12, {"anna": {names[0]: 3}}),
    ]
    for paths in ([bad[0]], [bad[1]], [bad[2]], [good, good], [tmp_path / "missing.csv"]):
        command = ["study", "attribution", "--out", str(tmp_path / "out"), *arguments, "--ratings", *map(str, paths)]
        assert main(command) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("daam-lens: ") and error.endswith(".")
    assert again["report.md"].read_bytes() == before
