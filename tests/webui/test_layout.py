"""What other extensions do to a batch, a latent or a text while it is sampled: read rightly, or refused by a sentence."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from daam_core import HeatMaps
from daam_core.errors import NothingRecorded
from daam_webui import sampler_hooks as hook
from daam_webui.hosts import WebUI
from daam_webui.hosts.forge import Forge
from daam_webui.recording_session import RecordingSession
from daam_webui.settings import Settings

from .test_adapter import Chunk
from .test_when_wrong import Host

WIDTH, COLUMNS, SIDE = 8, 77, 4


class ForgeLike(Host, Forge):
    """Forge's way with batches, without a program around it."""

    labels = Forge.labels
    repeats_context = True

    def unet(self, model: Any) -> nn.Module:
        return Host.unet(self, model)


class Engine:
    """A text encoder whose tokens are words."""

    id_start, id_end = 0, 1
    words = ("house", "tree", "red", "boat")
    tokenizer = SimpleNamespace(
        convert_ids_to_tokens=lambda ids: [f"{Engine.words[i - 2]}</w>" for i in ids], get_added_vocab=dict
    )

    def tokenize_line(self, line: str) -> tuple[list[Chunk], int]:
        ids = [2 + self.words.index(word) for word in line.split()]
        return [Chunk([0, *ids, *[1] * (COLUMNS - 1 - len(ids))], [1.0] * COLUMNS)], len(ids)


class Attention(nn.Module):
    """One head, as `ldm` has it; `more` is what another extension does to its context, call by call."""

    heads = 1

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.more: Callable[[Tensor], list[Tensor]] = lambda context: [context]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for seen in self.more(x if context is None else context):
            q, k = self.to_q(x), self.to_k(seen)
            x = x + (q @ k.transpose(1, 2)).softmax(-1) @ seen
        return x


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(), Attention()


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block.attn2(block.attn1(tokens), context)  # type: ignore[operator]
        return tokens.transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_blocks = nn.ModuleList([Transformer()])
        self.broken = False

    def forward(self, x: Tensor, _timesteps: Any = None, context: Tensor | None = None, **_: Any) -> Tensor:
        if self.broken:
            raise RuntimeError("the model failed")
        out: Tensor = self.input_blocks[0](x, context)
        return out

    @property
    def cross(self) -> Attention:
        found: Attention = self.input_blocks[0].transformer_blocks[0].attn2  # type: ignore[assignment, union-attr, index]
        return found


class Params:
    """The host's `CFGDenoiserParams`."""

    def __init__(self, p: Any, step: int, cond: Tensor, uncond: Tensor) -> None:
        self.denoiser = SimpleNamespace(p=p, step=step)
        self.x, self.sigma = torch.randn(1, WIDTH, SIDE, SIDE), torch.ones(1)
        self.text_cond, self.text_uncond = cond, uncond


Predict = Callable[[UNet, Params, int], None]
"""How a host, and what stands between it and its model, asks for a prediction."""


def plainly(unet: UNet, params: Params, _step: int) -> None:
    unet(params.x.repeat(2, 1, 1, 1), None, context=torch.cat([params.text_cond, params.text_uncond]))


def sample(predict: Predict, host: WebUI | None = None, steps: int = 3, unet: UNet | None = None) -> RecordingSession:
    """A run of a host."""
    torch.manual_seed(0)
    unet = unet or UNet()
    model = SimpleNamespace(model=SimpleNamespace(diffusion_model=unet), cond_stage_model=Engine())
    p = SimpleNamespace(sd_model=model, iteration=0, prompts=["red house"], negative_prompts=["boat"], enable_hr=False)
    session = RecordingSession(Settings(True), host or Host())
    hook.open_session(p, session)
    cond, uncond = torch.randn(2, 1, COLUMNS, WIDTH).unbind(0)
    with torch.no_grad():
        for step in range(steps):
            params = Params(p, step, cond, uncond)
            hook.attach(params)
            try:
                predict(unet, params, step)
            finally:
                if not unet.broken:
                    hook.finish(params)
    session.take(0, 0, np.zeros((32, 32, 3), np.uint8), 1, "red house")
    return session


def maps_of_run(session: RecordingSession) -> HeatMaps:
    (found,) = (maps for _, maps in session.heat_maps())
    return found


def complete(maps: HeatMaps, steps: int = 3) -> bool:
    """At each position the attention to all columns is 1 a layer and step: nothing is lost or doubled."""
    return torch.allclose(maps.sums[SIDE, SIDE].sum(0), torch.tensor(2.0 * steps), rtol=1e-4)


