"""A record from a stranger is refused by one sentence, or everything that can be made of it works."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from daam_core import MASK_METHODS, HeatMaps
from daam_core.errors import BadRecord, DaamLensError, DetailMissing
from daam_core.explorer.page_data import detail_data, page_data
from daam_core.explorer.standalone import explorer_html
from daam_core.maps import safetensors_file as records
from daam_core.maps.pixels import from_jpegs, from_png, to_jpegs, to_png

RECORD = Path(__file__).parent / "data" / "record-0.1.0.safetensors"
HUGE = 10**400

Parts = tuple[dict[str, Tensor], dict[str, Any]]
Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


def parts() -> Parts:
    """Tensors and header of a good record, ours to spoil."""
    tensors, header = records.read(RECORD)
    return dict(tensors), copy.deepcopy(header)


def spoiled(path: Path, change: Change) -> HeatMaps:
    tensors, header = parts()
    change(tensors, header)
    return HeatMaps.load(records.write(path / "spoiled", tensors, header))


def test_a_damaged_picture_is_told_in_our_own_words_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """What OpenCV decodes with wrote "libpng error: IDAT: incorrect data check" of its own beside the sentence."""
    picture = torch.randint(0, 255, (1, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    png, jpeg = to_png(picture[0]), to_jpegs(picture)["video/0"]
    assert (from_png(png) == picture[0]).all() and from_jpegs({"video/0": jpeg}, 1, (32, 32)).shape == picture.shape
    for at in range(40, len(png), 97):
        png[at] ^= 1
        with pytest.raises(BadRecord, match="cannot be read; record it again"):
            from_png(png)
        png[at] ^= 1
    short = torch.tensor([0, 0, 0, 0, *b"gAMA", 0xB2, 0xE1, 0xB7, 0x1F], dtype=torch.uint8)  # a gamma without its number
    with pytest.raises(BadRecord, match="cannot be read; record it again"):
        from_png(torch.cat([png[:-12], short, png[-12:]]))
    jpeg[11] = 9  # an unknown version
    from_jpegs({"video/0": jpeg}, 1, (32, 32))
    with pytest.raises(BadRecord, match="Frame 0 of this record's video is no picture"):
        from_jpegs({"video/0": jpeg[: len(jpeg) // 2]}, 1, (32, 32))
    assert capfd.readouterr().err == ""


def uses(maps: HeatMaps) -> list[Callable[[], object]]:
    """All that hosts do with one side of maps."""
    some = maps.words[:2]
    masks: list[Callable[[], object]] = [partial(maps.mask, word, method) for word in some for method in MASK_METHODS]
    return [
        lambda: page_data(maps),
        lambda: explorer_html(maps),
        lambda: detail_data(maps, "steps"),
        lambda: detail_data(maps, "layers"),
        lambda: maps.statistics().report().lines(),
        lambda: maps.statistics().share(),
        lambda: maps.statistics().rank_box(0, 0, 9, 9),
        lambda: maps.select(steps=[0, -1]).heat_maps(),
        lambda: maps.select(layers=["up", 0]).heat_maps(),
        lambda: maps.select(heads=[0]).heat_maps(),
        lambda: maps.aggregate("castorini").heat_maps(),
        lambda: maps.aggregate("output").mask(maps.words[0]),
        lambda: maps.aggregate("anchor").mask(maps.words[0]),
        lambda: maps.contact_sheet(),
        lambda: maps._repr_html_(),
        lambda: [maps.token(i) for i in range(len(maps.prompt.tokens))],
        lambda: maps.heat_map(maps.prompt.phrase(["<start>", "<padding>"])),
        lambda: [maps.steps_of(word, maps.size) for word in some],
        lambda: (maps + maps).heat_maps(),
        *masks,
    ]


def used(maps: HeatMaps) -> int:
    """How much of it works on both sides; what a recording does not have is a sentence of ours."""
    works = 0
    for side in filter(None, (maps, maps.negative)):
        for use in uses(side):
            try:
                use()
                works += 1
            except DaamLensError:
                continue
    return works


def test_the_record_itself_is_used(tmp_path: Path) -> None:
    assert used(spoiled(tmp_path, lambda tensors, header: None)) == 2 * (len(uses(HeatMaps.load(RECORD))) - 3)


def at(header: Any, *path: Any, to: Any) -> None:
    for name in path[:-1]:
        header = header[name]
    header[path[-1]] = to


def reshaped(name: str, *shape: int) -> Change:
    return lambda tensors, header: tensors.update({name: torch.zeros(*shape, dtype=tensors[name].dtype)})


def without(start: str) -> Change:
    return lambda tensors, header: [tensors.pop(name) for name in list(tensors) if name.startswith(start)]


def header(*path: Any, to: Any) -> Change:
    return lambda tensors, header: at(header, *path, to=to)


def filled(name: str, value: float) -> Change:
    return lambda tensors, header: tensors.update({name: torch.full_like(tensors[name], value)})


AIMED: dict[str, Change] = {
    "a size of 16 GiB a word": header("size", to=[65536, 65536]),
    "a size that is not the picture's": header("size", to=[64, 32]),
    "no size": header("size", to=[]),
    "a size of one number": header("size", to=[32]),
    "a size of texts": header("size", to=["32", "64"]),
    "a size of true": header("size", to=[True, 64]),
    "a huge size": header("size", to=[HUGE, 1]),
    "no terms": header("terms", to={}),
    "huge terms": header("terms", "4x8", to=HUGE),
    "terms below 0": header("terms", "4x8", to=-1),
    "terms of another resolution": header("terms", to={"9x9": 1}),
    "terms of a broken resolution": header("terms", to={"4x8x1": 1}),
    "terms in a list": header("terms", to=[1, 2]),
    "no late": without("late/"),
    "one late missing": without("late/4x8"),
    "no sums": without("sums/"),
    "no sums of one resolution": without("sums/4x8"),
    "a part of no resolution": lambda t, h: t.update({"sums/axb": t["sums/4x8"]}),
    "a part of resolution 0": lambda t, h: t.update({"sums/0x8": torch.zeros(10, 0, 8)}),
    "NaN in sums": filled("sums/4x8", float("nan")),
    "infinite late": filled("late/4x8", float("inf")),
    "huge sums": filled("sums/4x8", 3e38),
    "sums of another kind": lambda t, h: t.update({"sums/4x8": t["sums/4x8"].half()}),
    "no layers": header("layers", to=[]),
    "layers in a dict": header("layers", to={}),
    "a layer of heads 0": header("layers", 0, "heads", to=0),
    "a layer of huge heads": header("layers", 0, "heads", to=HUGE),
    "a layer nowhere": header("layers", 0, "place", to="sideways"),
    "a layer without a name": header("layers", 0, "name", to=3),
    "a layer of a flat grid": header("layers", 0, "grid", to=[4]),
    "a layer of another grid": header("layers", 0, "grid", to=[2, 4]),
    "steps 0": header("steps", to=0),
    "steps -1": header("steps", to=-1),
    "20,000 steps": header("steps", to=20_000),
    "huge steps": header("steps", to=HUGE),
    "steps true": header("steps", to=True),
    "steps 1 beside 2": header("steps", to=1),
    "a time that is huge": header("timesteps", to=[HUGE, 1]),
    "times in a text": header("timesteps", to="ab"),
    "no detail where there is one": header("detail", to={}),
    "detail of nothing": without("detail/"),
    "detail of a wrong rank": reshaped("detail/4x8", 2, 3, 7, 32),
    "detail of other steps": reshaped("detail/4x8", 3, 3, 7, 4, 8),
    "detail of other layers": reshaped("detail/4x8", 2, 2, 7, 4, 8),
    "detail of other tokens": reshaped("detail/4x8", 2, 3, 8, 4, 8),
    "detail that is NaN": filled("detail/4x8", float("nan")),
    "detail of layers that are not there": header("detail", "layers", "4x8", to=[0, 8, 99]),
    "detail of layers twice": header("detail", "layers", "4x8", to=[0, 0, 9]),
    "detail of layers in another order": header("detail", "layers", "4x8", to=[9, 8, 0]),
    "detail of one resolution less": without("detail/4x8"),
    "detail that is neither by step nor by layer": lambda t, h: h["detail"].update(by_step=False, layers={}),
    "by_step 1": header("detail", "by_step", to=1),
    "heads of one layer missing": without("heads/3"),
    "heads of a layer too many": lambda t, h: t.update({"heads/10": t["heads/0"]}),
    "heads of a text": lambda t, h: t.update({"heads/x": t["heads/0"]}),
    "heads -1": lambda t, h: t.update({"heads/-1": t["heads/0"]}),
    "heads of a wrong rank": reshaped("heads/0", 10, 4, 8),
    "no head": reshaped("heads/0", 0, 10, 4, 8),
    "self-attention of a wrong rank": reshaped("self/4x8", 32),
    "self-attention of another size": reshaped("self/4x8", 31, 31),
    "self-attention of zeros": reshaped("self/4x8", 32, 32),
    "self-attention that is NaN": filled("self/4x8", float("nan")),
    "self-attention of a huge grid": lambda t, h: t.update({"self/99999x99999": t["self/4x8"]}),
    "a picture that is none": lambda t, h: t.update({"picture/png": torch.zeros(99, dtype=torch.uint8)}),
    "a picture of floats": lambda t, h: t.update({"picture/png": t["picture/png"].float()}),
    "a picture in two axes": lambda t, h: t.update({"picture/png": t["picture/png"][None]}),
    "no prompt": header("prompt", to=None),
    "a prompt without tokens": header("prompt", "tokens", to=3),
    "a word of no channel": header("prompt", "words", 0, "rows", to=[]),
    "a word of a channel that is not there": header("prompt", "words", 0, "rows", to=[99]),
    "a word of start": header("prompt", "words", 0, "rows", to=[0]),
    "a word of a huge channel": header("prompt", "words", 0, "rows", to=[HUGE]),
    "a word of a huge weight": header("prompt", "words", 0, "weight", to=HUGE),
    "a word that is a number": header("prompt", "words", 0, "text", to=7),
    "a word without a label": header("prompt", "words", 0, to={"text": "a"}),
    "a token of half a column": header("prompt", "tokens", 0, "column", to=1.5),
    "a column that is given twice": header("prompt", "start", to=[1]),
    "a column that is missing": header("prompt", "padding", to=[]),
    "a huge column": header("prompt", "padding", to=[HUGE]),
    "cut words that are numbers": header("prompt", "truncated", to=[1]),
    "a negative side of nothing": header("negative", to={}),
    "a negative side in a list": header("negative", to=[]),
    "a negative side without maps": without("negative/"),
    "a negative side of the prompt's words": lambda t, h: h["negative"].update(prompt=h["prompt"]),
    "a negative side of 0 steps": header("negative", "steps", to=0),
    "a rule in a list": header("rule", to=["paper"]),
    "specials 1": header("specials", to=1),
}


@pytest.mark.parametrize("name", AIMED)
def test_what_does_not_fit_is_refused_by_a_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadRecord) as refused:
        spoiled(tmp_path, AIMED[name])
    assert 20 < len(str(refused.value)) < 400


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 70), st.sampled_from([HUGE, -HUGE, 2**31, 2**63, 20_000]), st.floats(-9, 9),
    st.sampled_from(["", "4x8", "1x1", "0x0", "up", "house", "\ud83d", "x" * 500]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2))
)
SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a header."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(place for name, x in inside for place in _places(x, (*path, name)))]


PLACES = _places(parts()[1])
NAMES = sorted(parts()[0])


@settings(SHARED, max_examples=150)
@given(st.sampled_from(PLACES), VALUES, st.one_of(st.none(), st.sampled_from(NAMES)))
def test_any_value_anywhere_is_refused_or_used(tmp_path: Path, place: tuple[Any, ...], value: Any, flat: str | None) -> None:
    """Each place of the header takes any JSON, one tensor may be flat: a sentence, or maps that can be used."""
    tensors, header = parts()
    at(header, *place, to=value)
    if flat is not None:
        tensors[flat] = tensors[flat].flatten()
    try:
        maps = HeatMaps.load(records.write(tmp_path / "spoiled", tensors, header))
    except DaamLensError:
        return
    used(maps)


TEXTS = st.one_of(
    st.text(max_size=6), st.sampled_from(["house", "a", "<start>", "#2", " ", "\u200d", "🏠", "</script>", "dog's"])
)
NUMBERS = st.one_of(st.floats(-1e15, 1e15), st.sampled_from([0.0, 1e15, -1e15, 1e-300]))


@settings(SHARED, max_examples=8)
@given(st.data())
def test_whatever_fits_together_can_be_used(tmp_path: Path, data: st.DataObject) -> None:
    """Parts left out, numbers as large as a record may hold, any texts as words: all of it loads, and everything works or is a
    sentence."""
    tensors, header = parts()
    for part in ("self/", "heads/", "negative/self/", "negative/heads/", "picture/"):
        if data.draw(st.booleans(), label=f"without {part}"):
            without(part)(tensors, header)
    if data.draw(st.booleans(), label="without detail"):
        without("detail/")(tensors, header)
        header["detail"] = None
    if data.draw(st.booleans(), label="without the negative side"):
        header["negative"] = None
    if "picture/png" not in tensors:
        header["size"] = data.draw(st.lists(st.integers(1, 90), min_size=2, max_size=2), label="size")
    for name in data.draw(st.lists(st.sampled_from(NAMES), max_size=6), label="other values"):
        if name in tensors and not name.endswith("png") and "self/" not in name:
            high = 6e4 if tensors[name].dtype is torch.float16 else 1e15
            value = data.draw(st.one_of(st.floats(-high, high), st.sampled_from([0.0, high])), label=name)
            tensors[name] = torch.full_like(tensors[name], value)
    for side in filter(None, (header, header["negative"])):
        prompt = side["prompt"]
        prompt["text"] = data.draw(TEXTS, label="text")
        prompt["truncated"] = data.draw(st.lists(TEXTS, max_size=3), label="truncated")
        for one in data.draw(st.lists(st.sampled_from([*prompt["words"], *prompt["tokens"]]), max_size=5), label="words"):
            one.update(text=data.draw(TEXTS), weight=data.draw(NUMBERS))
            if "label" in one:
                one.update(label=data.draw(TEXTS), rows=data.draw(st.lists(st.integers(1, 2), min_size=1, max_size=3)))
        side["timesteps"] = data.draw(st.lists(NUMBERS, min_size=side["steps"], max_size=4), label="timesteps")
        side["specials"] = data.draw(st.booleans(), label="specials")
        side["rule"] = data.draw(st.sampled_from(["paper", "castorini"]), label="rule")
        for layer in side["layers"]:
            layer.update(name=data.draw(TEXTS), place=data.draw(st.sampled_from(["down", "mid", "up"])))
        for grid in side["terms"]:
            side["terms"][grid] = data.draw(st.sampled_from([1, 3, 2**53]))
    used(HeatMaps.load(records.write(tmp_path / "fits", tensors, header)))


# -- what version 0.1.0 did not have: frames, concepts, many parts ---------------------------------------------------


def of_frames(part: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Maps of one picture as those of so many frames."""
    return {name: x[None].repeat(count, 1, 1, 1) if count > 1 else x for name, x in part.items()}


