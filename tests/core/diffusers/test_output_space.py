"""`trace(pipe, output_space=True)`: pictures untouched, both aggregations against explicit softmax and values in float64."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daam_core import HeatMaps, load_tiny, trace
from daam_core.errors import BadArgument, BadRecord, DetailMissing, UnsupportedModel
from daam_core.maps import safetensors_file, serialization
from daam_core.maps.aggregation import ANCHOR_SHARE
from daam_core.maps.crop import cut_back, mixture
from daam_core.types import Side

from ..capture.test_output_sums import OutputWitness
from ..models import PROMPT, paint, pipeline
from . import pipeline_cases as cases
from .test_identity import WAYS, ip_adapter

SIZE = {"height": 64, "width": 96}
FINEST, SMALL = 24 * 24, ("sd15", "sdxl")


class UNetWitness:
    """Scores by positions and layer, and unit outputs, of every row of every forward; PyTorch's own hooks, float64."""

    def __init__(self, unet: Any) -> None:
        self.scores: list[dict[int, Tensor]] = []
        self.units: list[dict[int, list[Tensor]]] = []
        self._seen: dict[tuple[int, str], Tensor] = {}
        unet.register_forward_pre_hook(self._begin)
        for name, attn in unet.named_modules():
            if name.endswith("attn2"):
                for part in ("to_q", "to_k", "to_v"):
                    getattr(attn, part).register_forward_hook(functools.partial(self._see, id(attn), part))
                attn.register_forward_hook(self._add)

    def _begin(self, *_: Any) -> None:
        self.scores.append({})
        self.units.append({})

    def _see(self, key: int, part: str, _module: Any, _args: Any, output: Tensor) -> None:
        self._seen[key, part] = output.detach().double()

    def _add(self, attn: Any, _args: Any, _output: Any) -> None:
        q, k, v = (self._seen.pop((id(attn), part)) for part in ("to_q", "to_k", "to_v"))
        heads = [x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v)]
        p = (heads[0] @ heads[1].transpose(-1, -2) / heads[0].shape[-1] ** 0.5).softmax(-1)
        output = (p @ heads[2]).transpose(1, 2).flatten(2)
        n, scores = q.shape[1], output @ v.transpose(1, 2)
        self.scores[-1][n] = self.scores[-1].get(n, 0) + scores
        self.units[-1].setdefault(n, []).append(output / output.norm(dim=-1, keepdim=True))

    def score(self, row: int, n: int) -> Tensor:
        """`[n, keys]`, step j weighted by j squared."""
        found: Any = sum((j + 1) ** 2 * scores[n][row] for j, scores in enumerate(self.scores))
        return found  # type: ignore[no-any-return]

    def affinity(self, row: int, n: int) -> Tensor:
        """`[n, n]`, the mean of all layers of so many positions, step j weighted by j squared."""
        total: Any = sum((j + 1) ** 2 * u[row] @ u[row].T for j, units in enumerate(self.units) for u in units[n])
        weight = sum((j + 1) ** 2 * len(units[n]) for j, units in enumerate(self.units))
        return total / weight  # type: ignore[no-any-return]


def stretched(maps: Tensor) -> Tensor:
    return maps - maps.amin((-1, -2), keepdim=True)


def hottest(own: Tensor, share: float) -> Tensor:
    return own.flatten().argsort(descending=True)[: max(1, round(share * own.numel()))]


