"""Prompts that another extension reads otherwise than the host, and answers that it uses in a part of the picture alone."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from daam_core.capture.region import WHOLE
from daam_core.errors import NothingRecorded
from daam_webui.batch_rows import Label
from daam_webui.hosts import a1111
from daam_webui.joined_answers import REGIONS, JoinedAnswers
from daam_webui.recording_session import RecordingSession
from daam_webui.sampling_step import SamplingStep, crossattn, unmarked
from daam_webui.schedule import PassTexts
from daam_webui.settings import Settings
from daam_webui.text_proof import MOST_TEXTS, TextProof

PASS = PassTexts(((((2, "a red house"), (4, "a blue house")),),), (((4, "boat"),),))
NETWORK = nn.Linear(1, 1)


class Host:
    """Encodes a text as numbers of its own; draws a random number, as an encoder in training mode does."""

    def unet(self, _model: Any) -> nn.Module:
        return NETWORK

    def encode_texts(self, _model: Any, texts: Sequence[str]) -> Tensor:
        torch.rand(3)
        return torch.stack(
            [torch.randn(77, 8, generator=torch.Generator().manual_seed(zlib.crc32(text.encode()))) for text in texts]
        )


def step(prompt: Tensor, negative: Tensor, text: str) -> SamplingStep:
    labels = {Label("prompt", 0): 0, Label("negative", 0): 0}
    said = {Label("prompt", 0): text, Label("negative", 0): "boat"}
    sides: Any = {"prompt": prompt[None], "negative": negative[None]}
    return SamplingStep(said, sides, labels, (8, 8), 1.0, WHOLE, list(labels))


@pytest.mark.parametrize("negative", [False, True])
def test_what_is_sampled_is_the_text_whose_words_are_read(negative: bool) -> None:
    """prompt-fusion interpolates `[red:blue:0,3]`: the host reads it as a text with a bracket, of as many columns."""
    host: Any = Host()
    before, model = torch.get_rng_state(), SimpleNamespace()
    proof = TextProof(host, model, [PASS], negative)
    assert torch.equal(torch.get_rng_state(), before), "the picture's random numbers were drawn"
    red, blue, boat = (host.encode_texts(model, [text])[0] for text in ("a red house", "a blue house", "boat"))
    proof.require(step(red, boat, "a red house"), model)
    proof.require(step(torch.cat([blue.half(), red]), boat, "a blue house"), model)  # padded beside a longer one
    for other in (red, red.lerp(blue, 0.9), blue[:, :4], blue[:70]):
        with pytest.raises(NothingRecorded, match="in a way of its own"):
            proof.require(step(other, boat, "a blue house"), model)
    if negative:
        with pytest.raises(NothingRecorded, match="in a way of its own"):
            proof.require(step(red, red, "a red house"), model)
    else:
        proof.require(step(red, red, "a red house"), model)
    empty = step(red, torch.zeros_like(red), "a red house")  # of XL, for which hosts do not encode it
    empty.texts[Label("negative", 0)] = ""
    proof.require(empty, model)
    proof.require(step(boat, boat, "a red house"), SimpleNamespace())  # another checkpoint's encoder
    with pytest.raises(NothingRecorded, match=f"this batch has {MOST_TEXTS + 1} texts"):
        TextProof(host, model, [PassTexts(((tuple((i, str(i)) for i in range(MOST_TEXTS + 1)),),), ())], False)


def test_the_pass_that_is_recorded_is_proved_and_what_goes_wrong_costs_no_picture() -> None:
    asked: list[bool] = []
    ahead = False

    class Running(Host):
        def encodes_ahead(self) -> bool:
            return ahead

        def reads_otherwise(self) -> bool:
            return True

        def pass_texts(self, _p: Any, second: bool) -> PassTexts:
            asked.append(second)
            return PASS

    host: Any = Running()
    p = SimpleNamespace(sd_model=SimpleNamespace(), enable_hr=True)
    for hires, first, second in (("first", [False], []), ("second", [], [True]), ("both", [False], [True])):
        session = RecordingSession(Settings(True, hires=hires), host)
        for ahead, expected in ((False, [first, second]), (True, [first + second, []])):
            # The second pass may have other LoRAs, with which its texts are encoded: its own were told to be read otherwise.
            for before_second, passes in zip((False, True), expected, strict=True):
                session.prove_texts(p, before_second)
                assert not session.failure and asked == passes, (hires, ahead)
                asked.clear()
    session = RecordingSession(Settings(True), host)
    session.prove_texts(SimpleNamespace())  # no checkpoint is loaded
    assert session.failure


def test_an_extension_in_the_place_of_the_hosts_parser_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = ModuleType("modules.prompt_parser")
    exec("\n".join(f"def {name}(): ..." for name in a1111._PARSER), vars(parser))
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(prompt_parser=parser))
    assert not a1111.A1111().reads_otherwise()
    monkeypatch.setattr(parser, "get_learned_conditioning", lambda *_: None)
    assert a1111.A1111().reads_otherwise()


def test_answers_that_are_used_in_regions_are_told() -> None:
    """Latent Couple multiplies each prompt's answer by a mask, in place, between the model and the sum."""
    watched, answers = JoinedAnswers(), torch.ones(3, 4, 2, 2)
    watched.end()
    watched.begin(answers)
    watched.end()
    assert not watched.notes()
    watched.begin(answers)
    answers[1, :, :1] *= 0.5
    watched.end()
    watched.begin(answers)
    watched.end()
    assert watched.notes() == [REGIONS]
    watched = JoinedAnswers()
    watched.begin(torch.full((3, 4, 2, 2), torch.nan))
    watched.end()
    assert not watched.notes(), "nobody changed a black picture's"


def test_the_column_that_controlnet_marks_a_text_with_is_no_column_of_it() -> None:
    """Its extension for AUTOMATIC1111 puts it before every text, and takes it away before the layers: nothing was recorded."""
    text = torch.randn(2, 77, 8, generator=torch.Generator().manual_seed(0))
    marks = torch.tensor([1024.0, -1024.0])[:, None, None].expand(2, 1, 8)
    assert torch.equal(crossattn({"crossattn": torch.cat([marks, text], 1).half()}), text.half())
    for other in (text, torch.cat([text[:, :1], text], 1), torch.cat([marks[:, :, :4], text[:, :, :4]], 1)[:, :77]):
        assert unmarked(other) is other
