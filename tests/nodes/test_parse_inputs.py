"""What people type into the nodes' text fields."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

Pack = Callable[[str], ModuleType]


def maps(pack: Pack, words: str = "a red house and a house", negative: bool = False, detail: str = "") -> Any:
    """Maps of a prompt, nothing in them but step j in step j, counted from 1; `detail` as in Record."""
    prompt_module, heatmaps, data = (pack(f"daam_core.{name}") for name in ("prompt.prompt", "maps.heatmaps", "maps.data"))
    texts = words.split()
    tokens = tuple(prompt_module.Token(i + 1, text, i + 1) for i, text in enumerate(texts))
    labels = prompt_module.labelled([(text, (i,)) for i, text in enumerate(texts)], tokens)
    prompt = prompt_module.Prompt(words, tokens, labels, (0,), (len(texts) + 1,), (), len(texts) + 2)
    sums = {(2, 2): torch.zeros(prompt.num_channels, 2, 2)}
    layers = tuple(data.LayerInfo(f"{block}.0", (2, 2), 1, block) for block in ("down", "mid", "up"))
    values = torch.ones(4, 1, len(texts), 2, 2) * torch.arange(1, 5).reshape(4, 1, 1, 1, 1)
    kept = data.Detail({(2, 2): values.half()}, {}, True) if detail == "steps" else None
    side = data.RecordedImage(
        sums=sums, time_weighted=sums, num_terms={(2, 2): 1}, layers=layers, detail=kept, heads=None, self_attention=None,
        prompt=prompt, steps=4, timesteps=(4.0, 3.0, 2.0, 1.0),
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


def test_numbers_that_words_share_are_of_one_prompt(pack: Pack) -> None:
    """A ranking and a report of the negative prompt's words are of its maps; of both prompts' words there is none."""
    choose, both = pack("nodes.parse_inputs"), maps(pack, negative=True)
    assert choose.of_one_prompt(["red", "house"], both) == (both, ["red", "house"])
    side, words = choose.of_one_prompt(["negative:fog"], both)
    assert side is both.negative and words == ["fog"]
    with pytest.raises(pack("daam_core.errors").BadArgument, match="of the prompt and of the negative prompt"):
        choose.of_one_prompt(["red", "negative:fog"], both)


@pytest.mark.parametrize(
    ("text", "found"),
    [("", []), ("3", [3]), ("0-4, 7, -1", [0, 1, 2, 3, 4, 7, -1]), (" 2 - 3 ,", [2, 3]), ("0-4, 3, 3", [0, 1, 2, 3, 4])],
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


def test_a_path_is_followed_only_where_it_is_a_link(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI asks for the list at each queued graph: following each of 20,000 files took seconds each time. Newest first."""
    for i in range(30):
        (tmp_path / f"{i:02}.safetensors").write_bytes(b"x")
        os.utime(tmp_path / f"{i:02}.safetensors", (i, i))
    (tmp_path / "own.safetensors").symlink_to(tmp_path / "29.safetensors")
    (tmp_path / "nowhere.safetensors").symlink_to(tmp_path / "gone.safetensors")
    followed, resolve = [], Path.resolve

    def counted(path: Path, strict: bool = False) -> Path:
        followed.append(path)
        return resolve(path, strict)

    monkeypatch.setattr(Path, "resolve", counted)
    found = pack("nodes.safe_paths").records_in(tmp_path, "input")
    assert len(followed) == 3, "the folder and two links"
    assert set(found[:2]) == {"29.safetensors [input]", "own.safetensors [input]"} and found[-1] == "00.safetensors [input]"
    assert len(found) == 31