@pytest.mark.parametrize("kind", ["tiny", *SMALL])
def test_a_unet_with_guidance_two_pictures_and_a_size_that_is_no_square(kind: str) -> None:
    pipe: Any = load_tiny() if kind == "tiny" else pipeline(kind)
    pipe.set_progress_bar_config(disable=True)
    prompts, negatives = [PROMPT, "a red star"], ["a blue tree", "a star"]
    before = paint(pipe, prompts, negative_prompt=negatives, **SIZE)
    with trace(pipe, negative=True, output_space=True) as recording:
        during = paint(pipe, prompts, negative_prompt=negatives, **SIZE)
    assert recording.failure is None and recording.output_failure is None
    assert torch.equal(before, during) and torch.equal(paint(pipe, prompts, negative_prompt=negatives, **SIZE), before)
    witness = UNetWitness(pipe.unet)
    paint(pipe, prompts, negative_prompt=negatives, **SIZE)
    for image in (0, 1):
        whole = recording.heat_maps(image)
        output, anchor = (recording.heat_maps(image, aggregation=name) for name in ("output", "anchor"))
        (grid,) = anchor.sums
        assert grid[0] * grid[1] == max(g[0] * g[1] for g in whole.sums if g[0] * g[1] <= FINEST)
        rows: tuple[tuple[int, Side], ...] = ((image, "negative"), (2 + image, "prompt"))
        for row, side in rows:
            words = whole.sides[side].prompt.words
            affinity = witness.affinity(row, grid[0] * grid[1])
            for word in words:
                columns = [t.column for t in whole.sides[side].prompt.tokens if t.channel in word.channels]
                for (h, w), maps in output.sides[side].sums.items():
                    wanted = stretched(witness.score(row, h * w)[:, columns].sum(1).unflatten(0, (h, w)))
                    found = maps[list(word.channels)].sum(0).double()
                    scale = witness.score(row, h * w).abs().max()
                    assert (found - wanted).abs().max() < 1e-5 * scale
                own = whole.each_side(lambda x: x) if side == "prompt" else whole.negative
                assert own is not None
                late = own.weighted_by_time().heat_map(word)
                late = F.interpolate(late[None, None], grid, mode="area")[0, 0]
                wanted = stretched(affinity[hottest(late, ANCHOR_SHARE)].mean(0).unflatten(0, grid))
                found = anchor.sides[side].sums[grid][list(word.channels)].sum(0).double()
                assert (found - wanted).abs().max() < 1e-5 and float(wanted.max()) > 0


@pytest.mark.parametrize("name", ["flux", "sd3", "qwen", "z-image"])
def test_joint_models_with_guidance_and_two_pictures(name: str) -> None:
    case = cases.CASES[name]
    pipe = case.make()
    before = cases.paint(pipe, case)
    with trace(pipe, negative=True, output_space=True) as recording:
        during = cases.paint(pipe, case)
    assert recording.failure is None and recording.output_failure is None and torch.equal(before, during)
    forwards: list[int] = []
    witness = OutputWitness()
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: forwards.append(len(witness.calls)))
    with witness:
        cases.paint(pipe, case)
    handle.remove()
    for side, texts, word in (("prompt", cases.PROMPTS, ("green", "cats")), ("negative", cases.NEGATIVES, ("dark", "cats"))):
        for image in (0, 1):
            scores, scale, affinity = joint_expected(witness, forwards, case, pipe, side, image, texts[image], word[image])
            whole, output, anchor = (recording.heat_maps(image, aggregation=x) for x in ("sum", "output", "anchor"))
            if side == "negative":
                whole, output, anchor = (x.negative for x in (whole, output, anchor))  # type: ignore[assignment]
            assert (output.heat_map(word[image]).double() - stretched(scores)).abs().max() < 1e-5 * scale
            late = whole.weighted_by_time().heat_map(word[image])
            wanted = stretched(affinity[hottest(late, ANCHOR_SHARE)].mean(0).unflatten(0, (4, 6)))
            assert (anchor.heat_map(word[image]).double() - wanted).abs().max() < 1e-5
            assert float(scores.std()) > 0 and float(wanted.std()) > 0


def joint_expected(
    witness: OutputWitness, forwards: list[int], case: Any, pipe: Any, side: Any, image: int, text: str, word: str
) -> tuple[Tensor, float, Tensor]:
    """float64 scores `[4, 6]` of a word, their scale, and the affinity `[24, 24]`, of two steps."""
    call, row = case.rows(side, image)
    each, keys = len(forwards) // 2, case.keys(pipe, text, word)
    total, scale = torch.zeros(cases.PATCHES, dtype=torch.float64), 0.0
    affinity, weight = torch.zeros(cases.PATCHES, cases.PATCHES, dtype=torch.float64), 0
    for step in (0, 1):
        first = forwards[step * each + call]
        last = next((f for f in forwards if f > first), len(witness.calls))
        for index in range(first, last):
            size = witness.calls[index][0].shape[-2], witness.calls[index][1].shape[-2]
            where = size[0] - cases.PATCHES if case.first < 0 else case.first
            if case.first >= 0 and not case.reads(size):
                continue
            output, _ = witness.output(index, row)
            picture = output[where : where + cases.PATCHES]
            total += (step + 1) ** 2 * (picture @ output[keys].sum(0))
            scale += (step + 1) ** 2 * float(picture.norm(dim=-1).max() * output[keys].norm(dim=-1).max())
            unit = picture / picture.norm(dim=-1, keepdim=True)
            affinity += (step + 1) ** 2 * unit @ unit.T
            weight += (step + 1) ** 2
    return total.unflatten(0, (4, 6)), scale, affinity / weight


