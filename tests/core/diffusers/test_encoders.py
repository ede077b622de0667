"""Maps of one text encoder of several: SD3's words as CLIP read them, and as T5 did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from daam_core import HeatMaps, trace
from daam_core.capture.families import FAMILIES
from daam_core.cli import main
from daam_core.diffusers import loading
from daam_core.diffusers.transformer_trace import text_encoders
from daam_core.errors import BadArgument, WordNotFound

from ..capture.attention_witness import Witness
from ..cli.test_relations import whole
from . import transformer_pipelines as made
from .pipeline_cases import CASES, NEGATIVES, PATCHES, PROMPTS, at, paint
from .test_transformer_trace import rows_of

CASE = CASES["sd3"]


@pytest.fixture(scope="module")
def recorded() -> tuple[Any, list[HeatMaps], Witness, list[int]]:
    """The pipeline, its maps of two pictures, and what its attention was given."""
    pipe = made.stable_diffusion_3()
    with trace(pipe, negative=True, relations=("text->image", "text->text")) as recording:
        paint(pipe, CASE)
    forwards: list[int] = []
    witness = Witness()
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: forwards.append(len(witness.calls)))
    with witness:
        paint(pipe, CASE)
    handle.remove()
    return pipe, list(recording), witness, forwards


def keys(pipe: Any, encoder: str, text: str, word: str) -> list[int]:
    tokenizer, base = {"CLIP": (pipe.tokenizer, 0), "T5": (pipe.tokenizer_3, 77)}[encoder]
    return at(tokenizer, text, text, word, base=PATCHES + base)


@pytest.mark.parametrize("encoder", ["CLIP", "T5"])
def test_each_encoder_s_maps_are_those_of_its_columns(
    encoder: str, recorded: tuple[Any, list[HeatMaps], Witness, list[int]]
) -> None:
    """Both pictures and both sides against float64 probabilities of every row."""
    pipe, maps, witness, forwards = recorded
    for image in (0, 1):
        for side, texts in (("prompt", PROMPTS), ("negative", NEGATIVES)):
            own = maps[image] if side == "prompt" else maps[image].negative
            assert own is not None and own.encoders == ["CLIP", "T5"]
            call, row = CASE.rows(side, image)  # type: ignore[arg-type]
            found = rows_of(witness, forwards, CASE, call, row)
            for word in own.words:
                if "#" in word or texts[image].count(word) > 1:
                    continue
                columns = keys(pipe, encoder, texts[image], word)
                assert columns
                wanted = sum(p[:PATCHES, columns].sum(-1) for p in found)
                got = own.heat_map(word, encoder=encoder.lower())
                assert isinstance(wanted, Tensor)
                assert (got.flatten().double() - wanted).abs().max() / own.num_terms[4, 6] < 1e-5
                assert torch.equal(own.select(encoder=encoder)[word], got)


def test_both_encoders_add_up_to_the_word(recorded: tuple[Any, list[HeatMaps], Witness, list[int]]) -> None:
    maps = recorded[1][0]
    clip, t5 = (maps.heat_maps(["red house", "tree"], encoder=name) for name in ("CLIP", "T5"))
    torch.testing.assert_close(clip + t5, maps.heat_maps(["red house", "tree"]))
    assert not torch.allclose(clip, t5)
    assert maps.heat_maps(encoder="T5").shape[0] == 7


def test_masks_relations_and_the_other_side_follow_the_choice(
    recorded: tuple[Any, list[HeatMaps], Witness, list[int]], tmp_path: Path
) -> None:
    pipe, (maps, _), witness, forwards = recorded
    t5 = maps.select(encoder="T5")
    assert t5.negative is not None and t5.negative.encoders == ["T5"]
    assert t5.mask("house", "threshold").shape == maps.size
    found = rows_of(witness, forwards, CASE, *CASE.rows("prompt", 0))
    one, other = (keys(pipe, "T5", PROMPTS[0], word) for word in ("red", "tree"))
    lean = sum(p[one][:, other].sum(1).mean(0) for p in found) / maps.num_terms[4, 6]
    assert abs(float(t5.word_matrix(["red", "tree"])[0, 1]) - float(lean)) < 1e-5
    again = HeatMaps.load(t5.save(tmp_path / "t5"))
    assert again.encoders == ["T5"] and torch.equal(again["house"], t5["house"])
    whole = HeatMaps.load(maps.save(tmp_path / "both"))
    assert whole.encoders == ["CLIP", "T5"] and torch.equal(whole.select(encoder="T5")["house"], t5["house"])


def test_what_there_is_not_is_one_sentence(recorded: tuple[Any, list[HeatMaps], Witness, list[int]]) -> None:
    maps = recorded[1][0]
    with pytest.raises(BadArgument, match="there is CLIP, T5"):
        maps.heat_map("house", encoder="Llama")
    with pytest.raises(WordNotFound, match="'zebra' is not in the prompt"):
        maps.heat_map("zebra", encoder="T5")
    with trace(pipe := made.flux()) as recording:
        paint(pipe, CASES["flux"])
    with pytest.raises(BadArgument, match="the words were read by one"):
        recording.heat_maps().select(encoder="T5")


def test_every_family_of_several_tokenizers_names_its_encoders() -> None:
    joined = [family for family in FAMILIES if family.encoders]
    assert {family.name for family in joined} == {
        "Stable Diffusion 3", "HiDream", "HunyuanDiT", "HunyuanImage 2.1", "HunyuanVideo 1.5",
    }  # fmt: skip
    assert all(len(family.encoders) == len(family.tokenizers) for family in joined)
    assert text_encoders(made.stable_diffusion_3()) == ("CLIP", "T5") and text_encoders(made.flux()) == ()


def test_the_command_line_chooses_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "load_pipeline", lambda *_: whole())
    start = ["generate", "a red house", "--steps", "1", "--size", "64x96", "--method", "threshold", "--save", "record,masks"]
    assert main([*start, "--encoder", "T5", "--out", str(tmp_path / "t5")]) == 0
    record = str(tmp_path / "t5" / "record.safetensors")
    assert HeatMaps.load(record).encoders == ["CLIP", "T5"], "the record keeps both"
    made_before = (tmp_path / "t5" / "mask_house.png").read_bytes()
    for name, same in (("T5", True), ("CLIP", False)):
        out = tmp_path / name
        assert main(["mask", record, "--word", "house", "--method", "threshold", "--encoder", name, "--out", str(out)]) == 0
        assert ((out / "mask_house.png").read_bytes() == made_before) is same
    capsys.readouterr()
    assert main(["show", record]) == 0 and "encoders CLIP, T5" in capsys.readouterr().out
    assert main(["show", record, "--encoder", "byT5"]) == 2
    assert "there is CLIP, T5" in capsys.readouterr().err
    assert main([*start, "--encoder", "Llama", "--out", str(tmp_path / "none")]) == 2
    assert "there is CLIP, T5" in capsys.readouterr().err
    assert not list((tmp_path / "none").glob("*.png")), "it is said before anything is painted"
