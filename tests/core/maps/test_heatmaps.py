"""The one noun: words to maps, choices, rules and files, on maps whose right answer is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from daam_core import HeatMaps
from daam_core.errors import BadArgument, BadRecord, DetailMissing, WordNotFound
from daam_core.maps.data import Detail, LayerInfo, RecordedImage
from daam_core.maps.prompt_record import prompt_to_dict
from daam_core.prompt.prompt import Prompt

from ..models import tokenizer

GRIDS = ((8, 12), (4, 6))


def made(text: str = "a red house and a green tree", **changes: object) -> HeatMaps:
    """Maps with random but known sums; every layer, head and step counted as one term."""
    tok = tokenizer()
    prompt = Prompt.from_ids(tok(text, padding="max_length", truncation=True).input_ids, tok, text=text)
    noise = torch.Generator().manual_seed(0)
    sums = {g: torch.rand(prompt.num_channels, *g, generator=noise) for g in GRIDS}
    side = RecordedImage(
        sums=sums,
        time_weighted={g: x * 2 for g, x in sums.items()},
        num_terms=dict.fromkeys(GRIDS, 16),
        layers=(LayerInfo("down.0", GRIDS[0], 2, "down"), LayerInfo("mid.0", GRIDS[1], 2, "mid")),
        detail=None,
        heads=None,
        self_attention=None,
        prompt=prompt,
        steps=8,
        timesteps=tuple(float(t) for t in range(8, 0, -1)),
    )
    return changed(HeatMaps({"prompt": side}, (64, 96)), **changes)


def changed(maps: HeatMaps, **changes: Any) -> HeatMaps:
    """Maps with other fields: `size` and `picture` of the picture, all else of the prompt's side."""
    own = {name: changes.pop(name) for name in ("size", "picture") if name in changes}
    side = dataclasses.replace(maps.positive, **changes)
    return dataclasses.replace(maps, sides={**maps.sides, "prompt": side}, **own)


def detailed() -> HeatMaps:
    """Maps with layers, steps and heads apart on both sides; the negative prompt is "a star"."""
    return _detailed(made()).with_negative(_detailed(made("a star")))


def _detailed(maps: HeatMaps) -> HeatMaps:
    noise = torch.Generator().manual_seed(1)
    n = maps.prompt.num_channels
    values = {g: torch.rand(8, 1, n - 3, *g, generator=noise).half() for g in GRIDS}
    heads = {i: torch.rand(2, n, *layer.grid, generator=noise) for i, layer in enumerate(maps.layers)}
    return changed(maps, heads=heads, detail=Detail(values, {g: (i,) for i, g in enumerate(GRIDS)}, True))


def by_formula(maps: HeatMaps, rows: list[int], size: tuple[int, int]) -> torch.Tensor:
    return sum(  # type: ignore[return-value]
        F.interpolate(x[None, rows], size=size, mode="bicubic", align_corners=False)[0].sum(0) for x in maps.sums.values()
    )


def test_a_word_is_its_row_upscaled_and_summed_over_resolutions() -> None:
    maps = made()
    assert torch.allclose(maps.heat_map("house", (64, 96)), by_formula(maps, [3], (64, 96)), rtol=1e-5, atol=1e-5)
    assert torch.allclose(maps.heat_map("HOUSE"), by_formula(maps, [3], GRIDS[0]), rtol=1e-5, atol=1e-5)
    assert torch.allclose(maps.heat_map("a#2", (30, 50)), by_formula(maps, [5], (30, 50)), rtol=1e-5, atol=1e-5)


def test_a_phrase_sums_its_tokens() -> None:
    maps = made()
    both = maps.heat_map("red", (64, 96)) + maps.heat_map("house", (64, 96))
    assert torch.allclose(maps.heat_map("red house", (64, 96)), both, rtol=1e-5, atol=1e-5)


def test_a_word_of_several_tokens_is_their_sum() -> None:
    """The tiny vocabulary spells "zebra" in bytes: its map is all of them."""
    maps = made("a zebra")
    rows = list(maps.prompt.find("zebra").channels)
    assert len(rows) > 1
    assert torch.allclose(maps.heat_map("zebra", (64, 96)), by_formula(maps, rows, (64, 96)), rtol=1e-5, atol=1e-5)