@pytest.mark.parametrize("way", ["lora", "bfloat16", "attention slicing", "pag", "controlnet", "ip-adapter"])
def test_the_picture_is_bit_identical(way: str) -> None:
    pipe, options = WAYS[way]()
    before = paint(pipe, **options)
    with trace(pipe, negative=True, output_space=True) as recording:
        during = paint(pipe, **options)
    assert recording.failure is None and torch.equal(before, during) and torch.equal(paint(pipe, **options), before)
    assert bool(recording.output_failure) == (way == "ip-adapter")
    assert not any("forward" in vars(module) for module in pipe.unet.modules())


def made(**options: Any) -> Any:
    pipe = pipeline("small")
    with trace(pipe, output_space=True, **options) as recording:
        paint(pipe)
    return recording


def test_records_verbs_and_what_they_keep(tmp_path: Path) -> None:
    maps = made(keep=("steps", "heads")).heat_maps()
    assert maps.output is not None
    loaded = HeatMaps.load(maps.save(tmp_path / "one"))
    for name in ("output", "anchor"):
        torch.testing.assert_close(loaded.aggregate(name).heat_map("house"), maps.aggregate(name).heat_map("house"))
        again = HeatMaps.load(maps.aggregate(name).save(tmp_path / name))
        assert again.aggregation == name and torch.equal(again["house"], maps.aggregate(name)["house"])
        with pytest.raises(BadArgument, match=f"made by the aggregation '{name}'"):
            again.aggregate("sum" if name == "output" else "output")
    both = (maps + maps).aggregate("output")
    torch.testing.assert_close(both["house"], 2 * maps.aggregate("output")["house"])
    torch.testing.assert_close((maps + maps).aggregate("anchor")["house"], maps.aggregate("anchor")["house"])
    finest = maps.grid
    assert list(maps.select(grids=[finest]).aggregate("output").sums) == [finest]
    for choice in ({"steps": [0]}, {"heads": [0]}):
        with pytest.raises(DetailMissing, match="a choice of these has none"):
            maps.select(**choice).aggregate("output")
    assert maps.nbytes > made().heat_maps().select(grids=[finest]).nbytes


def test_a_spoiled_record_is_refused_by_a_sentence(tmp_path: Path) -> None:
    tensors, header = serialization.pack(made().heat_maps())
    (name,) = (name for name in tensors if name.startswith("affinity/"))
    h, w = header["layers"][0]["grid"]
    spoiled: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({**tensors, name: 2 * tensors[name]}, header, "between -1 and 1"),
        ({**tensors, name: tensors[name][:-1]}, header, "was promised"),
        ({**tensors, f"output/{h}x{w}": tensors[f"output/{h}x{w}"] * torch.nan}, header, "no attention"),
        (tensors, {**header, "output_weight": "much"}, "not a number"),
        (tensors, {**header, "output_weight": -1.0}, "not that of one recording"),
        ({**tensors, "affinity/100x100": torch.zeros(1, 1)}, header, "not that of one recording"),
    ]
    for number, (changed, about, says) in enumerate(spoiled):
        with pytest.raises(BadRecord, match=says):
            HeatMaps.load(safetensors_file.write(tmp_path / str(number), changed, about))


