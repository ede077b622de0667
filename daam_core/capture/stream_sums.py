"""Concepts as tokens of a stream of their own beside a joint model: what they read in a layer, and the sums of it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention.concepts import add_output_fractions
from ..types import Grid
from .concept_sums import ConceptSums
from .concept_texts import ConceptTexts
from .region import WHOLE, Area


class StreamSums(ConceptSums):
    """What a stream of concepts' tokens has in every host.

    Args:
        texts: the concepts, encoded.

    Attributes:
        stream: which of their columns are tokens, and who is held against whom.
    """

    def __init__(self, texts: ConceptTexts) -> None:
        super().__init__(texts)
        self.stream = texts.stream()
        self._apart = torch.zeros(0)

    def begin_stream(self, grid: Grid, device: torch.device) -> None:
        """A call of the model begins, on a picture of that many places."""
        self.stream = self.stream.to(device)
        rival = self.stream.is_rival
        self._apart = torch.nn.functional.pad(rival[:, None] == rival[None], (0, grid[0] * grid[1]), value=True)

    def read(self, q: Tensor, k: Tensor, v: Tensor, k_picture: Tensor, v_picture: Tensor, scale: float) -> Tensor:
        """`[heads, tokens, d]`: what the tokens read of the picture and of their own stream, all `[heads, n, d]`."""
        keys, values = torch.cat([k, k_picture], 1), torch.cat([v, v_picture], 1)
        # PyTorch's own function by its inner name: the outer one is watched, and this call is not the model's.
        read: Tensor = torch._C._nn.scaled_dot_product_attention(
            q[None], keys[None], values[None], attn_mask=self._apart, scale=scale
        )
        return read[0]

    def add_layer(self, image: int, grid: Grid, output: Tensor, read: Tensor, area: Area = WHOLE) -> None:
        """One layer's share in one picture.

        Args:
            output: `[heads, n, d]`, what the layer gave out for the picture's places.
            read: `[heads, tokens, d]`, what the tokens read there.
        """
        sums = self.place(image, grid, area, read.device)
        sums.step_terms += 1
        sums.dirty = True
        mean = self.stream.mean @ read.transpose(0, 1).flatten(1).float()
        add_output_fractions(sums.now, output, mean, self.stream.shares)
