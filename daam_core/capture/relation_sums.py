"""Running sums of what the text attends to, in models whose text and picture are one sequence."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ..attention.cells import Cells
from ..attention.joint import add_text_queries
from ..types import Grid, Relation
from .attention_call import AttentionCall

TEXT_TO_IMAGE_VALUES = 3 * 2**20
"""So many values of text->image are kept a picture, 12 MB: a longer text has the picture in coarser cells."""


class RelationSums:
    """Sums over heads, layers and steps of text->image and text->text; flat in layers and steps.

    Attributes:
        to_image: per grid of cells, float32 `[images, cells, channels]`: what the queries of a channel gave to each cell, the
            mean over its positions.
        to_text: float32 `[images, channels, channels]` (query, key), None where it is not kept.
        num_queries: float32 `[images, channels]`: queries of each channel x heads x layers x steps.
    """

    def __init__(self, relations: Collection[Relation]) -> None:
        self.keeps_image, self.keeps_text = "text->image" in relations, "text->text" in relations
        self.to_image: dict[Grid, Tensor] = {}
        self.to_text: Tensor | None = None
        self.num_queries: Tensor | None = None

    @property
    def wanted(self) -> bool:
        """Whether anything of this is to be kept."""
        return self.keeps_image or self.keeps_text

    def add(self, grid: Grid, part: AttentionCall, selection: Tensor, picture: slice, text: slice) -> None:
        """One joint-attention layer of one step.

        Args:
            grid: (h, w) of a frame of the picture.
            part: the text's queries and all keys, of the recorded rows.
            selection: `[images, text, channels]` float32.
            picture, text: which keys are whose.
        """
        images, _, channels = selection.shape
        cells = Cells.at_most(grid, max(1, TEXT_TO_IMAGE_VALUES // channels))
        if self.num_queries is None:
            self.num_queries = torch.zeros(images, channels, device=selection.device)
            if self.keeps_text:
                self.to_text = torch.zeros(images, channels, channels, device=selection.device)
        if self.keeps_image and cells.shape not in self.to_image:
            shape = (images, cells.shape[0] * cells.shape[1], channels)
            self.to_image[cells.shape] = torch.zeros(shape, device=selection.device)
        self.num_queries.add_(selection.sum(1), alpha=part.heads)
        add_text_queries(
            self.to_image.get(cells.shape), self.to_text, part.q, part.k, selection, cells, part.heads, part.scale, picture,
            text, part.bias, part.lse,
        )  # fmt: skip