def test_all_words_in_one_call_equal_each_alone() -> None:
    maps = made()
    stacked = maps.heat_maps(size=(64, 96))
    assert stacked.shape == (7, 64, 96)
    assert stacked.dtype == torch.float32
    for i, word in enumerate(maps.words):
        assert torch.allclose(stacked[i], maps.heat_map(word, (64, 96)), rtol=1e-5, atol=1e-6)
    assert made("").heat_maps(size=(64, 96)).shape == (0, 64, 96)


def test_a_missing_word_names_the_words_that_are() -> None:
    with pytest.raises(WordNotFound, match="house"):
        made().heat_map("zebra")


@pytest.mark.parametrize("size", [(0, 5), (5,), (-1, 2), (3.5, 2), ("a", "b"), 5, (True, True), (1, 2, 3), (2**31, 1)])
def test_a_size_that_is_none_is_said(size: Any) -> None:
    maps = made(picture=np.zeros((64, 96, 3), np.uint8))
    for ask in (maps.heat_map, maps.steps_of, lambda word, size: maps.mask(word, "threshold", size=size)):
        with pytest.raises(BadArgument, match=r"height, width|has more than 134217728 pixels"):
            ask("house", size)


def test_more_maps_than_can_be_held_are_refused_before_they_are_made() -> None:
    with pytest.raises(BadArgument, match="9 maps of 11000 x 11000 pixels are more than can be held at once"):
        made().heat_maps(["house"] * 9, size=(11000, 11000))


def test_a_text_alone_is_one_word_and_not_its_letters() -> None:
    maps = changed(made(), picture=np.zeros((64, 96, 3), np.uint8))
    figures = maps.statistics()
    for name in ("house", "red house"):
        assert torch.equal(maps.heat_maps(name), maps.heat_maps([name]))
        assert maps.heat_maps(name).shape == (1, 8, 12)
        assert torch.equal(figures.mean_probability(name), figures.mean_probability([name]))
        assert torch.equal(figures.share(name), figures.share([name]))
        assert figures.rank_box(0, 0, 9, 9, words=name) == figures.rank_box(0, 0, 9, 9, words=[name])
        assert figures.report(name) == figures.report([name])
        assert [change.word for change in maps.compare(maps, name).changes] == [name]
        assert maps.contact_sheet(name) == maps.contact_sheet([name])
        own, listed = (maps.mask("tree", "compete", competitors=c) for c in (name, [name]))
        assert torch.equal(own, listed)
        assert maps.prompt.phrase(name).channels == maps.prompt.find(name).channels
    word = maps.prompt.find("tree")
    assert torch.equal(maps.heat_maps(word), maps["tree"][None])
    assert torch.equal(maps.heat_maps(iter(["tree", "red"])), maps.heat_maps(["tree", "red"]))
    with pytest.raises(BadArgument, match=r"Words are named by their texts, such as \['house', 'tree'\], not by 7"):
        maps.heat_maps(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["layers", "steps", "heads", "grids", "frames"])
def test_a_choice_is_a_list(name: str) -> None:
    with pytest.raises(BadArgument, match=f"{name} takes a list"):
        detailed().select(**{name: 0})  # type: ignore[arg-type]


def test_content_words_leave_out_articles() -> None:
    assert made().content_words == ["red", "house", "green", "tree"]


def test_one_resolution_can_be_chosen() -> None:
    maps = made().select(grids=[GRIDS[1]])
    assert maps.grid == GRIDS[1]
    assert torch.equal(maps.heat_map("house"), maps.sums[GRIDS[1]][3])
    with pytest.raises(BadArgument, match="was recorded"):
        made().select(grids=[(99, 99)])
    as_json = made().select(grids=[list(GRIDS[1])])  # type: ignore[list-item]
    assert as_json.sums.keys() == maps.sums.keys()


