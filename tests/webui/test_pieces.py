"""What Regional Prompter's Latent mode does to a batch: in Forge between the sampler and its model, in AUTOMATIC1111 before."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from daam_core.capture.region import WHOLE
from daam_core.errors import NothingRecorded
from daam_webui.batch import PIECES
from daam_webui.batch_rows import Label
from daam_webui.hosts.forge import Forge
from daam_webui.hosts.protocol import UNetCall
from daam_webui.joined_answers import REGIONS, JoinedAnswers
from daam_webui.sampling_step import SamplingStep, sampling_step
from daam_webui.schedule import PassTexts

from .test_layout import ForgeLike, Params, UNet, sample

Apply = Callable[..., Tensor]


def two_pictures(negative: Tensor | None = None) -> tuple[SamplingStep, list[Tensor]]:
    """A step of two pictures with two prompts joined by AND, and the texts of each conditioning."""
    texts = list(torch.randn(3, 2, 77, 8, generator=torch.Generator().manual_seed(0)))
    if negative is not None:
        texts[2] = negative
    order = [Label("prompt", image, part) for image in range(2) for part in range(2)] + [Label("negative", i) for i in range(2)]
    rows = {label: row % 4 for row, label in enumerate(order)}
    prompts = torch.stack([texts[part][image] for image in range(2) for part in range(2)])
    sides: Any = {"prompt": prompts, "negative": texts[2]}
    return SamplingStep(dict.fromkeys(order, "red"), sides, rows, (4, 4), 1.0, WHOLE, order), texts


def test_pieces_of_a_batch_are_told_by_their_text() -> None:
    """Each is called with the note of the whole; two rows of six were taken for a third of a picture each, and left out."""
    step, (first, second, negative) = two_pictures()
    host = Forge()

    def labels(context: Tensor) -> list[Label | None]:
        return host.labels(UNetCall(len(context), (4, 4), context, (0, 0, 1)), step)

    assert labels(second) == [Label("prompt", 0, 1), Label("prompt", 1, 1)]
    assert labels(torch.cat([negative, negative], 1)) == [Label("negative", 0), Label("negative", 1)]
    assert labels(first[:1]) == []
    assert labels(second) == [None, None], "a second look"
    assert labels(torch.cat([first.flip(0), first])) == [None, None, Label("prompt", 0, 0), Label("prompt", 1, 0)]
    step, texts = two_pictures(negative=first)
    assert labels(texts[0]) == [None, None], "the prompt and the negative prompt say the same"


def test_pieces_that_nobody_knows_are_one_true_sentence() -> None:
    """It was said that not one step had been recorded."""

    def cut(unet: UNet, params: Params, _step: int) -> None:
        options = {"cond_or_uncond": [0, 1]}
        unet(params.x, None, context=params.text_cond + 1, transformer_options=options)

    assert PIECES in sample(cut, ForgeLike()).failure


@pytest.mark.parametrize("regions", [False, True])
def test_answers_that_are_used_in_regions_are_told_in_forge(regions: bool) -> None:
    def wrapper(apply: Apply, given: dict[str, Any]) -> Tensor:
        answers = torch.cat([apply(row[None]) for row in given["input"]])
        return answers * (torch.arange(2) < 1) if regions else answers

    options: dict[str, Any] = {"model_function_wrapper": wrapper}
    model, watched = (
        SimpleNamespace(forge_objects=SimpleNamespace(unet=SimpleNamespace(model_options=options))),
        JoinedAnswers(),
    )
    given = {"input": torch.ones(3, 4, 2, 2)}
    expected = wrapper(lambda x: 2 * x, given)
    with Forge().watch_answers(model, watched.compare):
        assert torch.equal(options["model_function_wrapper"](lambda x: 2 * x, given), expected)
    assert options == {"model_function_wrapper": wrapper}
    assert watched.notes() == ([REGIONS] if regions else [])
    options["model_function_wrapper"] = lambda _apply, given: given["input"]  # it keeps answers, and asks for none
    with Forge().watch_answers(model, watched.compare):
        assert options["model_function_wrapper"](lambda x: 2 * x, given) is given["input"]
    options.clear()
    with Forge().watch_answers(model, watched.compare):
        assert not options


@pytest.mark.parametrize("reordered", [False, True])
def test_two_pictures_whose_prompts_are_put_into_another_order_are_refused(reordered: bool) -> None:
    """A1111's rows are picture by picture; the extension made them part by part, and a picture had the words of the other."""
    schedule = ((9, "red"),)
    texts = PassTexts(((schedule, schedule),) * 2, (schedule,) * 2)
    one, other = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    x = torch.stack([one, other, one, other, one, other] if reordered else [one, one, other, other, one, other])
    params = SimpleNamespace(
        denoiser=SimpleNamespace(step=0), x=x, sigma=1.0, text_cond=torch.zeros(4, 77, 8), text_uncond=torch.zeros(2, 77, 8)
    )
    if reordered:
        with pytest.raises(NothingRecorded, match="batch size 1"):
            sampling_step(params, texts, WHOLE)
        x.fill_(torch.nan)  # a broken model's
    assert sampling_step(params, texts, WHOLE).images == 2
