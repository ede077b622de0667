"""What people type into the nodes' text fields."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

Pack = Callable[[str], ModuleType]


def maps(pack: Pack, words: str = "a red house and a house", negative: bool = False) -> Any:
    """Maps of a prompt, nothing in them."""
    prompt_module, heatmaps, data = (pack(f"daam_core.{name}") for name in ("prompt.prompt", "maps.heatmaps", "maps.data"))
    texts = words.split()
    tokens = tuple(prompt_module.Token(i + 1, text, i + 1) for i, text in enumerate(texts))
    labels = prompt_module.labelled([(text, (i,)) for i, text in enumerate(texts)], tokens)
    prompt = prompt_module.Prompt(words, tokens, labels, (0,), (len(texts) + 1,), (), len(texts) + 2)
    sums = {(2, 2): torch.zeros(prompt.num_channels, 2, 2)}
    side = data.RecordedImage(
        sums=sums, time_weighted=sums, num_terms={(2, 2): 1}, layers=(), detail=None, heads=None, self_attention=None,
        prompt=prompt, steps=1, timesteps=(1.0,),
    )  # fmt: skip
    made = heatmaps.HeatMaps({"prompt": side}, (16, 16), None)
    return made.with_negative(maps(pack, "fog")) if negative else made


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["red", "house", "house#2"]),
        (" \n,", ["red", "house", "house#2"]),
        ("*", ["a", "red", "house", "and", "a#2", "house#2"]),
        ("house\nred house, HOUSE#2", ["house", "red house", "HOUSE#2"]),
        ("house, house", ["house"]),
        ("<start>, house", ["<start>", "house"]),
        ("negative:fog\nnegative:*", ["negative:fog"]),
    ],
)
def test_words(pack: Pack, text: str, found: list[str]) -> None:
    assert pack("nodes.parse_inputs").words_in(text, maps(pack, negative=True)) == found


def test_words_that_are_not_there(pack: Pack) -> None:
    choose, errors = pack("nodes.parse_inputs"), pack("daam_core.errors")
    with pytest.raises(errors.WordNotFound, match="Did you mean 'house'"):
        choose.words_in("hause", maps(pack))
    with pytest.raises(errors.NothingRecorded, match="Switch `negative` on"):
        choose.words_in("negative:fog", maps(pack))
    with pytest.raises(errors.NothingRecorded, match="no words"):
        choose.words_in("", maps(pack, ""))


@pytest.mark.parametrize(
    ("text", "found"), [("", []), ("3", [3]), ("0-4, 7, -1", [0, 1, 2, 3, 4, 7, -1]), (" 2 - 3 ,", [2, 3])]
)
def test_numbers(pack: Pack, text: str, found: list[int]) -> None:
    assert pack("nodes.parse_inputs").numbers(text, "steps") == found


@pytest.mark.parametrize("text", ["last", "1.5", "1-2-3", "0x3", "9999999"])
def test_what_is_no_number(pack: Pack, text: str) -> None:
    with pytest.raises(pack("daam_core.errors").BadArgument, match="numbers and ranges"):
        pack("nodes.parse_inputs").numbers(text, "steps")


@pytest.mark.parametrize("text", ["9-4", "-3-5"])
def test_a_range_that_runs_backwards_does_not_mean_all(pack: Pack, text: str) -> None:
    with pytest.raises(pack("daam_core.errors").BadArgument, match="smaller number to the larger"):
        pack("nodes.parse_inputs").numbers(text, "steps")


def test_records_stay_inside(pack: Pack, tmp_path: Any) -> None:
    """No name leads out of the folder, by dots, by links or from the root."""
    paths, errors = pack("nodes.safe_paths"), pack("daam_core.errors")
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "secret.safetensors").write_bytes(b"x")
    (tmp_path / "out" / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (tmp_path / "out" / "a" / "own.safetensors").write_bytes(b"x")
    root = tmp_path / "out"
    assert paths.inside(root, "a/own.safetensors").is_file()
    absolute = str(tmp_path / "secret.safetensors")
    for name in ("../secret.safetensors", "a/../../secret.safetensors", absolute, "link.safetensors", "a\0b"):
        with pytest.raises(errors.BadArgument, match="leads out of"):
            paths.inside(root, name)
    assert paths.records_in(root, "output") == ["a/own.safetensors [output]"]
    assert paths.records_in(tmp_path / "none", "input") == []
