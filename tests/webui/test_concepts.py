"""Words that are not in the prompt, in a running host: equal to their formula, the picture untouched, told beside every map."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daam_core import HeatMaps

from .explicit import Call
from .running import PROMPT, Live, Result
from .test_modes import hires

pytestmark = [pytest.mark.host, pytest.mark.slow]
CONCEPT = "boat"
RIVALS = ("house", "tree", "sun", "moon", "star", "fish", "mushroom", "balloon", "flower", "car", "heart")
TEXTS = [f"a {name}" for name in (CONCEPT, *RIVALS)]
NOUN = 2
"""The column of the noun in each of the texts, behind the start and the article."""


def prompt_row(live: Live, call: Call) -> int | None:
    """The row of the prompt: A1111 puts it first, Forge tells."""
    if not call["cond_or_uncond"]:
        return 0
    return call["cond_or_uncond"].index(0) if 0 in call["cond_or_uncond"] else None


def shares(live: Live, seen: Result, columns: Sequence[int], rivals: bool, late: bool) -> dict[int, Tensor]:
    """`exp(concept) / (exp(concept) + exp(prompt's words) [+ exp(rivals)])` summed over heads, layers and steps.

    Args:
        columns: of the prompt's words.
        rivals: whether other things stand below the fraction, too.
        late: whether the step's number, squared, counts.
    """
    states: Tensor = seen.encoded["states"][:, NOUN].float()
    total: dict[int, Tensor] = {}
    step = 0
    for call in seen.calls:
        row = prompt_row(live, call)
        if row is None:
            continue
        step += 1
        for layer in call["layers"]:
            heads, q = layer["heads"], layer["q"][row].float()
            own = states @ seen.encoded["to_k"][layer["name"]].float().T
            keys = torch.cat([own[: len(TEXTS) if rivals else 1], layer["k"][row].float()[list(columns)]])
            q, keys = (x.reshape(len(x), heads, -1).transpose(0, 1) for x in (q, keys))
            share = (q @ keys.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)[:, :, 0].sum(0)
            total[len(share)] = total.get(len(share), torch.zeros(len(share))) + share * (step**2 if late else 1)
    return total


def presence(seen: dict[int, Tensor], maps: HeatMaps) -> float:
    """`1 - mean / peak` of the sum of all resolutions at the finest."""
    finest = max(maps.sums, key=lambda grid: grid[0] * grid[1])
    sides = {grid[0] * grid[1]: grid for grid in maps.sums}
    whole = torch.zeros(finest)
    for places, x in seen.items():
        whole += F.interpolate(x.reshape(1, 1, *sides[places]), finest, mode="bicubic")[0, 0]
    return float(1 - whole.mean() / whole.amax())


def test_a_concept_is_its_formula_and_the_picture_stays(live: Live) -> None:
    asked = {"concepts": CONCEPT, "overlays": True, "maps": True}
    live.compare(lens=asked)
    seen = live.make(lens=asked, watch=True, texts=TEXTS, steps=3)
    maps = seen.maps[0]
    assert maps.concepts == [CONCEPT]
    columns = [token.column for token in maps.prompt.tokens]
    assert columns == list(range(1, 1 + len(PROMPT.split())))
    side = maps.sides["concepts"]
    expected = shares(live, seen, columns, rivals=False, late=False)
    assert len(expected) == len(side.sums) > 0
    for grid, sums in side.sums.items():
        assert torch.allclose(sums[1].flatten(), expected[grid[0] * grid[1]], rtol=1e-5, atol=1e-5), grid
    found = maps.presence(CONCEPT).score
    if live.name != "a1111":  # whose small vocabulary cuts some of the rivals into pieces
        assert found == pytest.approx(presence(shares(live, seen, columns, rivals=True, late=True), maps), abs=1e-4)
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
