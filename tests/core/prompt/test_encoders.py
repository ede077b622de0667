"""A choice among text encoders whose columns stand side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daam_core.errors import BadArgument, BadRecord, WordNotFound
from daam_core.maps.prompt_record import prompt_from_dict, prompt_to_dict
from daam_core.maps.record_values import Values
from daam_core.prompt.compose import concat, concat_encoders
from daam_core.prompt.encoders import encoder_name, of_encoder, word_of_encoder
from daam_core.prompt.prompt import Prompt

from .test_compose import columns_of, prompt


@pytest.fixture
def both() -> Prompt:
    """CLIP reads three words in 77 columns, T5 five words in 40."""
    return concat_encoders([prompt("a red house"), prompt("a red house in snow", 40)], ["CLIP", "T5"])


def test_each_encoder_has_its_own_columns(both: Prompt) -> None:
    assert both.encoders == ["CLIP", "T5"]
    clip, t5 = of_encoder(both, "clip"), of_encoder(both, "T5")
    assert clip.labels == ["a", "red", "house"] and t5.labels == ["a", "red", "house", "in", "snow"]
    assert columns_of(clip, "red house") == [2, 3] and columns_of(t5, "red house") == [77 + 2, 77 + 3]
    assert clip.encoders == ["CLIP"] and of_encoder(clip, "CLIP") == clip
    assert sorted(clip.find("house").channels + t5.find("house").channels) == sorted(both.find("house").channels)
    assert (clip.length, clip.start, clip.padding, clip.tokens) == (both.length, both.start, both.padding, both.tokens)


def test_what_an_encoder_did_not_read_is_said(both: Prompt) -> None:
    with pytest.raises(WordNotFound, match="'snow' was not read by CLIP; it read: a, red, house"):
        word_of_encoder(both, both.find("snow"), "CLIP")
    with pytest.raises(WordNotFound, match="'snow' stands in the prompt, but CLIP did not read it"):
        replace(of_encoder(both, "CLIP"), text="a red house in snow").find("snow")  # the model that paints was given it
    with pytest.raises(WordNotFound, match="'<end>' was not read by T5"):
        word_of_encoder(both, both.find("<end>"), "T5")
    with pytest.raises(BadArgument, match=r"no text encoder 'byT5' that read these words; there is CLIP, T5\."):
        of_encoder(both, "byT5")
    with pytest.raises(BadArgument, match="no text encoder 'CLIP' to choose: the words were read by one"):
        of_encoder(prompt("a red house"), "CLIP")


def test_an_encoder_that_read_no_word_is_none() -> None:
    """ByT5 reads what stands in quotes; without any its columns are padding."""
    nothing = Prompt("a house", (), (), (), (), tuple(range(9)), 9)
    assert concat_encoders([prompt("a house"), nothing], ["Qwen", "byT5"]).encoders == ["Qwen"]


def test_prompts_in_succession_keep_their_encoders(both: Prompt) -> None:
    """The same two encoders read each of them."""
    whole = concat([both, concat_encoders([prompt("tree"), prompt("tree", 40)], ["CLIP", "T5"])])
    assert whole.encoders == ["CLIP", "T5"]
    assert columns_of(of_encoder(whole, "T5"), "tree") == [117 + 77 + 1]


def test_records_hold_encoders_and_those_of_before_have_none(both: Prompt) -> None:
    told = prompt_to_dict(both)
    assert prompt_from_dict(Values(told, "this record")) == both
    assert all("encoder" not in token for token in prompt_to_dict(prompt("a red house"))["tokens"])
    for token in told["tokens"]:
        token["encoder"] = "x" * 41
    with pytest.raises(BadRecord, match="names a text encoder"):
        prompt_from_dict(Values(told, "this record"))


def test_comfyui_s_keys_have_people_s_names() -> None:
    assert [encoder_name(key) for key in ("l", "g", "t5xxl", "qwen25_7b", "byt5", "llama", "new")] == [
        "CLIP", "CLIP", "T5", "Qwen", "byT5", "Llama", "new",
    ]  # fmt: skip