def frames_of(count: int) -> dict[str, Any]:
    """What a header tells of them."""
    return {"frames": {"spans": [[i, i + 1] for i in range(count)], "latents": count}} if count > 1 else {}


@pytest.mark.parametrize(("whole", "concepts"), [(1, 1), (3, 1), (1, 3), (3, 2), (3, 3)])
def test_concepts_of_a_video_are_refused(whole: int, concepts: int, tmp_path: Path) -> None:
    """They are never recorded; were the prompt's maps and theirs of different frames, nothing could be made of both."""
    tensors, header = parts()
    maps = {name: x for name, x in tensors.items() if name.startswith(("sums/", "late/"))}
    shared = {name: header[name] for name in ("prompt", "size", "steps", "timesteps", "terms", "layers")}
    count = len(header["prompt"]["tokens"])
    side = copy.deepcopy({**shared, "detail": None, "presence": [0.5] * count, **frames_of(concepts)})
    side["prompt"]["words"] = [{"label": f"w{i}", "text": f"w{i}", "weight": 1, "rows": [i]} for i in range(1, count + 1)]
    header = {**shared, "detail": None, "negative": None, "concepts": side, **frames_of(whole)}
    tensors = {**of_frames(maps, whole), **{f"concepts/{name}": x for name, x in of_frames(maps, concepts).items()}}
    path = records.write(tmp_path / "spoiled", tensors, header)
    if whole == concepts == 1:
        assert HeatMaps.load(path).heat_maps(["w1", "house"]).isfinite().all()
        return
    with pytest.raises(BadRecord, match="concepts of a video"):
        HeatMaps.load(path)


