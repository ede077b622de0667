"""What the text attended to, in finished maps: words of tokens, records, sums, choices, the picture of the matrix."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from daam_core import HeatMaps
from daam_core.errors import BadArgument, BadRecord, DetailMissing, WordNotFound
from daam_core.explorer.page_data import page_data
from daam_core.maps import safetensors_file, serialization
from daam_core.maps.relations import Relations, in_succession
from daam_core.maps.succession import join_in_succession
from daam_core.prompt.prompt import Prompt
from daam_core.render import word_matrix

RECORD = Path(__file__).parent / "data" / "record-0.1.0.safetensors"


def random_relations(channels: int, grid: tuple[int, int] = (4, 8), seed: int = 0) -> Relations:
    generator = torch.Generator().manual_seed(seed)
    queries = torch.arange(1.0, channels + 1)
    return Relations(
        {grid: torch.rand(channels, *grid, generator=generator)},
        torch.rand(channels, channels, generator=generator),
        queries,
    )


@pytest.fixture
def maps() -> HeatMaps:
    """ "a red house and a green tree", with random relations on both sides."""
    loaded = HeatMaps.load(RECORD)
    return loaded.each_side(lambda side: dataclasses.replace(side, relations=random_relations(side.prompt.num_channels)))


def test_a_record_of_before_has_no_relations() -> None:
    assert HeatMaps.load(RECORD).relations is None


def test_a_word_looks_where_its_tokens_look(maps: HeatMaps) -> None:
    where = maps.relation("text->image")
    assert maps.relations is not None
    kept = maps.relations.text_to_image[4, 8]
    torch.testing.assert_close(where["red house"], kept[2] + kept[3], rtol=0, atol=1e-6)
    assert where.words == maps.words and where.grid == (4, 8) and where.negative is not None
    assert where.mask("house", "threshold").shape == (32, 64)


def test_the_matrix_is_the_mean_over_the_tokens_that_attend_and_the_sum_over_those_attended_to(maps: HeatMaps) -> None:
    assert maps.relations is not None and maps.relations.text_to_text is not None
    m, n = maps.relations.text_to_text.double(), maps.relations.num_queries.double()
    got = maps.word_matrix(["red house", "tree"])
    parts = [2, 3], [7]
    wanted = [[sum(m[a, b] for a in rows for b in columns) / n[rows].sum() for columns in parts] for rows in parts]
    torch.testing.assert_close(got.double(), torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-6)
    assert maps.word_matrix().shape == (7, 7)
    with pytest.raises(WordNotFound):
        maps.word_matrix(["zebra"])


def test_what_is_no_map_says_what_it_is(maps: HeatMaps) -> None:
    for name, text in (("text->text", "word_matrix"), ("image->image", "self_attention"), ("text", "There is no relation")):
        with pytest.raises(BadArgument, match=text):
            maps.relation(name)  # type: ignore[arg-type]
    only = maps.each_side(lambda side: dataclasses.replace(side, relations=Relations({}, None, torch.ones(10))))
    for ask in (lambda: only.relation("text->image"), only.word_matrix):
        with pytest.raises(DetailMissing, match="relations="):
            ask()


def same(a: Relations | None, b: Relations | None) -> bool:
    assert a is not None and b is not None
    return all(torch.equal(x, y) for x, y in zip(a.tensors(), b.tensors(), strict=True)) and a.text_to_image.keys() == (
        b.text_to_image.keys()
    )


def test_records_hold_relations_of_both_sides(maps: HeatMaps, tmp_path: Path) -> None:
    again = HeatMaps.load(maps.save(tmp_path / "record"))
    assert same(again.relations, maps.relations)
    assert again.negative is not None and maps.negative is not None
    assert same(again.negative.relations, maps.negative.relations)
    assert again.nbytes - HeatMaps.load(RECORD).nbytes == sum(
        x.nbytes for side in maps.sides.values() if side.relations for x in side.relations.tensors()
    )


@pytest.mark.parametrize("part", ["text-text", "text-queries", "text-image/4x8"])
@pytest.mark.parametrize("damage", [lambda x: x[1:], lambda x: x.half(), lambda x: x * torch.nan, lambda x: -x])
def test_a_record_whose_relations_make_no_sense_is_refused(maps: HeatMaps, part: str, damage: object, tmp_path: Path) -> None:
    tensors, header = serialization.pack(maps)
    path = safetensors_file.write(tmp_path / "bad", {**tensors, part: damage(tensors[part])}, header)  # type: ignore[operator]
    with pytest.raises(BadRecord):
        HeatMaps.load(path)


def test_two_recordings_add_up_and_a_choice_of_steps_has_none(maps: HeatMaps) -> None:
    both = maps + maps
    assert both.relations is not None and maps.relations is not None and maps.relations.text_to_text is not None
    torch.testing.assert_close(both.relations.text_to_text, 2 * maps.relations.text_to_text)
    torch.testing.assert_close(both.word_matrix(), maps.word_matrix())
    assert (maps + HeatMaps.load(RECORD)).relations is None
    assert maps.select(steps=[0]).relations is None and maps.select(grids=[(4, 8)]).relations is not None


def test_prompts_in_succession_keep_their_own_words() -> None:
    """Channels start, tokens, end, padding: the outer ones are added up, and no word of one attends to one of the other."""
    one, other = random_relations(5), random_relations(6, seed=1)
    joined = in_succession([one, other])
    assert joined is not None and joined.text_to_text is not None
    assert one.text_to_text is not None and other.text_to_text is not None
    assert len(joined.num_queries) == 5 + 6 - 3
    places = {"one": [0, 1, 2, 6, 7], "other": [0, 3, 4, 5, 6, 7]}
    wanted = torch.zeros(8, 8)
    images = torch.zeros(8, 4, 8)
    for part, own in ((one, places["one"]), (other, places["other"])):
        assert part.text_to_text is not None
        for i, a in enumerate(own):
            images[a] += part.text_to_image[4, 8][i]
            for j, b in enumerate(own):
                wanted[a, b] += part.text_to_text[i, j]
    torch.testing.assert_close(joined.text_to_text, wanted)
    torch.testing.assert_close(joined.text_to_image[4, 8], images)
    assert in_succession([one, None]) is None


def test_sides_joined_in_succession_bring_theirs(maps: HeatMaps) -> None:
    joined = join_in_succession([maps.positive, maps.sides["negative"]])
    assert joined.relations is not None and len(joined.relations.num_queries) == joined.prompt.num_channels


def test_words_that_are_given_later() -> None:
    """Columns become channels: sums of rows and columns of the matrix."""
    loaded = HeatMaps.load(RECORD)
    prompt = loaded.prompt
    columns = prompt.length + 3
    side = dataclasses.replace(
        loaded.positive,
        prompt=Prompt.by_index(prompt.length),
        sums={(4, 8): torch.rand(columns, 4, 8)},
        time_weighted={(4, 8): torch.rand(columns, 4, 8)},
        detail=None,
        heads=None,
        relations=random_relations(columns),
    )
    named = HeatMaps({"prompt": side}, loaded.size).with_prompt(prompt)
    assert named.relations is not None and side.relations is not None and side.relations.text_to_text is not None
    (house,) = prompt.find("house").channels
    column = next(token.column for token in prompt.tokens if token.channel == house) + 1
    red = next(token.column for token in prompt.tokens if token.channel == house - 1) + 1
    torch.testing.assert_close(named.relations.text_to_text[house, house - 1], side.relations.text_to_text[column, red])
    torch.testing.assert_close(named.relations.num_queries[house], side.relations.num_queries[column])
    torch.testing.assert_close(named.relations.text_to_image[4, 8][house], side.relations.text_to_image[4, 8][column])


def test_a_page_gets_the_matrix(maps: HeatMaps) -> None:
    header = page_data(maps).header["relations"]
    assert header["words"] == maps.words
    torch.testing.assert_close(torch.tensor(header["text_to_text"]), maps.word_matrix(), rtol=0, atol=1e-4)
    assert page_data(HeatMaps.load(RECORD)).header["relations"] == {}


def test_a_page_gets_where_each_word_looks(maps: HeatMaps) -> None:
    """Figures of every word of both sides at the picture's size, and an atlas that is as bounded as the page's own."""
    page = page_data(maps, budget=2000)
    looks, where = page.header["relations"]["looks"], maps.relation("text->image")
    assert looks["terms"] == sum(where.num_terms.values()) and looks["grids"] == [[4, 8]]
    entries = page.header["words"]
    assert len(looks["words"]) == len(entries) and len(looks["atlas"]) <= 2000 * 4 / 3 + 4
    for entry, told in zip(entries, looks["words"], strict=True):
        side = where.negative if entry["kind"] == "negative" else where
        assert side is not None
        heat = side.heat_map(entry["label"], maps.size)
        assert told["peak"] == pytest.approx(float(heat.max()), rel=1e-5)
        assert told["mean"] == pytest.approx(float(heat.clamp(min=0).mean()), rel=1e-5)
    only = maps.each_side(lambda side: dataclasses.replace(side, relations=Relations({}, None, torch.ones(10))))
    assert page_data(only).header["relations"] == {}


def _is_colour(pixels: np.ndarray, colour: Tensor) -> bool:
    return bool((pixels == colour.numpy()).all(-1).any())


def test_the_matrix_is_drawn_with_the_warmest_colour_where_it_is_largest(maps: HeatMaps) -> None:
    from daam_core.render import colour_table

    values = np.array([[0.0, 0.5], [0.1, 0.2]])
    drawn = word_matrix(["cat", "dog"], values, "a cat and a dog")
    assert drawn.dtype == np.uint8 and drawn.shape[1] == 420
    drawn, scale = drawn[:-90], drawn[-90:]
    table = torch.from_numpy(colour_table("ember").copy())
    assert _is_colour(drawn, table[255]) and _is_colour(drawn, table[51])
    ys, xs = np.nonzero((drawn == table[255].numpy()).all(-1))
    below, left = np.nonzero((drawn == table[51].numpy()).all(-1))
    assert ys.mean() < below.mean() and xs.mean() > left.mean()
    assert _is_colour(scale, table[0]) and _is_colour(scale, table[255]), "the scale has all colours"
    assert maps.word_matrix_picture(theme="light").mode == "RGB"
    for labels, wrong in (([], np.zeros((0, 0))), (["a"], np.zeros((2, 2))), (["a"] * 65, np.zeros((65, 65)))):
        with pytest.raises(BadArgument, match="1 to 64 words"):
            word_matrix(labels, wrong)
