"""ConceptAttention beside a joint model: tokens of concepts that read the picture and themselves, and never write.

In every block, for a stream of tokens `x_c` that begins as the concepts' embeddings (Helbling et al. 2025):

    O_c = softmax(q_c [k_c; k_img]^T s) [v_c; v_img],    x_c += gate * proj(O_c),    x_c += gate' * MLP(x_c)

by the text's own weights and modulation. A concept's share of a place is `softmax_c <O_img, O_c>`, its presence the same among
rivals, which are a second stream that concepts do not see. Nothing of it goes back into the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from .attention_call import AttentionCall
from .concept_texts import ConceptTexts
from .picture_text import PictureText
from .stream_sums import StreamSums
from .text_streams import TextStream, text_output, text_projections, turn
from .token_layout import RowLayout, TokenLayout


class ConceptStreams(StreamSums):
    """The concepts' tokens while a joint model makes the pictures of one side.

    Args:
        texts: the concepts, encoded.
        kind: the way of the text through this family's blocks.
        model: the transformer.
        layers: its attention modules that the tokens go through, in order.
    """

    def __init__(self, texts: ConceptTexts, kind: TextStream, model: nn.Module, layers: Sequence[str]) -> None:
        super().__init__(texts)
        self._kind, self._model, self._order = kind, model, list(layers)
        self._dropouts = [part for part in model.modules() if isinstance(part, nn.Dropout)]
        self._given: Mapping[str, Any] = {}
        self._block_given: Mapping[str, Any] = {}
        self._layout: TokenLayout | None = None
        self._rows: Sequence[tuple[int, PictureText]] = ()
        self._like = texts.states
        self._tokens: Tensor | None = None
        self._rotation: Tensor | None = None
        self._index = torch.zeros(0)
        self._next = 0

    def begin_call(
        self,
        model: nn.Module,
        given: Mapping[str, Any],
        layout: TokenLayout,
        rows: Sequence[tuple[int, PictureText]],
        like: Tensor,
    ) -> None:
        if model is not self._model:
            raise UnsupportedModel("two transformers take turns in this pipeline, and concepts' tokens go through one")
        if any(part.p > 0 and part.training for part in self._dropouts):
            raise UnsupportedModel("the model is in training mode, in which it draws random numbers: call `eval()`")
        self._given, self._layout, self._rows, self._tokens, self._next = given, layout, rows, None, 0
        self.begin_stream(layout.patches[1:], like.device)
        self._index = torch.tensor([i for i, _ in rows], device=like.device)
        for _, text in rows:
            self.prompts[text.group.images[0]] = text.prompt
        self._like = like

    def enter(self, name: str, module: nn.Module, given: Mapping[str, Any]) -> None:
        if self._layout is None or self._next >= len(self._order):
            return
        self._block_given = given
        if self._tokens is None:
            states = self.texts.states.to(self._like.device, self._like.dtype)
            lengths = [prompt.length for prompt in self.texts.prompts]
            tokens = self.stream.states(self._kind.embed(self._model, self._given, states, lengths))
            self._tokens = tokens.expand(len(self._rows), -1, -1)
            columns = [column for _, column in self.stream.columns]
            self._rotation = self._kind.rotation(self._model, self._given, given, columns, self._layout)

    def attention(self, layer: str, number: int, call: AttentionCall, rows: Sequence[RowLayout]) -> None:
        if layer not in self._order:
            return
        if self._next >= len(self._order) or layer != self._order[self._next]:
            raise UnsupportedModel(
                "blocks of the model were left out, as with caches, and concepts' tokens go through all of them"
            )
        if call.v is None or call.output is None or self._tokens is None or self._layout is None:
            raise UnsupportedModel(f"{layer} did not give out what its attention made")
        if call.queries != call.keys or call.k.shape[1] != call.q.shape[1]:
            raise UnsupportedModel(f"in {layer} the picture's keys do not stand where its queries do, head by head")
        self._next += 1
        attn = self._model.get_submodule(layer)
        block = self._model.get_submodule(layer.rpartition(".")[0])
        _, height, width = self._layout.patches
        entered = self._kind.enter(block, self._block_given, self._tokens, self._index)
        q, k, v = text_projections(attn, entered.states, self._kind.shared, call.q.shape[-1])
        q, k = (turn(x, self._rotation).transpose(1, 2).to(call.k.dtype) for x in (q, k))
        v = v.transpose(1, 2).to(call.v.dtype)
        found = []
        for n, (i, text) in enumerate(self._rows):
            picture = slice(rows[i].picture, rows[i].picture + height * width)
            read = self.read(q[n], k[n], v[n], call.k[i, :, picture], call.v[i, :, picture], call.scale)
            found.append(read.transpose(0, 1).flatten(1))
            self.add_layer(text.group.images[0], (height, width), call.output[i, :, picture], read)
        self.layers.setdefault(number, (height, width))
        if entered.leave is not None:
            self._tokens = entered.leave(text_output(attn, torch.stack(found).to(self._tokens.dtype), self._kind.shared))

    def release(self) -> None:
        """Let go of the model."""
        self._rows, self._tokens, self._layout, self._rotation = (), None, None, None
        self._given = self._block_given = {}
        self._model, self._dropouts = nn.Module(), []