def test_choices_of_detail() -> None:
    """Steps and layers are picked where kept, and the error says how to keep them."""
    plain = made()
    with pytest.raises(DetailMissing, match="keep="):
        plain.select(steps=[0])
    with pytest.raises(DetailMissing, match="heads"):
        plain.select(heads=[0])
    values = {g: torch.rand(8, 1, plain.prompt.num_channels - 3, *g).half() for g in GRIDS}
    maps = made(detail=Detail(values, {GRIDS[0]: (0,), GRIDS[1]: (1,)}, True))
    last = maps.select(steps=[-1])
    expected = (
        values[GRIDS[0]][7, 0, 2].float()
        + F.interpolate(values[GRIDS[1]][7, 0, 2].float()[None, None], size=GRIDS[0], mode="bicubic")[0, 0]
    )
    assert torch.allclose(last.heat_map("house"), expected, rtol=1e-5, atol=1e-5)
    assert last.num_terms == {GRIDS[0]: 2, GRIDS[1]: 2}
    mid = maps.select(layers=["mid"])
    assert list(mid.sums) == [GRIDS[1]]
    assert torch.allclose(mid.heat_map("house"), values[GRIDS[1]][:, 0, 2].float().sum(0), rtol=1e-5)
    with pytest.raises(DetailMissing, match="<start>"):
        mid.heat_map("<start>")
    with pytest.raises(BadArgument, match="no layer"):
        maps.select(layers=["nowhere"])
    with pytest.raises(BadArgument, match="no step"):
        maps.select(steps=[8])


def test_choices_and_aggregations_are_of_both_sides() -> None:
    """Whoever chooses steps, heads or a rule gets the negative prompt's maps by the same choice."""
    maps = detailed()
    assert maps.negative is not None
    own = maps.negative.select(steps=[1])
    both = maps.select(steps=[1]).negative
    assert both is not None and not both.specials
    assert torch.equal(both.heat_map("star"), own.heat_map("star"))
    assert not torch.equal(both.heat_map("star"), maps.negative.heat_map("star"))
    other = maps.aggregate("castorini").negative
    assert other is not None and other.aggregation == "castorini" and other.grid == (64, 64)
    lost = maps.with_negative(made("a star"))  # recorded without detail
    assert lost.select(steps=[1]).negative is None


def test_a_number_that_is_named_twice_counts_once() -> None:
    maps = detailed()
    for twice, once in (({"steps": [0, 0, -8, 3]}, {"steps": [3, 0]}), ({"heads": [1, 1]}, {"heads": [1]})):
        a, b = maps.select(**twice), maps.select(**once)  # type: ignore[arg-type]
        assert torch.equal(a.heat_map("house"), b.heat_map("house")) and a.num_terms == b.num_terms
    twice_layers = maps.select(layers=[0, "down.0", "down"])
    assert torch.equal(twice_layers.heat_map("house"), maps.select(layers=[0]).heat_map("house"))
    wrong: list[dict[str, list[Any]]] = [
        {"steps": [1.5]}, {"steps": ["1"]}, {"steps": []}, {"heads": []}, {"heads": [None]}, {"layers": []}, {"grids": []}
    ]  # fmt: skip
    for choice in wrong:
        with pytest.raises(BadArgument):
            maps.select(**choice)  # type: ignore[arg-type]


def test_a_record_keeps_rule_specials_and_choice_of_both_sides(tmp_path: Path) -> None:
    maps = detailed()
    for changed_maps in (maps, maps.select(steps=[0, 3]), maps.select(heads=[0]), maps.aggregate("castorini")):
        back = HeatMaps.load(changed_maps.save(tmp_path / "run"))
        for before, after in ((changed_maps, back), (changed_maps.negative, back.negative)):
            assert before is not None and after is not None
            for name in ("num_terms", "layers", "steps", "timesteps", "prompt", "aggregation", "specials", "words", "size"):
                assert getattr(after, name) == getattr(before, name), name
            assert torch.equal(after.heat_maps(), before.heat_maps())
            assert (after.detail is None) == (before.detail is None) and (after.heads is None) == (before.heads is None)
            assert after.nbytes == before.nbytes


