"""How a small random transformer is made and called in tests, and the arguments that many of them take."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

BATCH, TEXT, HEADS, WIDTH = 2, 7, 2, 8
KEPT = (7, 4)
"""Columns of text that are no padding, in each row."""


@dataclass
class Case:
    """A model and one call of it.

    Attributes:
        module: its module in diffusers and its class.
        make: makes the model.
        given: the arguments of the call.
        text: the names of the arguments that hold text.
        picture: the name of the argument that holds the picture.
        own: the slice of the picture's argument that is the picture itself, not a reference.
        grid: (frames, height, width) in patches.
        order: for each text key, in order, which column of the text it is, for each row; None is one after the other.
        pooled: the module that makes one vector of the text, which then reaches the whole picture beside all attention.
        text_own: the slice of the text's argument that is text.
        beside: whether the same layers also attend to the text alone.
        textless: layers that are of the kind of the others, and whose attention holds no text all the same.
        embedded: the module that makes numbers of tokens, where the text is given as tokens.
        rows: the texts of a call, 1 of a model that takes no batch.
        apart: the part of the model whose attention to the text is not counted, because it is a control's.
    """

    module: str
    make: Callable[[], nn.Module]
    given: dict[str, Any]
    grid: tuple[int, int, int]
    text: tuple[str, ...] = ("encoder_hidden_states",)
    picture: str = "hidden_states"
    own: Any = ...
    order: Sequence[Sequence[int]] | None = None
    pooled: str = ""
    apart: str = ""
    text_own: Any = ...
    beside: bool = False
    textless: Sequence[str] = ()
    embedded: str = ""
    rows: int = BATCH


def model_class(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(f"diffusers.models.transformers.{module}"), name)


def build(case: Case, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = case.make().eval()
    # Random weights attend nearly alike to all; the bias of some models' last layers starts at zero.
    for name, weight in model.named_parameters():
        if weight.dim() >= 2 and any(part in name for part in ("to_q", "to_k", "add_q", "add_k", "qkv")):
            weight.data *= 4
        elif weight.dim() >= 1 and not weight.any():
            weight.data.normal_(std=0.05)
    return model


_GENERATOR = torch.Generator().manual_seed(0)
"""Of its own: what a test collected earlier drew at import would change the inputs otherwise."""


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_GENERATOR)


def ids(height: int, width: int, axes: int = 3, kind: float = 0.0) -> Tensor:
    ids = torch.zeros(height, width, axes)
    ids[..., 0] = kind
    ids[..., 1] += torch.arange(height)[:, None]
    ids[..., 2] += torch.arange(width)[None]
    return ids.reshape(-1, axes)


def mask() -> Tensor:
    mask = torch.zeros(BATCH, TEXT, dtype=torch.long)
    for row, kept in enumerate(KEPT):
        mask[row, :kept] = 1
    return mask


def make(path: str, **config: Any) -> tuple[str, Callable[[], nn.Module]]:
    return path, lambda: model_class(path)(**config)


TIMES = torch.full((BATCH,), 0.5)
PACKED: dict[str, Any] = {"timestep": TIMES, "encoder_hidden_states": rand(BATCH, TEXT, 16)}
POOLED = {"pooled_projections": rand(BATCH, 12)}


HEADED: dict[str, Any] = {"attention_head_dim": WIDTH, "num_attention_heads": HEADS}
SMALL: dict[str, Any] = {"in_channels": 4, "num_layers": 2, **HEADED}
"""What most models are made with."""
_FIELDS = {one.name for one in fields(Case)}


def case(path: str, given: dict[str, Any], grid: tuple[int, int, int] = (1, 2, 3), **options: Any) -> Case:
    """The class at a path, called with `given`; options that are no fields of a case are what it is made with."""
    own = {name: options.pop(name) for name in _FIELDS & set(options)}
    return Case(*make(path, **options), given, grid, **own)


def latent(path: str, channels: int = 4, given: dict[str, Any] | None = None, **options: Any) -> Case:
    """A case of a picture `[batch, c, h, w]`."""
    return case(path, {"hidden_states": rand(BATCH, channels, 4, 6), **PACKED, **(given or {})}, **options)


def video(path: str, given: dict[str, Any] | None = None, **options: Any) -> Case:
    """A case of a video `[batch, c, frames, h, w]`."""
    return case(path, {"hidden_states": rand(BATCH, 4, 2, 4, 6), **PACKED, **(given or {})}, (2, 2, 3), **options)