def test_a_junction_of_windows_is_not_entered(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows calls it a folder: one that leads to its own parent never ended, and records outside were listed and refused."""
    paths = pack("nodes.safe_paths")

    class Entry:
        def __init__(self, entry: Any) -> None:
            self.name, self.path, self._entry = entry.name, entry.path, entry

        def __getattr__(self, name: str) -> Any:
            return getattr(self._entry, name)

        def stat(self, *, follow_symlinks: bool = True) -> Any:
            return SimpleNamespace(st_reparse_tag=7 * (self.name == "junction"), st_mtime=0)

    for folder in ("own", "junction"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.safetensors").write_bytes(b"x")
    scandir = os.scandir
    monkeypatch.setattr(paths, "_JUNCTION", 7)
    monkeypatch.setattr(os, "scandir", lambda path: nullcontext([Entry(entry) for entry in scandir(path)]))
    assert paths.records_in(tmp_path, "input") == ["own/a.safetensors [input]"]


def test_phrases_that_were_meant_one_by_one(pack: Pack) -> None:
    with pytest.raises(pack("daam_core.errors").WordNotFound, match="put commas between them: red, house, and"):
        pack("nodes.parse_inputs").words_in("red house and", maps(pack, "a red big house and"))
    with pytest.raises(pack("daam_core.errors").WordNotFound, match=r"'red boat'.* is not in the prompt"):
        pack("nodes.parse_inputs").words_in("red boat", maps(pack))


@pytest.mark.parametrize("text", ["0, 3", "3, 0-0, 3", "0, -1", "-1, 3, 0"])
def test_a_step_that_is_named_twice_counts_once(pack: Pack, text: str) -> None:
    picked = pack("nodes.parse_inputs").chosen(maps(pack, detail="steps"), "", text, "")
    assert float(picked.sums[2, 2][1].max()) == 1 + 4


@pytest.mark.parametrize(
    ("layers", "steps", "heads", "hint"),
    [
        ("", "0", "", "detail` to 'steps' in"),
        ("down", "", "", "detail` to 'layers' in"),
        ("down", "0", "", "layers and steps were not kept apart. Set `detail` to 'layers . steps'"),
        ("", "", "0", "Switch `heads` on"),
    ],
)
def test_what_record_has_to_keep_is_said_and_no_more(pack: Pack, layers: str, steps: str, heads: str, hint: str) -> None:
    with pytest.raises(pack("daam_core.errors").DetailMissing, match=hint):
        pack("nodes.parse_inputs").chosen(maps(pack), layers, steps, heads)


def test_layers_beside_steps_that_are_kept_need_both(pack: Pack) -> None:
    with pytest.raises(pack("daam_core.errors").DetailMissing, match=r"The layers were .* 'layers \+ steps'"):
        pack("nodes.parse_inputs").chosen(maps(pack, detail="steps"), "mid", "", "")


@pytest.mark.parametrize(
    ("text", "near"), [("middle", "'mid'"), ("input", "'down'"), ("dwon", "'down'"), ("down.1", "'down.0'")]
)
def test_a_layer_that_is_not_there_has_a_neighbour(pack: Pack, text: str, near: str) -> None:
    with pytest.raises(pack("daam_core.errors").BadArgument, match=f"no layer {text!r}. Did you mean {near}"):
        pack("nodes.parse_inputs").chosen(maps(pack), text, "", "")


def test_without_a_choice_the_strongest_dozen_is_drawn(pack: Pack) -> None:
    """In the prompt's order, and how many more there are is said; who asks for all gets all."""
    chosen, text = pack("nodes.parse_inputs"), " ".join(f"word{i}" for i in range(20))
    weak = maps(pack, text)
    sums = weak.sums[2, 2].clone()
    sums[1:21] = torch.arange(20.0).reshape(20, 1, 1)
    side = dataclasses.replace(weak.sides["prompt"], sums={(2, 2): sums})
    strong = dataclasses.replace(weak, sides={"prompt": side})
    assert chosen.drawn_words(" ", [strong]) == ([f"word{i}" for i in range(8, 20)], 8)
    assert chosen.drawn_words("*", [strong]) == (strong.words, 0)
    assert chosen.drawn_words("word1", [strong]) == (["word1"], 0)
    assert chosen.drawn_words("", [maps(pack)]) == (["red", "house", "house#2"], 0)


def test_a_link_that_leads_back_to_itself_is_no_record(pack: Pack, tmp_path: Path) -> None:
    """Python up to 3.12 raises an error of its own for it, later ones none."""
    (tmp_path / "round.safetensors").symlink_to("round.safetensors")
    paths = pack("nodes.safe_paths")
    assert paths.records_in(tmp_path, "output") == []
    said = ""
    try:
        found = paths.inside(tmp_path, "round.safetensors")
    except pack("daam_core.errors").BadArgument as error:
        said = str(error)
    assert "leads back to itself" in said or not found.is_file()


def test_a_name_that_is_no_text_is_neither_offered_nor_read(pack: Pack, tmp_path: Path) -> None:
    """Linux takes any bytes as a name; such a one in a sentence ended ComfyUI's queue."""
    for name in (b"bad\xff.safetensors", b"good.safetensors"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    paths = pack("nodes.safe_paths")
    assert paths.records_in(tmp_path, "output") == ["good.safetensors [output]"]
    with pytest.raises(pack("daam_core.errors").BadArgument, match="no text can hold") as told:
        paths.inside(tmp_path, os.fsdecode(b"bad\xff.safetensors"))
    assert str(told.value).encode()
