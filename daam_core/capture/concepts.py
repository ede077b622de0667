"""The attention of a cross-attention model to concepts that are not in the prompt, for the pictures of one prompt's side.

The queries are those that the layer attended with, the keys what its own `to_k` makes of the concepts' texts. The picture is
not touched: the projection is called beside the model's own call, and nothing of it goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..attention.concepts import add_fractions
from ..errors import NothingRecorded, UnsupportedModel
from ..maps.data import RecordedImage
from ..prompt.prompt import Prompt
from ..types import Grid, Layer
from .alike import alike
from .buffers import BatchSlice
from .concept_sums import ConceptSums
from .concept_texts import Columns, ConceptTexts
from .region import Area
from .waiting_layers import WaitingLayers

_SMALL = 2**16
"""Layers of at most so many numbers in their queries wait for each other until the step ends: 256 KiB each."""
_TURNS = 8
"""In each step the keys of one of so many layers are compared with those that are held."""


class ConceptRecording(ConceptSums):
    """The attention to concepts while a cross-attention model samples the pictures of one side.

    Args:
        texts: the concepts, encoded.
        prompts: the words of each picture, which concepts are held against.
        project: `project(layer, states)`: what a layer's `to_k` makes of text states `[columns, dim]`: `[columns, heads * d]`.
        weights: `weights(layer)`: what these keys depend on, None where that cannot be told and they are made anew every time.
        like: the text that the model is given, whose device and dtype the states are brought to.
        hold: whether small queries may be held by reference until a step ends: of eager models only.

    Attributes:
        states: `[columns, dim]` of the concepts' columns, as the layers are given text.
    """

    def __init__(
        self,
        texts: ConceptTexts,
        prompts: Sequence[Prompt],
        project: Callable[[int, Tensor], Tensor],
        weights: Callable[[int], object],
        like: Tensor,
        hold: bool = False,
    ) -> None:
        super().__init__(texts)
        self.prompts = dict(enumerate(prompts))
        self._project, self._weights = project, weights
        self.states = texts.needed_states().to(like.device, like.dtype)
        self._parts: dict[int, Sequence[Prompt]] = {}
        self._columns: dict[tuple[int, int], Columns] = {}
        self._hold = hold
        self._keys: dict[int, tuple[object, Tensor]] = {}
        self._small_keys: dict[tuple[int, int, int], tuple[object, Tensor]] = {}
        self._waiting: dict[tuple[int, int, Grid, Area, int, float, int], WaitingLayers] = {}
        self._apart: Tensor | None = None

    def add(
        self,
        layer: int,
        grid: Grid,
        q: Tensor,
        k: Tensor,
        heads: int,
        scale: float,
        where: BatchSlice,
        keys: object | None = None,
    ) -> None:
        """One cross-attention layer of one step: q `[batch, n, heads * d]`, k `[batch, keys, heads * d]`.

        Args:
            keys: tells whether the layer's keys are those of an earlier step, see `shared_keys.Held`.
        """
        for image, row in enumerate(range(where.start, where.stop)):
            self._add_row(image, layer, grid, q, k, row, heads, scale, where.area, where.part, keys)

    def add_picture(
        self, image: int, layer: int, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, area: Area, part: int = 0
    ) -> None:
        """The same of one picture: q `[n, heads * d]`, k `[keys, heads * d]`, one for each column of its prompt; `part` is
        which prompt, where a picture has several."""
        self._add_row(image, layer, grid, q[None], k[None], 0, heads, scale, area, part, None)

    def _add_row(
        self,
        image: int,
        layer: int,
        grid: Grid,
        q: Tensor,
        k: Tensor,
        row: int,
        heads: int,
        scale: float,
        area: Area,
        part: int,
        same: object | None,
    ) -> None:
        if layer not in self.layers:
            self.layers[layer] = grid
        n, width = q.shape[1:]
        if n * width > _SMALL:
            columns, sums = self._columns_of(image, part, q.device), self.place(image, grid, area, q.device)
            sums.step_terms += heads
            sums.dirty = True
            keys = self._keys_beside(layer, k[row], columns)
            add_fractions(sums.now, q[row : row + 1], keys[None], columns.shares, heads, scale)
            return
        shape = (image, part, grid, area, heads, scale, width)
        waiting = self._waiting.get(shape)
        if waiting is None:
            sums, shares = self.place(image, grid, area, q.device), self._columns_of(image, part, q.device).shares
            waiting = self._waiting[shape] = WaitingLayers(sums, shares, heads, scale, self._hold)
        waiting.add(q, row, self._known_keys(image, part, layer, k, row, same))

    def _known_keys(self, image: int, part: int, layer: int, k: Tensor, row: int, same: object | None) -> Tensor:
        """The keys of the prompt's words and of the concepts, `[columns, heads * d]`; the same tensor as in an earlier step
        as long as they are the same numbers."""
        known = self._small_keys.get((image, part, layer)) if same is not None else None
        if known is not None and known[0] is same:
            # One layer in eight is compared all the same: what no counter tells of must not go unnoticed.
            if (layer + self.step_count) % _TURNS == 0:
                self._compare(known[1], k[row], self._columns_of(image, part, k.device))
            return known[1]
        keys = self._keys_beside(layer, k[row], self._columns_of(image, part, k.device))
        if same is not None:
            self._small_keys[image, part, layer] = same, keys
        return keys

    def _keys_beside(self, layer: int, k: Tensor, columns: Columns) -> Tensor:
        """The keys of the words among k `[keys, heads * d]`, and behind them the concepts'."""
        return torch.cat([k.index_select(0, columns.kept), self._layer_keys(layer).to(k.dtype)])

    def _compare(self, known: Tensor, k: Tensor, columns: Columns) -> None:
        """Told at the end, so that no step waits for the device."""
        apart = (k.index_select(0, columns.kept) - known[: len(columns.kept)]).abs().amax()
        self._apart = apart if self._apart is None else torch.maximum(self._apart, apart)

    def end_step(self, number: int) -> None:
        for waiting in self._waiting.values():
            waiting.end_step(number)
        super().end_step(number)

    def finish(self, image: int, layers: Sequence[Layer], timesteps: Sequence[float]) -> RecordedImage | None:
        for waiting in self._waiting.values():
            waiting.finish()
        apart = self._apart
        if apart is not None and not bool(apart == 0):  # nor where it is no number
            raise NothingRecorded("something changed the weights of the model's keys in the middle of the run")
        return super().finish(image, layers, timesteps)

    def require_own_keys(self, layer: Layer, number: int, context: Tensor, k: Tensor) -> None:
        """The layer attended to what its `to_k` makes of the text: so it will of a concept's.

        Args:
            context: `[columns, dim]`, the text that the layer was given, of one row.
            k: `[columns, heads * d]`, what the layer attended to.

        Raises:
            UnsupportedModel: it did not.
        """
        self.require_keys(layer.name, number, context, k)

    def require_keys(self, name: str, number: int, context: Tensor, k: Tensor) -> None:
        """The same of a layer of that name."""
        if not alike(self._project(number, context), k):
            raise UnsupportedModel(
                f"{name} attends to keys that are not those of the text it is given, so a concept's cannot be made; "
                "something stands between the text encoder and this layer"
            )

    def add_part(self, part: int, prompts: Sequence[Prompt]) -> None:
        """Prompts of another part of the same pictures, see `BatchSlice.part`; a host whose pictures have one text has none."""
        self._parts[part] = prompts

    def prompts_of(self, image: int) -> list[Prompt]:
        return [*super().prompts_of(image), *(prompts[image] for prompts in self._parts.values())]

    def release(self) -> None:
        """Let go of the model."""
        for waiting in self._waiting.values():
            waiting.finish()
        self._keys.clear()
        self._columns.clear()
        self._small_keys.clear()
        self._waiting.clear()
        self._project = self._weights = _released

    def hold_against(self, prompts: Sequence[Prompt]) -> None:
        """Other prompts of the same pictures, from now on."""
        if len(prompts) != len(self.prompts):
            raise NothingRecorded(f"a prompt for {len(prompts)} pictures came in where {len(self.prompts)} are made")
        for image, prompt in enumerate(prompts):
            self.hold_one_against(image, prompt)

    def hold_one_against(self, image: int, prompt: Prompt) -> None:
        """Another prompt of one picture, from now on."""
        if self.prompts.get(image) is not prompt:
            self.prompts[image] = prompt
            self._columns.pop((image, 0), None)
            for place in [key for key in self._small_keys if key[:2] == (image, 0)]:
                del self._small_keys[place]
            for shape in [key for key in self._waiting if key[:2] == (image, 0)]:
                self._waiting.pop(shape).flush()

    def _layer_keys(self, layer: int) -> Tensor:
        weights = self._weights(layer)
        known = self._keys.get(layer)
        if known is None or weights is None or known[0] != weights:
            known = self._keys[layer] = weights, self._project(layer, self.states)
        return known[1]

    def _columns_of(self, image: int, part: int, device: torch.device) -> Columns:
        if (image, part) not in self._columns:
            prompt = self._parts[part][image] if part in self._parts else self.prompts[image]
            self._columns[image, part] = self.texts.columns_for(prompt, device)
        return self._columns[image, part]


def _released(*_: object) -> Tensor:
    raise NothingRecorded("the recording is over")
