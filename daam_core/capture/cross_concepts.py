"""Concepts of transformers whose picture attends to the text in an attention of its own: the keys of each concept's text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..errors import UnsupportedModel
from ..prompt.prompt import Prompt
from ..types import Layer
from .attention_call import AttentionCall
from .concept_texts import ConceptTexts
from .concepts import ConceptRecording
from .picture_text import PictureText
from .region import WHOLE
from .token_layout import RowLayout, TokenLayout


def _caption_projection(model: Any, states: Tensor) -> Tensor:
    projected: Tensor = states if model.caption_projection is None else model.caption_projection(states)
    return projected


def _sana(model: Any, states: Tensor) -> Tensor:
    embedded: Tensor = model.caption_norm(model.caption_projection(states))
    return embedded


def _wan(model: Any, states: Tensor) -> Tensor:
    embedded: Tensor = model.condition_embedder.text_embedder(states)
    return embedded


TEXT_EMBEDDERS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "PixArt": _caption_projection,
    "Sana": _sana,
    "Wan": _wan,
    "LTX-Video": _caption_projection,
}
"""By family: text states `[columns, dim]` as encoded -> as the layers are given them."""


class CrossConcepts(ConceptRecording):
    """The attention to concepts while a cross-attention transformer makes the pictures of one side.

    Args:
        texts: the concepts, encoded.
        embed: one of `TEXT_EMBEDDERS`.
        like: the text that the model is given.
    """

    def __init__(self, texts: ConceptTexts, embed: Callable[[Any, Tensor], Tensor], like: Tensor) -> None:
        super().__init__(texts, (), self._keys_of, lambda _: None, like)
        self._embed = embed
        self._needed = self.states
        self._modules: dict[int, Any] = {}
        self._proved: set[int] = set()
        self._rows: Sequence[tuple[int, PictureText]] = ()
        self._layout: TokenLayout | None = None
        self._model: Any = None
        self._fresh = False
        self._context: Any = None

    def begin_call(
        self,
        model: nn.Module,
        given: Mapping[str, Any],
        layout: TokenLayout,
        rows: Sequence[tuple[int, PictureText]],
        like: Tensor,
    ) -> None:
        self._model, self._layout, self._rows, self._fresh = model, layout, rows, False

    def enter(self, name: str, module: nn.Module, given: Mapping[str, Any]) -> None:
        self._context = given.get("encoder_hidden_states")
        if not self._fresh:  # once a call: a LoRA may be on the embedder, too
            self.states, self._fresh = self._embed(self._model, self._needed), True

    def attention(self, layer: str, number: int, call: AttentionCall, rows: Sequence[RowLayout]) -> None:
        if call.k.shape[1] != call.q.shape[1] or not isinstance(self._context, Tensor) or self._layout is None:
            raise UnsupportedModel(f"{layer} is given its text in a form that is not known")
        self._modules.setdefault(number, self._model.get_submodule(layer))
        _, height, width = self._layout.patches
        for i, text in self._rows:
            row, image = rows[i], text.group.images[0]
            columns = len(row.columns)
            q = call.q[i, :, row.picture : row.picture + height * width].transpose(0, 1).flatten(1)
            k = call.k[i, :, row.text : row.text + columns].transpose(0, 1).flatten(1)
            if number not in self._proved:
                self._proved.add(number)
                shown = Layer(layer, "mid", call.heads, call.scale)
                self.require_own_keys(shown, number, self._context[i, -columns:], k)
            self.hold_one_against(image, text.prompt if call.bias is not None else self._with_padding(text))
            self.add_picture(image, number, (height, width), q, k, call.heads, call.scale, WHOLE)

    def _with_padding(self, text: PictureText) -> Prompt:
        """The picture's prompt with all columns that its model attends to."""
        known = self.prompts.get(text.group.images[0])
        if known is not None and known.tokens == text.prompt.tokens:
            return known
        behind = range(text.prompt.length, text.columns)
        return replace(text.prompt, padding=(*text.prompt.padding, *behind), length=text.columns)

    def _keys_of(self, number: int, states: Tensor) -> Tensor:
        """What a layer's `to_k`, and its norm, make of text states: `[columns, heads * d]`."""
        attn = self._modules[number]
        fused = getattr(attn, "to_kv", None) if getattr(attn, "fused_projections", False) else None
        k: Tensor = attn.to_k(states) if fused is None else fused(states).chunk(2, -1)[0]
        norm = getattr(attn, "norm_k", None)
        if norm is None:
            return k
        weight = getattr(norm, "weight", None)
        if weight is None or weight.numel() == k.shape[-1]:
            normed: Tensor = norm(k)
            return normed
        apart: Tensor = norm(k.unflatten(-1, (attn.heads, -1))).flatten(-2)
        return apart

    def release(self) -> None:
        super().release()
        self._modules.clear()
        self._model = self._context = self._layout = None
        self._rows = ()