def test_the_negative_side_lies_over_the_same_picture(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    maps = detailed().with_picture(picture)
    assert maps.negative is not None and maps.negative.picture is picture
    assert maps.size == maps.negative.size == (20, 30) and maps.mask("house").shape == maps.negative.mask("star").shape
    with pytest.raises(BadArgument, match="uint8"):
        maps.with_picture(picture.astype(float))  # type: ignore[arg-type]


def thirds(*values: float) -> torch.Tensor:
    """`[8, 12]`: one value on each third, from left to right."""
    return torch.tensor(values).repeat_interleave(4).expand(8, 12).clone()


def two_objects() -> HeatMaps:
    """A house on the left that reaches over to the right, and a tree on the right; other words are even."""
    maps = made()
    rows = torch.full((maps.prompt.num_channels, *GRIDS[0]), 0.5)
    rows[maps.prompt.find("house").channels[0]] = thirds(5.0, 0.5, 2.5)
    rows[maps.prompt.find("tree").channels[0]] = thirds(0.1, 0.1, 6.0)
    return changed(maps, sums={GRIDS[0]: rows}, time_weighted={GRIDS[0]: rows}, num_terms={GRIDS[0]: 16})


def test_a_mask_gives_way_to_the_competitors_that_are_named() -> None:
    """The house alone has both outer thirds at tau 0.4; against the tree it keeps its own."""
    maps = two_objects()
    alone = maps.mask("house", "compete", competitors=[])
    against = maps.mask("house", "compete", competitors=["tree"])
    left, middle, right = slice(0, 28), slice(40, 56), slice(72, 96)  # columns clear of the borders
    for mask in (alone, against):
        assert mask[:, left].all() and not mask[:, middle].any()
    assert alone[:, right].all() and not against[:, right].any()
    assert torch.equal(maps.mask("house", "compete"), against)  # the tree is the other noun of the prompt
    with pytest.raises(WordNotFound, match="zebra"):
        maps.mask("house", "compete", competitors=["zebra"])


@pytest.mark.parametrize("method", ["grabcut", "best"])
def test_a_mask_snaps_to_the_picture_that_is_given(method: str) -> None:
    """Two pictures whose objects end at different columns: the mask follows the one it is given."""
    maps = two_objects().with_picture(pictured(24))
    there = maps.mask("house", method, image=pictured(40))
    assert torch.equal(there, two_objects().with_picture(pictured(40)).mask("house", method))
    assert not torch.equal(there, maps.mask("house", method))
    larger = np.repeat(np.repeat(pictured(40), 2, 0), 2, 1)
    assert maps.mask("house", method, image=larger).shape == (128, 192)
    assert maps.mask("house", method, image=larger, size=(64, 96)).shape == (64, 96)


def pictured(edge: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 `[64, 96, 3]`: red up to a column, green behind it, with a little noise."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, :edge], picture[:, edge:] = (200, 40, 40), (30, 150, 40)
    return picture + np.random.default_rng(0).integers(0, 20, picture.shape, dtype=np.uint8)


def test_terms_of_a_choice_are_those_of_its_own_layers_and_steps() -> None:
    """Mean probability stays one where layers stand in an area of the picture, whose resolution is not their own."""
    n = made().prompt.num_channels
    area = (6, 10)
    values = {area: torch.full((8, 1, n - 3, *area), 0.5).half()}
    sums = {area: torch.full((n, *area), 4.0)}
    held = changed(made(), sums=sums, time_weighted=sums, num_terms={area: 16}, detail=Detail(values, {area: (0,)}, True))
    flat = changed(held, detail=Detail(values, {}, True))
    for maps in (held, flat):
        chosen = maps.select(steps=[1, 2])
        assert chosen.num_terms == {area: 4}
        assert float(chosen.statistics().mean_probability(["house"]).max()) == pytest.approx(0.25)


def test_a_record_keeps_everything(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    g = GRIDS[0]
    full = made(
        picture=picture,
        heads={0: torch.rand(2, 10, *g), 1: torch.rand(2, 10, *GRIDS[1])},
        self_attention={g: torch.rand(96, 96).softmax(1)},
        detail=Detail({g: torch.rand(8, 1, 7, *g).half()}, {g: (0,)}, True),
    ).with_negative(made("a star"))
    back = HeatMaps.load(full.save(tmp_path / "run.safetensors"))
    assert back.words == full.words
    assert back.negative is not None
    assert back.negative.words == ["a", "star"]
    assert back.picture is not None
    assert back.detail is not None and back.heads is not None and back.self_attention is not None
    assert full.detail is not None and full.heads is not None and full.self_attention is not None
    assert np.array_equal(back.picture, picture)
    assert torch.equal(back.heat_maps(), full.heat_maps())
    assert torch.equal(back.detail.values[g], full.detail.values[g])
    assert torch.equal(back.heads[0], full.heads[0])
    assert torch.equal(back.self_attention[g], full.self_attention[g])
    for name in ("num_terms", "layers", "size", "steps", "timesteps", "prompt", "aggregation"):
        assert getattr(back, name) == getattr(full, name), name


def test_a_record_whose_parts_do_not_fit_is_said(tmp_path: Path) -> None:
    """A record edited by hand, or of another prompt, is one clear sentence."""
    from daam_core.maps import safetensors_file as records

    path = made().save(tmp_path / "run.safetensors")
    tensors, header = records.read(path)
    for change in (
        {"steps": "many"},
        {"layers": [{"name": "x"}]},
        {"size": [0, 4]},
        {"prompt": None},
        {"terms": {"8by12": 3}},
        {"prompt": prompt_to_dict(made("a star").prompt)},
    ):
        clean = {k: v for k, v in header.items() if k not in ("format", "version")} | change
        with pytest.raises(BadRecord):
            HeatMaps.load(records.write(tmp_path / "bad.safetensors", tensors, clean))


def test_a_picture_that_promises_gigabytes_is_refused(tmp_path: Path) -> None:
    """A PNG of 60 bytes may claim 65535 x 65535 pixels; nothing of that size is allocated."""
    from daam_core.maps import safetensors_file as records

    path = made(picture=np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "run.safetensors")
    tensors, header = records.read(path)
    png = bytearray(tensors["picture/png"].numpy().tobytes())
    png[16:24] = (65535).to_bytes(4, "big") * 2
    tensors["picture/png"] = torch.frombuffer(png, dtype=torch.uint8)
    clean = {k: v for k, v in header.items() if k not in ("format", "version")}
    with pytest.raises(BadRecord, match="picture"):
        HeatMaps.load(records.write(tmp_path / "bomb.safetensors", tensors, clean))


def test_a_token_is_its_channel() -> None:
    maps = made("a zebra")
    tokens = maps.prompt.tokens
    assert len(tokens) > 2
    parts = torch.stack([maps.token(i, (30, 20)) for i in range(1, len(tokens))])
    assert torch.allclose(parts.sum(0), maps.heat_map("zebra", (30, 20)), rtol=1e-4, atol=1e-5)
    assert torch.equal(maps.token(-1), maps.token(len(tokens) - 1))
    for wrong in (len(tokens), -len(tokens) - 1, "zebra", 1.0):
        with pytest.raises(BadArgument, match="no token"):
            maps.token(wrong)  # type: ignore[arg-type]


def test_maps_are_asked_by_word() -> None:
    maps = made()
    assert torch.equal(maps["red house"], maps.heat_map("red house"))
    assert "house" in maps and "red house" in maps and "zebra" not in maps and 3 not in maps
    assert list(maps) == maps.words
    with pytest.raises(BadArgument, match="by its text"):
        maps[0]  # type: ignore[index]


def test_steps_of_a_word_are_those_chosen_one_by_one() -> None:
    maps = detailed()
    steps = maps.steps_of("red house", (32, 48))
    assert steps.shape == (8, 32, 48) and steps.dtype == torch.float32
    one_by_one = torch.stack([maps.select(steps=[j]).heat_map("red house", (32, 48)) for j in range(8)])
    torch.testing.assert_close(steps, one_by_one, rtol=1e-5, atol=1e-5)
    with pytest.raises(DetailMissing, match="keep='steps'"):
        made().steps_of("house")
    with pytest.raises(DetailMissing, match="<start>"):
        maps.steps_of("<start>")
    with pytest.raises(BadArgument, match="height, width"):
        maps.steps_of("house", (0, 4))


def test_default_words_are_the_strongest_in_order() -> None:
    maps = made()
    sums = {g: torch.zeros_like(x) for g, x in maps.sums.items()}
    for word, heat in (("tree", 3.0), ("red", 2.0), ("house", 1.0), ("a", 9.0)):
        sums[GRIDS[0]][maps.prompt.find(word).channels[0]] = heat
    maps = changed(maps, sums=sums)
    assert maps.default_words() == ["red", "house", "green", "tree"]
    assert maps.default_words(2) == ["red", "tree"]
    assert maps.default_words(0) == []
    assert made("and the").default_words() == ["and", "the"]


# -- two recordings ------------------------------------------------------------------------------------------------


def test_two_recordings_add_up() -> None:
    """Eq. 6 over the steps of both; what was kept apart stays so, both sides."""
    a, b = detailed(), detailed()
    b = b.each_side(lambda side: dataclasses.replace(side, sums={g: x * 3 for g, x in side.sums.items()}))
    both = a + b
    assert torch.allclose(both.heat_map("house"), 4 * a.heat_map("house"), rtol=1e-5)
    assert both.steps == 16 and len(both.timesteps) == 16 and both.num_terms == dict.fromkeys(GRIDS, 32)
    assert both.negative is not None and a.negative is not None
    assert torch.allclose(both.negative["star"], 4 * a.negative["star"], rtol=1e-5)
    assert torch.equal(both.select(steps=[9]).heat_map("tree"), b.select(steps=[1]).heat_map("tree"))
    assert torch.allclose(both.select(heads=[1])["tree"], 2 * a.select(heads=[1])["tree"], rtol=1e-5)
    assert (a + made()).negative is None and (a + made()).detail is None


def test_a_refiner_has_layers_and_resolutions_of_its_own() -> None:
    base, fine = detailed(), (2, 3)
    picture = np.zeros((64, 96, 3), np.uint8)
    n = base.prompt.num_channels
    refiner = made(
        sums={GRIDS[0]: torch.ones(n, *GRIDS[0]), fine: torch.ones(n, *fine)},
        time_weighted={GRIDS[0]: torch.ones(n, *GRIDS[0]), fine: torch.ones(n, *fine)},
        num_terms={GRIDS[0]: 4, fine: 2},
        layers=(LayerInfo("refiner", fine, 1, "up"),),
        self_attention={fine: torch.eye(6)},
        picture=picture,
    )
    both = base + refiner
    assert set(both.sums) == {*GRIDS, fine} and both.num_terms == {GRIDS[0]: 20, GRIDS[1]: 16, fine: 2}
    assert torch.equal(both.sums[GRIDS[0]], base.sums[GRIDS[0]] + 1) and torch.equal(both.sums[fine], refiner.sums[fine])
    assert [layer.name for layer in both.layers] == ["down.0", "mid.0", "refiner"]
    assert both.detail is None and both.heads is None and both.picture is picture
    assert both.self_attention is not None and list(both.self_attention) == [fine]


def test_other_prompts_sizes_and_rules_are_not_added() -> None:
    maps = detailed()
    with pytest.raises(BadArgument, match="one prompt"):
        maps + made("a star")
    with pytest.raises(BadArgument, match="96 x 64 and 64 x 64"):
        maps + made(size=(64, 64))
    with pytest.raises(BadArgument, match="before another aggregation"):
        maps + maps.aggregate("castorini")
    with pytest.raises(TypeError):
        maps + 1  # type: ignore[operator]


def test_aggregations_are_known_by_name() -> None:
    maps = detailed()
    assert torch.equal(maps.aggregate("sum")["house"], maps["house"])
    with pytest.raises(BadArgument, match="there are sum, castorini"):
        maps.aggregate("median")  # type: ignore[arg-type]
    with pytest.raises(DetailMissing, match="no parts"):
        maps.aggregate("castorini").select(steps=[0])
    for again in ("sum", "castorini"):
        with pytest.raises(BadArgument, match="made by the aggregation 'castorini'"):
            maps.aggregate("castorini").aggregate(again)  # type: ignore[arg-type]
