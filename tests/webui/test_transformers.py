"""Forge's transformers without the program around them: what is read, what is put back, what is refused by a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daam_core.capture.forge_families import READ_IN_FORGE
from daam_webui import sampler_hooks as hook
from daam_webui.hosts.forge import Forge
from daam_webui.recording_session import RecordingSession
from daam_webui.settings import Settings

from .test_layout import ForgeLike, Params

WIDTH, HEADS, GRID, COLUMNS = 16, 2, (2, 3), 4
WORDS = ["</s>", "\u2581red", "\u2581house", "\u2581fog", "<pad>"]


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, skip_reshape: bool = True, **_: Any) -> Tensor:
    """As the hosts have it: `[rows, heads, n, d]` -> `[rows, n, heads * d]`."""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@pytest.fixture
def flux() -> Iterator[Any]:
    """The module `backend.nn.flux` with a transformer of two blocks: text, then picture."""
    before = {name: sys.modules.get(name) for name in ("backend", "backend.nn", "backend.nn.flux")}
    for name in before:
        sys.modules[name] = ModuleType(name)
    own: Any = sys.modules["backend.nn.flux"]
    own.attention_function = attention

    class IntegratedFluxTransformer2DModel(nn.Module):
        patch_size = 1

        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2)])
            self.more: Callable[[Tensor], Tensor] = lambda tokens: tokens

        def forward(self, x: Tensor, _timestep: Any = None, context: Tensor | None = None, **_: Any) -> Tensor:
            assert context is not None
            tokens = self.more(torch.cat([context, x.flatten(2).transpose(1, 2)], 1))
            for block in self.blocks:
                q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in block(tokens).chunk(3, -1))
                tokens = tokens + own.attention_function(q, k, v, HEADS, skip_reshape=True)
            return tokens[:, context.shape[1] : context.shape[1] + x[0, 0].numel()].transpose(1, 2).reshape(x.shape)

    IntegratedFluxTransformer2DModel.__module__ = "backend.nn.flux"
    own.Model = IntegratedFluxTransformer2DModel
    yield own
    for name, was in before.items():
        if was is None:
            del sys.modules[name]
        else:
            sys.modules[name] = was


class Engine:
    """T5's, as the host has it: a token a word, an end, padding up to `COLUMNS`."""

    id_end, id_pad = 0, 4
    tokenizer = SimpleNamespace(convert_ids_to_tokens=lambda ids: [WORDS[i] for i in ids], get_added_vocab=dict)

    def tokenize_line(self, line: str) -> Any:
        ids = [WORDS.index("\u2581" + word) for word in line.split()] + [0]
        ids += [4] * (COLUMNS - len(ids))
        return [SimpleNamespace(tokens=ids, multipliers=[1.0] * len(ids))], len(ids)


class Host(ForgeLike):
    def references(self) -> Any:
        return Forge.references(self)


Predict = Callable[[nn.Module, Any], None]


def plainly(model: nn.Module, params: Any) -> None:
    context = torch.cat([params.text_uncond, params.text_cond])
    model(params.x.repeat(2, 1, 1, 1), None, context=context, transformer_options={"cond_or_uncond": [1, 0]})


def sample(model: nn.Module, predict: Predict = plainly, x: tuple[int, ...] = (1, WIDTH, *GRID)) -> RecordingSession:
    """A run of two steps."""
    torch.manual_seed(1)
    loaded = SimpleNamespace(model=SimpleNamespace(diffusion_model=model), text_processing_engine_t5=Engine())
    p = SimpleNamespace(sd_model=loaded, iteration=0, prompts=["red house"], negative_prompts=["fog"], enable_hr=False)
    session = RecordingSession(Settings(True, negative=True), Host())
    hook.open_session(p, session)
    cond, uncond = torch.randn(2, 1, COLUMNS, WIDTH).unbind(0)
    with torch.no_grad():
        for step in range(2):
            params = Params(p, step, cond, uncond)
            params.x = torch.randn(x)
            hook.attach(params)
            try:
                predict(model, params)
            finally:
                hook.finish(params)
    session.take(0, 0, np.zeros((32, 48, 3), np.uint8), 1, "red house")
    return session


def test_both_sides_are_read_and_the_name_is_put_back(flux: Any) -> None:
    noted: list[tuple[Tensor, Tensor]] = []

    def noting(q: Tensor, k: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        noted.append((q.clone(), k.clone()))
        return attention(q, k, *args, **kwargs)

    flux.attention_function = noting
    model = flux.Model()
    session = sample(model)
    assert not session.failure
    assert flux.attention_function is noting and not model._forward_hooks and not model._forward_pre_hooks
    ((_, maps),) = session.heat_maps()
    assert (maps.words, maps.negative.words) == (["red", "house"], ["fog"])
    for row, side, word, column in ((1, maps, "house", 1), (0, maps.negative, "fog", 0)):
        wanted = torch.zeros(GRID[0] * GRID[1], dtype=torch.float64)
        for q, k in noted:
            scores = q[row, :, COLUMNS:].double() @ k[row].double().transpose(1, 2) / q.shape[-1] ** 0.5
            wanted += scores.softmax(-1)[..., column].sum(0)
        assert torch.allclose(side.heat_map(word, GRID).double(), wanted.reshape(GRID), rtol=1e-5)


def more_tokens(model: Any) -> Any:
    """Another extension puts tokens of its own behind."""
    model.more = lambda tokens: torch.cat([tokens, tokens[:, :3]], 1)
    return model


def another_text(model: nn.Module, params: Any) -> None:
    context = torch.randn(2, COLUMNS, WIDTH)
    model(params.x.repeat(2, 1, 1, 1), None, context=context, transformer_options={"cond_or_uncond": [1, 0]})


def test_tokens_of_another_extension_are_refused(flux: Any) -> None:
    session = sample(more_tokens(flux.Model()))
    assert "13 queries on 13 keys" in session.failure and "10 queries on 10 keys" in session.failure
    assert "Another extension" in session.failure and "node" not in session.failure
    assert flux.attention_function is attention


def test_another_text_than_the_prompt_is_refused(flux: Any) -> None:
    session = sample(flux.Model(), another_text)
    assert "another text than the prompt" in session.failure


def one_row(model: nn.Module, params: Any) -> None:
    model(params.x, None, context=params.text_cond)


def test_a_video_is_refused(flux: Any) -> None:
    session = sample(flux.Model(), one_row, x=(1, WIDTH, 2, *GRID))
    assert "a video of 2 latent frames" in session.failure


def test_a_model_that_is_not_read_is_named(flux: Any) -> None:
    class PidNet(flux.Model):  # type: ignore[misc]
        """A transformer of the host that is made from one that is read."""

    PidNet.__module__ = "backend.nn.pixeldit.pid"
    session = sample(PidNet())
    assert "PidNet" in session.failure and READ_IN_FORGE in session.failure


def test_an_exception_inside_the_model_puts_the_name_back(flux: Any) -> None:
    model = flux.Model()

    def broken(_tokens: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    model.more = broken
    with pytest.raises(RuntimeError, match="out of memory"):
        sample(model)
    assert flux.attention_function is attention and not model._forward_pre_hooks
