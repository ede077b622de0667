"""The study of cohyponyms: pairs, labels and verdicts, the numbers of its tables, and a run on the model inside."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from daam_core.cli import main
from daam_core.errors import BadArgument
from daam_core.studies.cohyponyms import CohyponymsStudy
from daam_core.studies.cohyponyms_report import groups_table, kinds_table, relation
from daam_core.studies.human_labels import labels_template, pictures_page, read_labels
from daam_core.studies.noun_pairs import COHYPONYMS, NounPair, read_pairs, world_pairs
from daam_core.studies.report import markdown
from daam_core.studies.significance import logistic

from .staged import StagedStudio, measured, options, run

STUDY = CohyponymsStudy()


def test_every_noun_of_the_world_is_as_often_in_both_kinds() -> None:
    found = world_pairs()
    assert len(found) == len({frozenset((p.first, p.second)) for p in found}) == 36
    for kind, times in ((COHYPONYMS, 2), ("others", 6)):
        count = Counter(noun for p in found if p.kind == kind for noun in (p.first, p.second))
        assert len(count) == 9 and set(count.values()) == {times}


def test_prompts_and_units() -> None:
    assert NounPair("apple", "fire hydrant", "others").prompt() == "an apple and a fire hydrant"
    assert NounPair("apple", "fire hydrant", "others").prompt(swapped=True) == "a fire hydrant and an apple"
    units = STUDY.units(options(STUDY, "--seeds", "2", "--limit", "4"))
    assert len(units) == 16 and len({u.key for u in units}) == 16
    first, second = units[0].content, units[1].content
    assert (first["first"], first["second"]) == (second["second"], second["first"]) and first["pair"] == second["pair"]
    assert first["prompt"].split()[-1] == first["second"]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("first,second\na,b\n", "no column 'relation'"),
        ("first,second,relation\na,b,sister\n", "line 2: the relation 'sister'"),
        ("first,second,relation\na,,other\n", "are not two nouns"),
        ("first,second,relation\ncat,Cat,other\n", "are not two nouns"),
        ("first,second,relation\na,b,other\nb,a,cohyponym\n", "line 3: 'b' and 'a' are in the file twice"),
        ("first,second,relation\na,b,other\n", "needs pairs of both relations"),
        ("", "no column 'first'"),
    ],
)
def test_a_wrong_pairs_file_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        read_pairs(write(tmp_path / "pairs.csv", text))
    with pytest.raises(BadArgument, match="cannot be read"):
        read_pairs(tmp_path / "missing.csv")


def test_pairs_of_a_file_are_taken_and_unknown_nouns_need_another_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "pairs.csv", "first,second,relation\ncat,dog,cohyponym\ncat,fridge,other\n")
    found = STUDY.units(options(STUDY, "--pairs", str(path), "--judge", "maps"))
    assert [u.content["prompt"] for u in found] == ["a cat and a dog", "a cat and a fridge"]
    code = main(["study", "cohyponyms", "--out", str(tmp_path / "o"), "--pairs", str(path)])
    assert code == 2 and "The segmenter does not know cat, dog, fridge" in capsys.readouterr().err
    assert main(["study", "cohyponyms", "--out", str(tmp_path / "o"), "--prompts", str(path)]) == 2
    assert "give --pairs FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unit,both\nnowhere,yes\n", "line 2: this study has no unit 'nowhere'"),
        ("unit,both\nu1,maybe\n", "the label 'maybe' is neither yes nor no"),
        ("unit,both\nu1,yes\nu1,no\n", "line 3: 'u1' is labelled twice"),
        ("unit\nu1\n", "no column 'both'"),
        ("unit,both\nu1,\n", "holds no labels"),
    ],
)
def test_wrong_labels_are_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        read_labels(write(tmp_path / "labels.csv", text), {"u1", "u2"})


def test_wrong_labels_are_told_before_anything_is_painted(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "unit,both\nnowhere,yes\n")
    with pytest.raises(BadArgument, match="no unit 'nowhere'"):
        STUDY.units(options(STUDY, "--labels", str(path)))


def test_a_filled_in_template_is_read(tmp_path: Path) -> None:
    template = labels_template({"u1": 'a "big", cat', "u2": "a dog"}).decode()
    assert template.splitlines()[0] == "unit,prompt,both"
    path = write(tmp_path / "labels.csv", template.replace('cat",', 'cat",Yes'))
    assert read_labels(path, {"u1", "u2"}) == {"u1": True}


def test_a_page_to_label_by_shows_prompts_as_text(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "p.png")
    page = pictures_page({"u1": "a <script>alert(1)</script> & a cat", "u2": "not kept"}, {"u1": tmp_path / "p.png"}).decode()
    assert "&lt;script&gt;" in page and "<script" not in page and page.count("<img") == 1


def test_another_model_s_verdict_is_a_proxy_until_people_look(tmp_path: Path) -> None:
    """Cat and dog share a box, cat and fridge do not."""
    pairs = write(tmp_path / "pairs.csv", "first,second,relation\ncat,dog,cohyponym\ncat,fridge,other\n")
    given = options(STUDY, "--pairs", str(pairs), "--judge", "maps")
    runner = StagedStudio({"cat": (0, 0, 16, 16), "dog": (0, 0, 16, 16), "fridge": (16, 16, 32, 32)})
    units = STUDY.units(given)
    found = measured(STUDY, runner.as_runner(), units, given, tmp_path)
    assert list(found.rows["iou"]) == [1.0, 0.0] and list(found.rows["both"]) == [False, True]
    report = STUDY.conclude(found, given)
    text = markdown(report)
    assert "PROXY" in text and "Overlap and failure" not in text
    assert set(report.files) == {"labels.csv", "to_label.html"}
    assert report.files["to_label.html"].count(b"data:image/png") == 2
    labels = write(tmp_path / "mine.csv", "unit,both\n" + "".join(f"{u.key},yes\n" for u in units))
    given.labels = labels
    text = markdown(STUDY.conclude(found, given))
    assert "PROXY" not in text and "people say" in text and "0 of 2 pictures fail" in text


def frame(counts: dict[tuple[str, bool], list[float]]) -> pd.DataFrame:
    rows = []
    for (kind, both), overlaps in counts.items():
        for n, iou in enumerate(overlaps):
            rows.append({"unit": f"{kind}{both}{n}", "kind": kind, "pair": f"{kind} {n % 8}", "iou": iou, "both": float(both)})
    return pd.DataFrame(rows)


def test_rates_and_overlaps_equal_hand_counts() -> None:
    rows = frame(
        {
            ("cohyponyms", True): [0.5] * 10,
            ("cohyponyms", False): [0.7] * 10,
            ("others", True): [0.2] * 18,
            ("others", False): [0.4] * 2,
        }
    )
    table = kinds_table(rows, rows).frame.set_index("pairs of nouns")
    assert table.loc["cohyponyms", "both appear"].startswith("50.0 %") and table.loc["others", "both appear"].startswith(
        "90.0 %"
    )
    assert table.loc["cohyponyms", "overlap (IoU)"].startswith("0.600") and table.loc["others", "overlap (IoU)"].startswith(
        "0.220"
    )
    # Fisher's exact test by the hypergeometric distribution: all tables that are no likelier.
    law = stats.hypergeom(40, 28, 20)
    chances = [law.pmf(k) for k in range(8, 21)]
    fisher = sum(c for c in chances if c <= law.pmf(10) * (1 + 1e-9))
    rank = stats.mannwhitneyu([0.5] * 10 + [0.7] * 10, [0.2] * 18 + [0.4] * 2).pvalue
    # Holm: the smaller p is doubled, the larger one stays.
    assert rank < fisher and float(table.loc["p, pictures", "both appear"]) == pytest.approx(fisher, abs=6e-4)
    means = groups_table(rows).frame.set_index(["pairs of nouns", "appear"])["overlap (IoU)"]
    assert [means[key][:5] for key in (("cohyponyms", "both"), ("cohyponyms", "one or none"), ("others", "one or none"))] == [
        "0.500", "0.700", "0.400",
    ]  # fmt: skip


def test_logistic_regression_finds_the_maximum_of_the_likelihood() -> None:
    chance = np.random.default_rng(0)
    x, k = chance.normal(size=400), chance.integers(0, 2, 400).astype(float)
    y = (chance.random(400) < 1 / (1 + np.exp(-(0.3 + 0.8 * x - 0.5 * k)))).astype(float)
    found = logistic(y, {"x": x, "k": k}, list(range(400)))
    assert found is not None
    beta = np.zeros(3)
    design = np.stack([np.ones(400), x, k], 1)
    for _ in range(30):  # Newton's method, written out
        p = 1 / (1 + np.exp(-design @ beta))
        beta += np.linalg.solve(design.T @ (design * (p * (1 - p))[:, None]), design.T @ (y - p))
    assert [found["x"].ratio, found["k"].ratio] == pytest.approx(list(np.exp(beta[1:])), rel=1e-4)
    assert found["x"].low < found["x"].ratio < found["x"].high and found["x"].p < 0.001


def test_no_solution_is_no_finding() -> None:
    x = np.linspace(-1, 1, 60)
    assert logistic((x > 0).astype(float), {"x": x}, list(range(60))) is None
    assert logistic(np.ones(60), {"x": x}, list(range(60))) is None
    assert logistic((np.arange(60) % 2).astype(float), {"x": np.zeros(60)}, list(range(60))) is None
    assert logistic((np.arange(60) % 2).astype(float), {"x": x}, [0] * 60) is None
    assert logistic([], {"x": []}, []) is None


def test_failure_that_goes_with_overlap_is_told_with_its_direction() -> None:
    chance = np.random.default_rng(1)
    iou = chance.random(200)
    both = (chance.random(200) > iou).astype(float)
    kinds = np.where(np.arange(200) % 2 == 0, "cohyponyms", "others")
    rows = pd.DataFrame({"kind": kinds, "pair": [f"p{n % 25}" for n in range(200)], "iou": iou, "both": both})
    text = relation(rows)
    rank = stats.spearmanr(iou, 1 - both).statistic
    assert rank > 0.3 and f"failure: {rank:.2f}" in text
    assert "10 points more overlap multiply the odds of failure by 1." in text
    assert "cannot be related" in relation(rows.assign(both=1.0))


def test_a_small_run_on_the_model_inside_and_labels_that_overrule(tmp_path: Path) -> None:
    files = run(STUDY, tmp_path / "out", "--limit", "2", "--steps", "2")
    rows = pd.read_csv(files["rows.csv"])
    assert len(rows) == 4 and set(rows["judge"]) == {"segmenter"}
    assert (rows["both"] == (rows["first_seen"] & rows["second_seen"])).all()
    labels = write(tmp_path / "l.csv", "unit,both\n" + "".join(f"{unit},no\n" for unit in rows["unit"]))
    again = run(STUDY, tmp_path / "out", "--limit", "2", "--steps", "2", "--labels", str(labels))
    assert "people say" in again["report.md"].read_text() and "4 of 4 pictures fail" in again["report.md"].read_text()
