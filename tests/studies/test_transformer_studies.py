"""Studies of a transformer: what needs a UNet is left out of them, or refused by a sentence."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from daam_core.cli import main


def run(folder: Path, *more: str) -> int:
    return main(["study", *more, "--model", "tiny-transformer", "--out", str(folder)])


@pytest.mark.parametrize(("study", "masks"), [("ablation", "variant"), ("segmentation", "mask")])
def test_the_rule_of_unets_is_left_out(tmp_path: Path, study: str, masks: str) -> None:
    assert run(tmp_path, study, "--truth", "rendered", "--limit", "2") == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert not any("castorini" in str(name) for name in rows[masks].unique())
    own = rows[rows["family"] == "aggregation"] if study == "ablation" else rows[rows["mask"] == "paper"]
    assert own["iou"].max() > 0.3
    assert (tmp_path / "report.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("adjectives", "--limit", "1"),
            "single words, which is done in UNets; TinyTransformerPipeline",
        ),
        (("syntax", "--limit", "1", "--aggregation", "castorini"), "one of UNets; tiny-transformer has a transformer"),
    ],
)
def test_what_only_a_unet_has_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert run(tmp_path, *arguments) != 0
    assert said in capsys.readouterr().err
