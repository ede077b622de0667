"""Two recordings compared: against numbers written out, with LoRAs of a real pipeline, and from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from daam_core import HeatMaps, load_tiny, trace
from daam_core.cli.parser import main
from daam_core.errors import BadArgument, WordNotFound
from daam_core.maps.comparison import moved

PROMPT = "a red house and a green tree"


def elsewhere(after: np.ndarray, before: np.ndarray) -> float:
    """The part of the later map that is more than the earlier one had there: another form of the same distance."""
    p, q = (np.clip(x, 0, None).astype(np.float64) for x in (after, before))
    return float(np.clip(p / p.sum() - q / q.sum(), 0, None).sum())


def recorded(pipe: Any, prompt: str = PROMPT, **more: Any) -> HeatMaps:
    with trace(pipe) as recording:
        pipe(prompt, num_inference_steps=3, generator=torch.Generator().manual_seed(0), **more)
    return recording.heat_maps()


@pytest.fixture(scope="module")
def maps() -> dict[str, HeatMaps]:
    """Without a LoRA, with one, and with another, all at one seed."""
    peft = pytest.importorskip("peft", reason="peft is in the extra `test`")
    pipe = load_tiny()
    found = {"none": recorded(pipe)}
    for name, seed, rank in (("one", 1, 4), ("other", 2, 2)):
        torch.manual_seed(seed)
        pipe.unet.add_adapter(
            peft.LoraConfig(r=rank, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False), adapter_name=name
        )
        pipe.unet.set_adapter(name)
        found[name] = recorded(pipe)
    pipe.unet.disable_adapters()
    found["off"] = recorded(pipe)
    return found


def test_moved_is_the_part_that_lies_elsewhere() -> None:
    here, there = torch.zeros(2, 4), torch.zeros(2, 4)
    here[0, 0], there[1, 3] = 3.0, 0.5
    assert moved(here, here * 7) == 0.0
    assert moved(here, there) == 1.0
    assert moved(torch.zeros(2, 4), there) == 1.0 and moved(torch.zeros(2, 4), torch.zeros(2, 4)) == 0.0
    assert moved(here + there, here) == pytest.approx(0.5 / 3.5)
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, 5, 7, generator=generator)
    assert moved(one, other) == pytest.approx(elsewhere(one.numpy(), other.numpy()), rel=1e-9)


def test_each_lora_of_a_run_is_told_and_drawn(maps: dict[str, HeatMaps]) -> None:
    plain = maps["none"]
    assert maps["off"].compare(plain).moved < 1e-6, "switched off, it moves nothing"
    numbers = {}
    for name in ("one", "other"):
        found = maps[name].compare(plain)
        assert [change.word for change in found.changes] == ["red", "house", "green", "tree"]
        for change in found.changes:
            terms = [sum(m.num_terms.values()) for m in (maps[name], plain)]
            new, old = (m.heat_map(change.word).numpy() / n for m, n in zip((maps[name], plain), terms, strict=True))
            assert change.moved == pytest.approx(elsewhere(new, old), rel=1e-5)
            assert change.after - change.before == pytest.approx(change.gained - change.lost, rel=1e-4, abs=1e-9)
            assert change.gained == pytest.approx(float(np.clip(new - old, 0, None).mean()), rel=1e-4)
            assert change.rose == pytest.approx(float((new > old).mean()))
        numbers[name] = found.moved
        drawn = np.asarray(found.overlay("house")).astype(int)
        picture = maps[name].picture
        assert picture is not None and drawn.shape[1] >= picture.shape[1]
        assert found.lines()[-1] == f"All 4 words: {found.moved:.1%} of their heat lies elsewhere."
    assert 0 < numbers["one"] != numbers["other"] > 0


def test_what_does_not_compare_is_a_sentence(maps: dict[str, HeatMaps]) -> None:
    pipe = load_tiny()
    wide, sea = recorded(pipe, height=64, width=128), recorded(pipe, "a boat")
    with pytest.raises(BadArgument, match="128 x 64 and 128 x 128 pixels"):
        wide.compare(maps["none"])
    with pytest.raises(BadArgument, match="share no word"):
        sea.compare(maps["none"])
    with pytest.raises(WordNotFound, match="'house' is not in the prompt"):
        sea.compare(maps["none"], ["house"])


def test_the_command_prints_draws_and_writes(
    maps: dict[str, HeatMaps], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "none"):
        maps[name].save(tmp_path / f"{name}.safetensors")
    records = [str(tmp_path / f"{name}.safetensors") for name in ("one", "none")]
    assert main(["compare", *records, "--words", "house,tree", "--out", str(tmp_path / "told")]) == 0
    said = capsys.readouterr().out
    assert "All 2 words: " in said and said.count("of its heat lies elsewhere") == 2
    assert {path.name for path in (tmp_path / "told").iterdir()} == {"change_house.png", "change_tree.png", "comparison.json"}
    numbers = json.loads((tmp_path / "told" / "comparison.json").read_text(encoding="utf-8"))
    assert numbers["moved"] == pytest.approx(maps["one"].compare(maps["none"], ["house", "tree"]).moved, abs=0.01)
    again = maps["one"].compare(maps["none"], ["house", "House", "tree", "house"])
    assert [change.word for change in again.changes] == ["house", "tree"] and again.moved == pytest.approx(
        numbers["moved"], abs=0.01
    )
    assert main(["compare", *records]) == 0
    assert len(list(tmp_path.iterdir())) == 3, "without --out nothing is written"
