"""Words that are not in the prompt, in a running host: equal to their formula, the picture untouched, told beside every map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daam_core import HeatMaps

from .running import PROMPT, Live, Result
from .test_modes import at, hires

pytestmark = [pytest.mark.host, pytest.mark.slow]
CONCEPT = "boat"
RIVALS = ("house", "tree", "sun", "moon", "star", "fish", "mushroom", "balloon", "flower", "car", "heart")
TEXTS = [f"a {name}" for name in (CONCEPT, *RIVALS)]
NOUN = 2
"""The column of the noun in each of the texts, behind the start and the article."""


def of_heads(seen: Result, columns: Sequence[int], rivals: bool) -> Iterator[tuple[int, Tensor]]:
    """(step from 1 on, `exp(concept) / (exp(concept) + exp(prompt's words) [+ exp(rivals)])` of each head `[heads, n]`) of each
    layer in each step.

    Args:
        columns: of the prompt's words.
        rivals: whether other things stand below the fraction, too.
    """
    states: Tensor = seen.encoded["states"][:, NOUN].float()
    step = 0
    for call in seen.calls:
        rows = list(at(call, []))
        step += bool(rows)
        for row, layer in product(rows, call["layers"]):
            heads, q = layer["heads"], layer["q"][row].float()
            own = states @ seen.encoded["to_k"][layer["name"]].float().T
            keys = torch.cat([own[: len(TEXTS) if rivals else 1], layer["k"][row].float()[list(columns)]])
            q, keys = (x.reshape(len(x), heads, -1).transpose(0, 1) for x in (q, keys))
            yield step, (q @ keys.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)[:, :, 0]


def shares(seen: Result, columns: Sequence[int]) -> dict[int, Tensor]:
    """The concept's sums over heads, layers and steps by number of places."""
    total: dict[int, Tensor] = {}
    for _, share in of_heads(seen, columns, rivals=False):
        total[share.shape[1]] = total.get(share.shape[1], 0) + share.sum(0)
    return total


def presence(seen: Result, columns: Sequence[int], maps: HeatMaps) -> float:
    """`1 - mean / mean of the hottest 3 %` of the sum of all resolutions at the finest, where a head counts by its variance
    over the places and a step by the eighth power of its number."""
    finest = max(maps.sums, key=lambda grid: grid[0] * grid[1])
    grids = {grid[0] * grid[1]: grid for grid in maps.sums}
    whole = torch.zeros(finest)
    for step, share in of_heads(seen, columns, rivals=True):
        late = (share * share.var(1, correction=0, keepdim=True)).sum(0) * float(step) ** 8
        whole += F.interpolate(late.reshape(1, 1, *grids[len(late)]), finest, mode="bicubic")[0, 0]
    hottest = whole.clamp(min=0).flatten().sort(descending=True).values
    return float(1 - hottest.mean() / hottest[: max(1, int(0.03 * len(hottest)))].mean())


def test_a_concept_is_its_formula_and_the_picture_stays(live: Live) -> None:
    asked = {"concepts": CONCEPT, "overlays": True, "maps": True}
    live.compare(lens=asked)
    seen = live.make(lens=asked, watch=True, texts=TEXTS, steps=3)
    maps = seen.maps[0]
    assert maps.concepts == [CONCEPT]
    columns = [token.column for token in maps.prompt.tokens]
    assert columns == list(range(1, 1 + len(PROMPT.split())))
    side = maps.sides["concepts"]
    expected = shares(seen, columns)
    assert len(expected) == len(side.sums) > 0
    for grid, sums in side.sums.items():
        assert torch.allclose(sums[1].flatten(), expected[grid[0] * grid[1]], rtol=1e-5, atol=1e-5), grid
    found = maps.presence(CONCEPT).score
    if live.name != "a1111":  # whose small vocabulary cuts some of the rivals into pieces
        assert found == pytest.approx(presence(seen, columns, maps), abs=1e-4)
    shown = [text.rsplit("DAAM Lens shows: ", 1)[1] for text in seen.info["infotexts"] if "DAAM Lens shows" in text]
    told = [text for text in shown if CONCEPT in text]
    assert len(told) == 2 and all(f"{CONCEPT}: " in text and "not in the prompt" in text for text in told)
    listed = live.server.get(f"/daam-lens/v1/runs/{seen.runs[0]}")
    assert listed["concepts"][CONCEPT]["presence"] == pytest.approx(found)
    answer = live.server.post(f"/daam-lens/v1/runs/{seen.runs[0]}/maps", {"words": ["house", CONCEPT], "overlay": False})
    assert set(answer["maps"]) == {"house", CONCEPT} and set(answer["concepts"]) == {CONCEPT}
    masks = live.server.post(f"/daam-lens/v1/runs/{seen.runs[0]}/masks", {"words": [CONCEPT]})
    assert set(masks["masks"]) == {CONCEPT}


def test_concepts_of_several_pictures_and_of_a_prompt_that_changes(live: Live) -> None:
    seen = live.compare(
        lens={"concepts": "boat, sun\nred house"}, prompt="a red house and a [green:sun:0.5] tree", batch_size=2
    )
    assert len(seen.maps) == 2
    for maps in seen.maps:
        assert maps.concepts == ["boat"]  # the prompt says sun, later on, and red house
        assert "sun" in maps and 0 <= maps.presence("boat").score <= 1
    assert not torch.equal(*(maps.heat_map("boat") for maps in seen.maps))


def test_concepts_through_hires_fix_and_at_other_clip_skip(live: Live) -> None:
    seen = live.compare(lens={"concepts": CONCEPT}, override_settings={"CLIP_stop_at_last_layers": 2}, **hires(live))
    assert seen.maps[0].concepts == [CONCEPT] and not seen.note
    assert set(seen.maps[0].sides["concepts"].sums) == set(seen.maps[0].sums)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"concepts": ", ".join(f"thing{n}" for n in range(65))}, "From 1 to 64 concepts"),
        ({"concepts": CONCEPT, "template": "a photo"}, "A template for concepts holds {} once"),
        ({"concepts": "x" * 201}, "A concept is a word or phrase"),
    ],
)
def test_what_cannot_be_looked_for_costs_no_word(live: Live, body: dict[str, str], said: str) -> None:
    seen = live.compare(lens=body)
    assert len(seen.maps) == 1 and not seen.maps[0].concepts
    assert said in seen.note and "the words were recorded" in seen.note


def test_and_ends_the_concepts_alone(live: Live) -> None:
    seen = live.compare(lens={"concepts": CONCEPT}, prompt="a red house AND a green tree")
    assert "house" in seen.maps[0] and not seen.maps[0].concepts
    assert "without AND" in seen.note


def test_a_hypernetwork_ends_the_concepts_alone(live: Live) -> None:
    if live.name != "a1111":
        pytest.skip("a host without hypernetworks")
    seen = live.compare(lens={"concepts": CONCEPT}, prompt=f"{PROMPT} <hypernet:bend:1>")
    assert "house" in seen.maps[0] and not seen.maps[0].concepts
    assert "keys that are not those of the text" in seen.note


def test_a_plot_takes_a_concept_as_a_word(live: Live) -> None:
    seen = live.make(lens={"concepts": CONCEPT, "words": "boat, house"}, save_images=False)
    shown = [text.rsplit("DAAM Lens shows: ", 1)[1] for text in seen.info["infotexts"] if "DAAM Lens shows" in text]
    assert not shown
    drawn = live.make(lens={"concepts": CONCEPT, "words": "boat", "overlays": True, "record": False})
    assert sum("DAAM Lens shows" in text and CONCEPT in text for text in drawn.info["infotexts"]) == 1