@pytest.mark.parametrize("axis", ["steps", "layers"])
def test_parts_without_end_are_not_shown_apart(axis: Literal["steps", "layers"], tmp_path: Path) -> None:
    """A record of a megabyte may have a hundred thousand steps of one place: each takes milliseconds."""
    tensors, header = parts()
    channels = tensors["sums/4x8"].shape[0]
    count = 20_000
    steps, layers = (count, 1) if axis == "steps" else (1, count)
    tensors = {"sums/1x1": torch.ones(channels, 1, 1), "late/1x1": torch.ones(channels, 1, 1)}
    tensors["detail/1x1"] = torch.ones(steps, layers, channels - 3, 1, 1, dtype=torch.float16)
    header.update(terms={"1x1": 1}, steps=steps, timesteps=[0] * steps, negative=None)
    header["layers"] = [{"name": "a", "grid": [1, 1], "heads": 1, "place": "up"}] * layers
    header["detail"] = {"by_step": axis == "steps", "layers": {"1x1": list(range(layers))}}
    maps = HeatMaps.load(records.write(tmp_path / "spoiled", tensors, header))
    assert page_data(maps).header["detail"] == {"steps": False, "layers": axis == "steps", "frames": False}
    assert "daam-data" in explorer_html(maps)
    with pytest.raises(DetailMissing, match="up to 1000"):
        detail_data(maps, axis)
