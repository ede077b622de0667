"""The study of adjectives: templates, reach and change counted by hand, and a run on the model inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from daam_core.cli import main
from daam_core.errors import BadPrompt
from daam_core.studies.adjectives import FREE, NOUN, REPLACED, AdjectivesStudy, change_of, reach, side_by_side, world_templates
from daam_core.studies.adjectives_report import change_table, reach_table
from daam_core.studies.model_runner import ModelRunner
from daam_core.studies.report import markdown
from daam_core.studies.study import Found
from daam_core.studies.templates import Template, noun_and_adjective, read_templates
from daam_core.tiny.captions import HELD_OUT

from ..web.samples import heat_maps
from .staged import SIDE, StagedStudio, box, grey, options, run

STUDY = AdjectivesStudy()


def test_articles_follow_the_next_word() -> None:
    template = Template("A", ("red", "orange"), "apple on an anvil")
    assert [template.prompt(a) for a in ("red", "orange", "")] == [
        "A red apple on an anvil", "An orange apple on an anvil", "An apple on an anvil",
    ]  # fmt: skip
    assert Template("the", ("old",), "house").prompt("old") == "the old house"
    assert Template("", ("rusty", "new"), "shovel, in a shed").noun == "shovel"


def test_templates_of_a_file_are_the_paper_s(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a {rusty, metallic, wooden} shovel sitting in a clean shed\n{big,small} balls\n", encoding="utf-8")
    first, second = read_templates(path)
    assert first == Template("a", ("rusty", "metallic", "wooden"), "shovel sitting in a clean shed")
    assert second.prompt("big") == "big balls"
    units = STUDY.units(options(STUDY, "--prompts", str(path), "--seeds", "2"))
    assert [u.content["adjectives"] for u in units] == [["rusty", "metallic"]] * 2 + [["rusty", "wooden"]] * 2 + [
        ["big", "small"]
    ] * 2
    assert len({u.key for u in units}) == 6


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a red house", "line 2: 'a red house' has no gap"),
        ("a {red} house", "two different adjectives"),
        ("a {red,Red} house", "two different adjectives"),
        ("a {red,} house", "two different adjectives"),
        ("a {red,blue}", "no noun follows"),
        ("a {red,blue} {house,tree}", "has no gap"),
        ("a }red,blue{ house", "has no gap"),
    ],
)
def test_a_wrong_template_is_one_sentence_with_its_line(
    tmp_path: Path, line: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.txt"
    path.write_text(f"a {{red,blue}} house\n{line}\n", encoding="utf-8")
    assert main(["study", "adjectives", "--out", str(tmp_path / "o"), "--prompts", str(path)]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_noun_and_adjective_are_found_by_their_place() -> None:
    template = Template("a red", ("red", "old"), "house and a red house")
    words = template.prompt("red").split()
    maps = heat_maps(words, (SIDE, SIDE), ((8, 8),))
    assert noun_and_adjective(template, maps.prompt, "red") == (("house",), ("red#2",))
    two = Template("a", ("light blue", "red"), "house")
    assert noun_and_adjective(two, heat_maps(["a", "light", "blue", "house"], (8, 8), ((8, 8),)).prompt, "light blue") == (
        ("house",), ("light", "blue"),
    )  # fmt: skip
    with pytest.raises(BadPrompt, match="did not get"):
        noun_and_adjective(two, heat_maps(["a", "light"], (8, 8), ((8, 8),)).prompt, "light blue")


def test_reach_counted_by_hand() -> None:
    """The adjective has 16x16 pixels, the noun 8x8 of them, the noun's region is 16x8."""
    runner = StagedStudio({"red": (0, 0, 16, 16), "house": (0, 0, 8, 8)})
    maps = runner.picture("red house", 0).maps
    found = reach(maps, ("red",), ("house",), box(0, 0, 16, 8), 0.4)
    assert found == {
        "iod": 0.25, "ioh": 1.0, "iou": 0.25, "adjective_outside": 0.5, "noun_outside": 0.0, "area_outside": 1 - 128 / 1024,
    }  # fmt: skip
    nothing = reach(maps, ("red",), ("house",), None, 0.4)
    assert (nothing["adjective_outside"], nothing["area_outside"], nothing["iod"]) == (None, None, 0.25)
    everywhere = reach(maps, ("red",), ("house",), torch.ones(SIDE, SIDE, dtype=torch.bool), 0.4)
    assert (everywhere["adjective_outside"], everywhere["area_outside"]) == (0.0, 0.0)
    cold = StagedStudio({"house": (0, 0, 8, 8)}).picture("red house", 0).maps
    found = reach(cold, ("red",), ("house",), box(0, 0, 8, 8), 0.4)
    assert (found["iod"], found["adjective_outside"], found["ioh"]) == (None, None, 0.0)