def test_a_picture_cut_back_keeps_its_output_space() -> None:
    maps = made().heat_maps()
    height, width = maps.size
    cut = cut_back(maps, (height - 16, width))
    assert maps.output is not None and cut.output is not None
    ((grid, affinity),) = cut.output.affinity.items()
    torch.testing.assert_close(affinity.diagonal(), torch.ones(grid[0] * grid[1]), rtol=0, atol=1e-5)
    assert cut.aggregate("output").heat_map("house").shape == cut.aggregate("anchor").heat_map("house").shape == maps.grid
    rows = mixture(maps.grid[0], (height - 16) / height)
    wanted = torch.einsum("ab,cbw->caw", rows, maps.output.scores[maps.grid])
    torch.testing.assert_close(cut.output.scores[maps.grid], wanted, rtol=1e-4, atol=1e-4)


def test_what_was_not_asked_for_says_how_to_ask() -> None:
    pipe = pipeline("small")
    with trace(pipe) as recording:
        paint(pipe)
    for name in ("output", "anchor"):
        with pytest.raises(DetailMissing, match="output_space=True"):
            recording.heat_maps(aggregation=name)
    assert recording.heat_maps().output is None


def test_masks_follow_the_affinity_where_self_attention_is_missing() -> None:
    maps = made(self_attention=False).heat_maps()
    assert maps.self_attention is None and maps.mask_result("house", "walk").mask.shape == (64, 64)
    ((grid, affinity),) = maps.output.affinity.items()
    above = (affinity - affinity.mean(-1, keepdim=True)).clamp(min=0) ** 2
    links = maps.mask_inputs(["house"], None, (64, 64)).self_attention
    assert links is not None and links[0] == grid
    torch.testing.assert_close(links[1], above / above.sum(-1, keepdim=True))
    with pytest.raises(DetailMissing, match="output_space=True"):
        maps.each_side(lambda side: dataclasses.replace(side, output=None)).mask("house", "walk")


def test_a_picture_prompt_beside_the_text_is_refused_by_name_and_words_are_read() -> None:
    pipe, options = ip_adapter()
    with trace(pipe, output_space=True) as recording:
        paint(pipe, **options)
    assert recording.failure is None and "IPAdapterAttnProcessor2_0" in str(recording.output_failure)
    assert recording.heat_maps().heat_map("house").max() > 0
    with pytest.raises(DetailMissing, match="adds a picture prompt"):
        recording.heat_maps(aggregation="output")


class ValuesByHand:
    """Makes the values of its weights, past the module; it passes for one of diffusers' own."""

    __module__ = "diffusers.models.attention_processor"

    def __call__(self, attn: Any, hidden: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        parts = attn.to_q(hidden), attn.to_k(encoder_hidden_states), encoder_hidden_states @ attn.to_v.weight.T
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in parts)
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return torch.as_tensor(attn.to_out[0](out))


def test_values_that_no_projection_gave_are_told_and_words_are_read() -> None:
    pipe = pipeline("small")
    name = next(name for name in pipe.unet.attn_processors if "attn2" in name)
    pipe.unet.set_attn_processor({**pipe.unet.attn_processors, name: ValuesByHand()})
    with trace(pipe, output_space=True) as recording:
        paint(pipe)
    assert recording.failure is None and recording.heat_maps().heat_map("house").max() > 0
    assert "in 1 of the UNet's layers the attention did not take its values from" in str(recording.output_failure)


def test_compiled_models_are_refused_by_name() -> None:
    pipe = pipeline("small")
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    with pytest.raises(UnsupportedModel, match="through `torch"):
        trace(pipe, output_space=True)
    case = cases.CASES["flux"]
    other = case.make()
    other.transformer = torch.compile(other.transformer, backend="eager")
    with pytest.raises(UnsupportedModel, match="FluxTransformer2DModel runs through"):
        trace(other, output_space=True)


def test_fused_projections_give_the_same() -> None:
    pipe = pipeline("small")
    with trace(pipe, output_space=True) as recording:
        paint(pipe)
    wanted = recording.heat_maps(aggregation="output")["house"]
    pipe.unet.fuse_qkv_projections()
    with trace(pipe, output_space=True) as recording:
        paint(pipe)
    torch.testing.assert_close(recording.heat_maps(aggregation="output")["house"], wanted, rtol=1e-4, atol=1e-4)