def test_a_plain_run_is_recorded() -> None:
    maps = maps_of_run(sample(plainly))
    assert complete(maps) and maps.words == ["red", "house"]


# -- refused ------------------------------------------------------------------------------------------------------------


def tile_by_tile(unet: UNet, params: Params, _step: int) -> None:
    """Tiled Diffusion with one tile a batch: the first two calls have as many rows as the sampler's."""
    for tile in params.x.split(2, dim=-1):
        unet(tile.repeat(2, 1, 1, 1), None, context=torch.cat([params.text_cond, params.text_uncond]))


def tiles_in_a_batch(unet: UNet, params: Params, _step: int) -> None:
    context = torch.cat([params.text_cond, params.text_uncond])
    unet(params.x[..., :2, :2].repeat(8, 1, 1, 1), None, context=context.repeat(4, 1, 1))


def another_text(unet: UNet, params: Params, _step: int) -> None:
    unet(params.x.repeat(2, 1, 1, 1), None, context=torch.randn(2, COLUMNS, WIDTH))


def negative_first(unet: UNet, params: Params, _step: int) -> None:
    unet(params.x.repeat(2, 1, 1, 1), None, context=torch.cat([params.text_uncond, params.text_cond]))


def another_text_later(unet: UNet, params: Params, step: int) -> None:
    (plainly if step < 2 else another_text)(unet, params, step)


def longer_conditioning(unet: UNet, params: Params, step: int) -> None:
    """A callback that comes after ours appends a chunk that nobody typed."""
    params.text_cond = torch.cat([params.text_cond, params.text_cond], 1)
    params.text_uncond = torch.cat([params.text_uncond, params.text_uncond], 1)
    plainly(unet, params, step)


def another_picture(unet: UNet, params: Params, _step: int) -> None:
    """The prompt, the size and the noise level are the sampler's, the latent is not."""
    other = torch.randn(params.x.shape, generator=torch.Generator().manual_seed(5))
    unet(other.repeat(2, 1, 1, 1), None, context=torch.cat([params.text_cond, params.text_uncond]))


@pytest.mark.parametrize(
    ("predict", "said"),
    [
        (another_picture, "another picture than the one that is sampled"),
        (tile_by_tile, "tiles or at another size: the model is given 2 x 4 latent positions"),
        (tiles_in_a_batch, "given 2 x 2 latent positions"),
        (another_text, "another text than the prompt"),
        (negative_first, "another text than the prompt"),
        (another_text_later, "another text than the prompt"),
        (longer_conditioning, "154 columns where its words take 77"),
    ],
)
def test_a_call_that_is_not_the_samplers_own_is_refused(predict: Predict, said: str) -> None:
    with pytest.raises(NothingRecorded, match=said):
        maps_of_run(sample(predict))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (lambda context: [context[:, :40]], "40 columns of the 77"),  # Regional Prompter: a chunk for a region
        (lambda context: [context, context], "more than once in one step"),  # each region asks with the whole text
        (lambda context: [context.flip(0)], "another text than the prompt"),  # the rows of others
        (lambda context: [context * 0.5], "another text than the prompt"),  # prompts by layer
    ],
)
def test_a_layer_that_sees_another_text_is_refused(more: Callable[[Tensor], list[Tensor]], said: str) -> None:
    unet = UNet()
    unet.cross.more = more
    with pytest.raises(NothingRecorded, match=said):
        maps_of_run(sample(plainly, unet=unet))


def test_a_layer_that_is_asked_about_some_rows_is_refused_by_their_number() -> None:
    """NegPiP asks each layer about the prompt and about the negative prompt apart."""
    unet = UNet()
    whole = unet.cross.forward
    unet.cross.forward = (
        lambda x, context=None: torch.cat(  # type: ignore[method-assign]
            [whole(x[i : i + 1], context[i : i + 1]) for i in (0, 1)]
        )
    )
    with pytest.raises(NothingRecorded, match="about 1 of the 2 rows that the model was given, as NegPiP"):
        maps_of_run(sample(plainly, unet=unet))


def test_prompts_by_region_in_forges_batches_are_refused() -> None:
    """Several conditionings that are all marked as the prompt's, the first of them another text."""

    def couple(unet: UNet, params: Params, _step: int) -> None:
        context = torch.cat([params.text_uncond, torch.randn(1, COLUMNS, WIDTH), params.text_cond])
        unet(params.x.repeat(3, 1, 1, 1), None, context=context, transformer_options={"cond_or_uncond": [1, 0, 0]})

    with pytest.raises(NothingRecorded, match="another text than the prompt"):
        maps_of_run(sample(couple, ForgeLike()))


