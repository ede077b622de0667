"""The study of syntax: overlaps counted by hand, the right lines in the table, and a run on the model inside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from daam_core.cli import main
from daam_core.errors import BadArgument
from daam_core.studies.report import markdown
from daam_core.studies.study import Found, Unit
from daam_core.studies.syntax import MENTIONS, SyntaxStudy, world_captions
from daam_core.studies.syntax_report import CONTENT, COREFERENT, UNRELATED, conclude, dominant, lines, overlap_table
from daam_core.studies.trees import Tree, coreferents, pairs
from daam_core.tiny.caption_reader import read_caption

from .staged import StagedStudio, measured, options, run

STUDY = SyntaxStudy()


def unit(text: str, key: str = "one") -> Unit:
    tree = Tree.from_caption(read_caption(text)).to_dict()
    return Unit(key, {"prompt": text, "split": "captions", "number": 99, "seed": 0, "tree": tree})


def test_overlaps_of_a_prompt_counted_by_hand(tmp_path: Path) -> None:
    """The adjective's box holds the noun's: all of the noun is covered, a quarter of the adjective lies in it."""
    runner = StagedStudio({"red": (0, 0, 16, 16), "house": (0, 0, 8, 8), "tree": (16, 16, 32, 32), "and": (0, 0, 32, 32)})
    found = measured(STUDY, runner.as_runner(), [unit("a red house and tree")], options(STUDY), tmp_path)
    rows = found.rows.set_index(["dependent", "head"])
    red = rows.loc[("red", "house")]
    assert (red["relation"], red["iod"], red["ioh"], red["iou"]) == ("amod", 0.25, 1.0, 0.25)
    joined = rows.loc[("tree", "house")]
    assert (joined["relation"], joined["iod"], joined["iou"]) == ("conj:and", 0.0, 0.0)
    # "a" has no heat at all: nothing to divide by, and no zero that would be taken for a finding.
    article = rows.loc[("a", "house")]
    assert pd.isna(article["iod"]) and article["ioh"] == 0
    assert len(rows) == 5 * 4 / 2
    assert red["content"] and joined["content"] and not article["content"]


def test_a_word_that_was_cut_off_leaves_empty_cells(tmp_path: Path) -> None:
    runner = StagedStudio({"red": (0, 0, 9, 9), "house": (0, 0, 9, 9)}, split=lambda text: text.split()[:3])
    found = measured(STUDY, runner.as_runner(), [unit("a red house and a tree")], options(STUDY), tmp_path)
    cut = found.rows[(found.rows["dependent"] == "tree") | (found.rows["head"] == "tree")]
    assert len(cut) == 5 and cut["iou"].isna().all()
    report = conclude(found, options(STUDY))
    assert report.facts["pairs"] + report.facts["pairs_left_out"] == len(found.rows)
    assert "pairs are left out" in markdown(report)


def frame(kind: str, relation: str, values: list[tuple[float, ...]]) -> pd.DataFrame:
    """One row a prompt: (IoD, IoH, IoU)."""
    about = {"kind": kind, "relation": relation, "dependent": "d", "head": "h", "content": relation != "det"}
    return pd.DataFrame(
        [{"unit": str(n), "prompt": f"p{n}", **about, "iod": a, "ioh": b, "iou": c} for n, (a, b, c) in enumerate(values)]
    )


def test_the_table_has_the_paper_s_lines_and_says_who_dominates() -> None:
    generator = np.random.default_rng(2)

    def near(*means: float) -> list[tuple[float, ...]]:
        return [tuple(mean + 0.03 * generator.standard_normal() for mean in means) for _ in range(20)]

    amod = near(0.22, 0.9, 0.21)
    rows = pd.concat(
        [
            frame("unrelated", "unrelated", near(0.5, 0.5, 0.4)),
            frame("relation", "amod", amod),
            frame("relation", "nmod:of", near(0.9, 0.3, 0.3)),
            frame("relation", "conj:and", near(0.47, 0.4, 0.4)),
            frame("coreferent", "coreferent", near(0.9, 0.88, 0.8)),
        ]
    )
    groups = lines(rows)
    assert list(groups) == [UNRELATED, CONTENT, "all head-dependent pairs", "amod", "conj:and", "nmod:of", COREFERENT]
    table = overlap_table(groups).frame.set_index("pairs of words")
    assert table.loc["amod", "mIoD"] == pytest.approx(100 * np.mean([row[0] for row in amod]))
    assert table.loc["amod", "mIoD - mIoH"] == pytest.approx(100 * np.mean([row[0] - row[1] for row in amod]))
    assert table["dominates"].to_dict() == {
        UNRELATED: "-", CONTENT: "-", "all head-dependent pairs": "-", "amod": "dependent", "conj:and": "-", "nmod:of": "head",
        COREFERENT: "-",
    }  # fmt: skip
    assert table.loc["amod", "p, prompts"] == "<0.001" and float(table.loc["conj:and", "p, prompts"]) > 0.05
    assert table.loc[UNRELATED, "p, prompts"] == "-"


def test_dominance_needs_ten_points_and_significance() -> None:
    assert [dominant(*x) for x in ((12, 0.001), (-12, 0.001), (12, 0.02), (9, 0.0), (12, float("nan")))] == [
        "head", "dependent", "-", "-", "-",
    ]  # fmt: skip


def test_without_one_pair_the_report_says_so() -> None:
    empty = frame("relation", "amod", [(float("nan"), 0.0, float("nan"))])
    text = markdown(conclude(Found(empty, {}, ()), options(STUDY)))
    assert "Not one pair could be compared" in text


def test_the_world_s_second_mentions_are_coreferent_and_no_relation() -> None:
    for asked, tree in world_captions(9).items():
        assert asked.text.split() == list(tree.words)
        if asked.split == MENTIONS:
            ((first, second),) = coreferents(tree)
            assert tree.words[first] == tree.words[second]
            assert [p.kind for p in pairs(tree) if {p.dependent, p.head} == {first, second}] == ["coreferent"]


def test_a_file_s_prompts_need_a_parser_or_the_grammar(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red house and a green tree\na blue fish at sea\n", encoding="utf-8")
    units = STUDY.units(options(STUDY, "--prompts", str(prompts), "--parser", "grammar", "--seeds", "2"))
    assert [u.content["prompt"] for u in units] == [*["a red house and a green tree"] * 2, *["a blue fish at sea"] * 2]
    assert units[0].content["tree"] == Tree.from_caption(read_caption("a red house and a green tree")).to_dict()
    prompts.write_text("house\nfish\n", encoding="utf-8")
    with pytest.raises(BadArgument, match="No prompt has two words"):
        STUDY.units(options(STUDY, "--prompts", str(prompts), "--parser", "grammar"))


def test_no_pipeline_of_spacy_is_one_sentence_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spacy = pytest.importorskip("spacy", reason='spaCy is not installed: pip install "daam-lens[syntax]"')
    monkeypatch.setattr(spacy.util, "get_installed_models", list)
    (tmp_path / "p.txt").write_text("a cat chases its tail\n", encoding="utf-8")
    code = main(["study", "syntax", "--out", str(tmp_path / "out"), "--prompts", str(tmp_path / "p.txt")])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and "No English pipeline of spaCy is installed" in error
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_small_run_on_the_model_inside(tmp_path: Path) -> None:
    files = run(STUDY, tmp_path, "--limit", "2", "--steps", "2")
    rows = pd.read_csv(files["rows.csv"])
    assert set(rows["split"]) == {"captions", MENTIONS} and {"amod", "det"} <= set(rows["relation"])
    known = rows.dropna(subset=["iou"])
    assert len(known) > 40 and known[["iod", "ioh", "iou"]].to_numpy().min() >= 0 and known["iou"].max() <= 1
    assert (known["iou"] <= known[["iod", "ioh"]].min(axis=1) + 1e-6).all()
    assert json.loads(files["run.json"].read_text())["pairs"] == len(known)
    assert files["relations.png"].stat().st_size > 5000 and "Table 2" in files["report.md"].read_text()
