"""A family of transformers: its classes, its layout, and which of its arguments and tokens are text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from ..prompt.template import Keeps
from .text_rows import without_single_axes
from .token_layout import TokenLayout


@dataclass(frozen=True)
class Family:
    """A family of transformers: what diffusers' trace needs to know of it.

    Attributes:
        name: as people call it.
        classes: `module.Class` of its transformers in diffusers, behind `diffusers.models.transformers.`.
        layers: a pattern of the names of the modules whose attention has text among its keys.
        picture_layers: a pattern of the modules whose attention is the picture's to itself, where the text has an attention of
            its own; empty where it is none that is read.
        layout: gives the layout of one call, from the model and the call's arguments by name; None of a call that paints
            nothing.
        text: the names of the arguments that hold its text, in the order in which columns are counted.
        tokenizers: the pipeline's tokenizers whose tokens are these columns, in order.
        encoders: what people call the encoders of several tokenizers, in the same order; none where there is one.
        quoted: the tokenizer that reads only what stands in quotes, letter by letter; empty where there is none.
        quotes_apart: it reads each of them by itself, and its columns are padded ahead.
        layout_arguments: arguments whose values the layout depends on, not only their shapes.
        keeps: which tokens become columns.
        columns_axis: the axis of a row of the first text argument that counts columns.
        pieces: the prompt is tokenized piece by piece and padded to so many columns, the last of the text; 0 is in one go.
        packed: its text argument is as long as the whole sequence; the layout says which part is text.
        suffix: the end of the template is tokenized on its own, and stands behind the padding.
        video: whether it makes videos.
        token_ids: its text argument holds the tokens themselves, `[rows, columns]`, or `[columns]` of a model that takes one
            text a call.
    """

    name: str
    classes: tuple[str, ...]
    layers: str
    layout: Callable[[Any, Mapping[str, Any]], TokenLayout | None]
    text: tuple[str, ...] = ("encoder_hidden_states",)
    tokenizers: tuple[str, ...] = ("tokenizer",)
    encoders: tuple[str, ...] = ()
    quoted: str = ""
    quotes_apart: bool = False
    layout_arguments: tuple[str, ...] = ()
    keeps: Keeps = "tail"
    columns_axis: int = 0
    suffix: bool = False
    pieces: int = 0
    packed: bool = False
    video: bool = False
    picture_layers: str = ""
    token_ids: bool = False

    @cached_property
    def _picture_pattern(self) -> re.Pattern[str]:
        return re.compile(self.picture_layers)

    def is_picture_layer(self, name: str) -> bool:
        """Whether the attention of the module of this name is the picture's to itself alone."""
        return bool(self.picture_layers) and self._picture_pattern.fullmatch(name) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(self.layers)

    def is_text_layer(self, name: str) -> bool:
        """Whether the attention of the module of this name has text among its keys."""
        return self._pattern.fullmatch(name) is not None

    def text_rows(self, given: Mapping[str, Any]) -> list[Tensor]:
        """The first of its text arguments, row by row of the batch: `[columns, …]` each."""
        value = given[self.text[0]]
        if self.token_ids:
            return [row[:, None] for row in (value if value.dim() == 2 else value[None])]
        return [without_single_axes(row) for row in (value[0] if isinstance(value, tuple) else value)]

    def text_columns(self, given: Mapping[str, Any], row: Tensor, layout: TokenLayout) -> tuple[int, ...]:
        """How many columns each of its text arguments has, for a row of `text_rows`."""
        if self.packed:
            return (layout.columns,)
        columns = row.shape[self.columns_axis]
        return (columns, *(int(given[name].shape[-2]) for name in self.text[1:] if given.get(name) is not None))