# -- read ---------------------------------------------------------------------------------------------------------------


def a_third_row(unet: UNet, params: Params, _step: int) -> None:
    """InstructPix2Pix: the negative prompt once more, with the picture."""
    context = torch.cat([params.text_cond, params.text_uncond, params.text_uncond])
    unet(params.x.repeat(3, 1, 1, 1), None, context=context)


def a_second_look(unet: UNet, params: Params, step: int) -> None:
    """PAG and SAG ask about the same latent again."""
    plainly(unet, params, step)
    unet(params.x, None, context=params.text_cond)


def noise_on_the_text(unet: UNet, params: Params, step: int) -> None:
    """CADS: a callback that comes after ours puts another conditioning into the parameters."""
    params.text_cond = params.text_cond + 0.1 * torch.randn_like(params.text_cond)
    plainly(unet, params, step)


def a_call_for_each(unet: UNet, params: Params, _step: int) -> None:
    unet(params.x, None, context=params.text_cond)
    unet(params.x, None, context=params.text_uncond)


def a_reference_first(unet: UNet, params: Params, step: int) -> None:
    """ControlNet's reference_only: another picture with the prompt alone, then the sampler's own call."""
    other = torch.randn(params.x.shape, generator=torch.Generator().manual_seed(step))
    options = {"cond_or_uncond": [0]}
    unet(other, None, context=params.text_cond, transformer_options=options)
    context = torch.cat([params.text_uncond, params.text_cond])
    unet((0.1 * params.x).repeat(2, 1, 1, 1), None, context=context, transformer_options={"cond_or_uncond": [1, 0]})


def without_a_reference(unet: UNet, params: Params, _step: int) -> None:
    context = torch.cat([params.text_uncond, params.text_cond])
    unet((0.1 * params.x).repeat(2, 1, 1, 1), None, context=context, transformer_options={"cond_or_uncond": [1, 0]})


def test_a_reference_picture_is_not_taken_for_the_one_that_is_sampled() -> None:
    seen, expected = (maps_of_run(sample(way, ForgeLike())) for way in (a_reference_first, without_a_reference))
    assert complete(seen) and torch.equal(seen.sums[SIDE, SIDE], expected.sums[SIDE, SIDE])


@pytest.mark.parametrize("predict", [a_third_row, a_second_look, noise_on_the_text, a_call_for_each])
def test_the_samplers_own_rows_are_read_among_others(predict: Predict) -> None:
    assert complete(maps_of_run(sample(predict)))


def test_a_text_that_was_cast_for_the_model_is_the_same_text() -> None:
    def halved(unet: UNet, params: Params, _step: int) -> None:
        context = torch.cat([params.text_cond, params.text_uncond])
        unet(params.x.repeat(2, 1, 1, 1).half(), None, context=context.half())

    assert maps_of_run(sample(halved, unet=UNet().half())).steps == 3


def test_what_an_adapter_appends_takes_part_without_a_word() -> None:
    """A style adapter's columns stand behind the text: they are in the softmax, and no word's."""
    unet = UNet()
    extra = torch.randn(1, 4, WIDTH)
    unet.cross.more = lambda context: [torch.cat([context, extra.expand(len(context), -1, -1)], 1)]
    assert complete(maps_of_run(sample(plainly, unet=unet)))


def test_forges_batches_are_read_by_what_they_say() -> None:
    def chunks(unet: UNet, params: Params, _step: int) -> None:
        context = torch.cat([params.text_uncond, params.text_cond])
        unet(params.x.repeat(2, 1, 1, 1), None, context=context, transformer_options={"cond_or_uncond": [1, 0]})

    assert complete(maps_of_run(sample(chunks, ForgeLike())))


def test_a_model_that_fails_is_not_recorded_any_more() -> None:
    """Its hooks do nothing from then on, and are off when the next run begins."""
    unet = UNet()
    unet.broken = True
    kept: list[Any] = []

    def fails(unet: UNet, params: Params, _step: int) -> None:
        kept.append(params)  # as a host does that holds on to the traceback
        plainly(unet, params, 0)

    with pytest.raises(RuntimeError, match="the model failed"):
        sample(fails, unet=unet)
    unet.broken = False
    unet(torch.zeros(2, WIDTH, SIDE, SIDE), None, context=torch.zeros(2, COLUMNS, WIDTH))
    hook.open_session(SimpleNamespace(), None)
    assert not unet._forward_hooks and not unet._forward_pre_hooks
    assert all("forward" not in vars(module) for module in unet.modules())
