"""Concepts of ComfyUI's transformers with an attention to the text of its own: the keys of the concepts' own texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import UnsupportedModel
from .alike import alike
from .attention_call import AttentionCall
from .block_streams import ConceptRow
from .comfyui_model import class_names
from .concept_texts import ConceptTexts
from .concepts import ConceptRecording
from .token_layout import RowLayout, TokenLayout


@dataclass(frozen=True)
class CrossText:
    """The text of a network in its attention.

    Attributes:
        layers: how the paths of its attention to the text end.
        text: the argument of such an attention that is the text.
        embed: `embed(model, states)`: text states `[columns, dim]` as encoded -> as the layers are given them.
        keys: `keys(attention, states)`: what a layer makes of text: `[columns, heads * d]`.
    """

    layers: str
    text: str
    embed: Callable[[Any, Tensor], Tensor]
    keys: Callable[[Any, Tensor], Tensor]


def _pixart_keys(attn: Any, states: Tensor) -> Tensor:
    keys: Tensor = attn.kv_linear(states).chunk(2, -1)[0]
    return keys


def _pixart_text(model: Any, states: Tensor) -> Tensor:
    embedded: Tensor = model.y_embedder.y_proj(states)
    return embedded


def _wan_keys(attn: Any, states: Tensor) -> Tensor:
    keys: Tensor = attn.norm_k(attn.k(states))
    return keys


def _wan_text(model: Any, states: Tensor) -> Tensor:
    embedded: Tensor = model.text_embedding(states)
    return embedded


def _ltx_keys(attn: Any, states: Tensor) -> Tensor:
    keys: Tensor = attn.k_norm(attn.to_k(states))
    return keys


def _ltx_text(model: Any, states: Tensor) -> Tensor:
    embedded: Tensor = states if model.caption_projection is None else model.caption_projection(states)
    return embedded


CROSS_TEXTS: Mapping[str, CrossText] = {
    "pixart.pixartms.PixArtMS": CrossText(".cross_attn", "cond", _pixart_text, _pixart_keys),
    "wan.model.WanModel": CrossText(".cross_attn", "context", _wan_text, _wan_keys),
    "lightricks.model.LTXVModel": CrossText(".attn2", "context", _ltx_text, _ltx_keys),
}
"""By `module.Class` behind `comfy.ldm.`."""


def cross_text_of(model: nn.Module) -> CrossText | None:
    """How a diffusion model that ComfyUI built attends to its text; None where that is not known."""
    return next((CROSS_TEXTS[name] for name in class_names(model) if name in CROSS_TEXTS), None)


class ComfyUICrossConcepts(ConceptRecording):
    """The attention to concepts while a cross-attention transformer of ComfyUI makes the pictures of one side.

    Args:
        texts: the concepts, encoded.
        kind: how this network attends to its text.
        model: the network.
        like: the text that it is given.
    """

    def __init__(self, texts: ConceptTexts, kind: CrossText, model: nn.Module, like: Tensor) -> None:
        super().__init__(texts, (), self._keys_of, lambda _: None, like)
        self._kind, self._model = kind, model
        self.blocks = [name for name, _ in model.named_modules() if name.endswith(kind.layers)]
        self._needed = self.states
        self._modules: dict[int, Any] = {}
        self._rows: Sequence[ConceptRow] = ()
        self._layout: TokenLayout | None = None
        self._given: Tensor | None = None
        self._open: tuple[nn.Module, Tensor] | None = None
        self._proved: set[int] = set()
        self._embedded = False

    def begin_call(self, rows: Sequence[ConceptRow], layout: TokenLayout, latent: Sequence[int], context: Tensor) -> None:
        """The model is called, see `BlockStreams.begin_call`."""
        if layout.patches[0] != 1:
            raise UnsupportedModel("of videos they are not read")
        if layout.repeats > 1:
            raise UnsupportedModel("this model attends to a picture beside the text")
        self._rows, self._layout, self._given, self._embedded = rows, layout, context, False
        for row in rows:
            first, *further = row.prompts
            self.prompts[row.image] = first
            for part, prompt in enumerate(further, start=1):
                known = dict(enumerate(self._parts.get(part, ())))
                known[row.image] = prompt
                self.add_part(part, [known.get(image, prompt) for image in range(max(known) + 1)])

    def enter(self, number: int, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """An attention to the text is called with these arguments."""
        if self._layout is None:
            return
        given = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
        if hasattr(module, "k_img"):
            raise UnsupportedModel("this model attends to a picture beside the text")
        text = given.get(self._kind.text)
        if not isinstance(text, Tensor):
            raise UnsupportedModel("the text is given to its attention in a form that is not known")
        text = text.reshape(self._layout.batch, -1, text.shape[-1])
        if not self._embedded:  # once a call: a LoRA may be on the embedder, too
            self._embedded = True
            self.states = self._kind.embed(self._model, self._needed.to(text.device, text.dtype))
            if not self._proved and self._given is not None:
                row = self._rows[0].index
                again = self._kind.embed(self._model, self._given[row].to(text.device, text.dtype))
                if not alike(again, text[row]):
                    raise UnsupportedModel("something changes the text ahead of the model's first block")
        self._open = module, text

    def attention(self, number: int, a: AttentionCall, layouts: Sequence[RowLayout]) -> None:
        """A layer attended to the text; `number` is its number in the recording."""
        opened, self._open = self._open, None
        if self._layout is None:
            return
        if opened is None:
            raise UnsupportedModel("an attention to the text was seen that is not one of the model's blocks")
        module, text = opened
        self._modules[number] = module
        grid = self._layout.patches[1:]
        a = a.heads_apart()
        if a.k.shape[1] != a.q.shape[1]:
            raise UnsupportedModel("several heads of queries share their keys here")
        for row in self._rows:
            where = layouts[row.index]
            columns = slice(where.text, where.text + len(where.columns))
            q = a.q[row.index, :, where.picture : where.picture + grid[0] * grid[1]].transpose(0, 1).flatten(1)
            k = a.k[row.index, :, columns].transpose(0, 1).flatten(1)
            if number not in self._proved:
                self._proved.add(number)
                self._require_words(row, a, columns)
                self.require_keys(f"layer {number}", number, text[row.index, -len(where.columns) :], k)
            self.add_picture(row.image, number, grid, q, k, a.heads, a.scale, row.area, row.part)

    def _require_words(self, row: ConceptRow, a: AttentionCall, columns: slice) -> None:
        """A mask hides padding, and none of the words that concepts are held against."""
        if a.bias is None:
            return
        words = [token.column for token in row.prompts[row.part].tokens]
        bias = a.bias[row.index if len(a.bias) > 1 else 0][..., columns]
        if bool(bias[..., words].any()):
            raise UnsupportedModel("something puts a mask between picture and text")

    def leave(self, output: Any) -> None:
        """The attention is over."""
        self._open = None

    def end_call(self) -> None:
        """The model is done."""
        self._layout = self._given = self._open = None

    def _keys_of(self, number: int, states: Tensor) -> Tensor:
        return self._kind.keys(self._modules[number], states)

    def release(self) -> None:
        super().release()
        self.end_call()
        self._modules.clear()
        self._model, self._rows = nn.Module(), ()