def test_change_counted_by_hand() -> None:
    first, second = grey(100), grey(100)
    second[:8, :8] = 151  # 51 of 255 on 64 pixels of the region
    second[31, 31, 0] = 130  # one channel by 30 outside, which an eye sees
    second[30, 30] = 110  # by 10: too little to see
    found = change_of(first, second, box(0, 0, 8, 16))
    assert found["inside"] == pytest.approx(0.2 / 2)
    assert found["outside"] == pytest.approx((10 + 10) / 255 / (1024 - 128), abs=1e-6)
    assert found["seen_inside"] == 0.5 and found["seen_outside"] == pytest.approx(1 / 896, abs=1e-6)
    assert change_of(first, first, box(0, 0, 8, 8))["outside"] == 0
    assert set(change_of(first, second, None).values()) == {None}
    whole = change_of(first, second, torch.ones(SIDE, SIDE, dtype=torch.bool))
    assert whole["outside"] is None and whole["inside"] is not None
    assert change_of(first, second, torch.zeros(SIDE, SIDE, dtype=torch.bool))["inside"] is None


def test_the_world_s_templates_keep_to_pairs_that_training_showed() -> None:
    for template in world_templates(80):
        assert len(set(template.adjectives)) == 2
        assert all((colour, template.noun) not in HELD_OUT for colour in template.adjectives)


def test_tables_hold_the_means_and_pair_frozen_with_free() -> None:
    rows = []
    for n in range(12):
        about = {"unit": f"u{n}", "template": f"t{n}", "adjective": "red"}
        rows.append(
            {
                **about,
                "what": "reach",
                "adjective_outside": 0.8,
                "noun_outside": 0.3 + 0.01 * n,
                "area_outside": 0.9,
                "iod": 0.2,
                "ioh": 1,
                "iou": 0.2,
            }
        )
        for held, outside in ((FREE, 0.10 + 0.01 * n), (NOUN, 0.04 + 0.005 * n)):
            rows.append(
                {
                    **about,
                    "what": "change",
                    "change": REPLACED,
                    "attention": held,
                    "stays": 0.5,
                    "inside": 0.2,
                    "outside": outside,
                    "seen_inside": 1,
                    "seen_outside": outside,
                }
            )
    frame = pd.DataFrame(rows)
    reaches, changes = frame[frame["what"] == "reach"], frame[frame["what"] == "change"]
    shown = reach_table(reaches).frame.set_index("map")["heat outside the noun"]
    assert shown["adjective"].startswith("0.800") and shown["noun"].startswith("0.355")
    table = change_table(changes).frame.set_index("attention")
    assert table.loc[FREE, "outside"] == pytest.approx(15.5) and table.loc[NOUN, "outside"] == pytest.approx(6.75)
    # Twelve prompts that all change less: 2 of the 4096 sign patterns are as lopsided.
    assert table.loc[NOUN, "p (free)"] == "<0.001" and 2 / 4096 < 0.001 and table.loc[FREE, "p (free)"] == "-"


def test_a_noun_that_no_picture_shows_leaves_no_number() -> None:
    rows = [
        {"unit": "u", "template": "t", "region": "segmenter", "what": "reach", "adjective": "red", "adjective_outside": None,
         "noun_outside": None, "area_outside": None, "iod": None, "ioh": None, "iou": None},
        {"unit": "u", "template": "t", "region": "segmenter", "what": "change", "adjective": "red", "change": REPLACED,
         "attention": FREE, "stays": None, "inside": None, "outside": None, "seen_inside": None, "seen_outside": None},
    ]  # fmt: skip
    text = markdown(STUDY.conclude(Found(pd.DataFrame(rows), {}, ()), options(STUDY)))
    assert "Not in one pair of pictures was the noun found" in text and "nan" not in text


def test_six_pictures_from_one_noise_and_a_model_that_is_as_before() -> None:
    """Free pictures equal those drawn one by one; the frozen ones do not; nothing stays behind."""
    runner = ModelRunner(how={"num_inference_steps": 2})
    template = Template("a", ("red", "blue"), "house on grass")
    processors = dict(runner.pipe.unet.attn_processors)
    drawn = side_by_side(template, 5, runner)
    assert runner.pipe.unet.attn_processors == processors
    pictures = [maps.picture.astype(int) for maps in drawn]
    for place, adjective in ((0, "red"), (1, ""), (3, "blue")):
        alone = runner.picture(template.prompt(adjective), 5)
        assert np.abs(pictures[place] - alone.image).mean() < 0.5
        assert torch.allclose(drawn[place].heat_map("house"), alone.maps.heat_map("house"), rtol=1e-3, atol=1e-3)
    assert np.abs(pictures[2] - pictures[1]).max() > 2 and np.abs(pictures[4] - pictures[3]).max() > 2
    assert np.abs(pictures[5] - pictures[4]).max() > 2


def test_a_small_run_on_the_model_inside(tmp_path: Path) -> None:
    files = run(STUDY, tmp_path, "--limit", "1", "--steps", "2")
    rows = pd.read_csv(files["rows.csv"])
    assert list(rows["what"]) == ["reach"] * 2 + ["change"] * 5
    assert rows["adjective_outside"].dropna().between(0, 1).all()
    assert "Fig. 9" in files["report.md"].read_text() and files["report.html"].stat().st_size > 5000
