"""The attention of a cross-attention model to concepts that are not in the prompt, for the pictures of one prompt's side.

The queries are those that the layer attended with, the keys what its own `to_k` makes of the concepts' texts. The picture is
not touched: the projection is called beside the model's own call, and nothing of it goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..attention.concepts import add_fractions
from ..errors import NothingRecorded, UnsupportedModel
from ..prompt.prompt import Prompt
from ..types import Grid, Layer
from .buffers import BatchSlice
from .concept_sums import ConceptSums, GridConceptSums
from .concept_texts import Columns, ConceptTexts
from .forward_wrapper import ForwardWrapper
from .region import Area

_SMALL = 2**16
"""Layers of at most so many numbers in their queries wait for each other until the step ends: 256 KiB each."""
_TOLERANCE = 0.02
"""How far the keys of the prompt, projected once more, may be from those that the layer attended with, as a share of them."""


class ConceptRecording(ConceptSums):
    """The attention to concepts while a cross-attention model samples the pictures of one side.

    Args:
        texts: the concepts, encoded.
        prompts: the words of each picture, which concepts are held against.
        project: `project(layer, states)`: what a layer's `to_k` makes of text states `[columns, dim]`: `[columns, heads * d]`.
        weights: `weights(layer)`: what these keys depend on, None where that cannot be told and they are made anew every time.
        like: the text that the model is given, whose device and dtype the states are brought to.

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
    ) -> None:
        super().__init__(texts)
        self.prompts = dict(enumerate(prompts))
        self._project, self._weights = project, weights
        self.states = texts.needed_states().to(like.device, like.dtype)
        self._parts: dict[int, Sequence[Prompt]] = {}
        self._columns: dict[tuple[int, int], Columns] = {}
        self._keys: dict[int, tuple[object, Tensor]] = {}
        self._waiting: dict[tuple[int, int, Grid, Area, int, float, int], list[tuple[Tensor, Tensor, Tensor]]] = {}

    def add(self, layer: int, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, where: BatchSlice) -> None:
        """One cross-attention layer of one step: q `[batch, n, heads * d]`, k `[batch, keys, heads * d]`."""
        for image, row in enumerate(range(where.start, where.stop)):
            self.add_picture(image, layer, grid, q[row], k[row], heads, scale, where.area, where.part)

    def add_picture(
        self, image: int, layer: int, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, area: Area, part: int = 0
    ) -> None:
        """The same of one picture: q `[n, heads * d]`, k `[keys, heads * d]`, one for each column of its prompt; `part` is
        which prompt, where a picture has several."""
        own = self._layer_keys(layer).to(k.dtype)
        self.layers.setdefault(layer, grid)
        columns = self._columns_of(image, part, q.device)
        words = k.index_select(0, columns.kept)
        sums = self.place(image, grid, area, q.device)
        sums.step_terms += heads
        if q.numel() > _SMALL:
            self._sum(sums, columns, q[None], torch.cat([words, own])[None], heads, scale)
        else:  # copied: the model may write into what it gave out
            key = (image, part, grid, area, heads, scale, q.shape[-1])
            self._waiting.setdefault(key, []).append((q.clone(), words, own))

    def flush(self) -> None:
        """Small layers of one shape are worked off together: most of their time would be the start of kernels."""
        for (image, part, grid, area, heads, scale, _), layers in self._waiting.items():
            q, words, own = (torch.stack(parts) for parts in zip(*layers, strict=True))
            columns = self._columns_of(image, part, q.device)
            self._sum(self.sums[image][grid, area], columns, q, torch.cat([words, own], 1), heads, scale)
        self._waiting.clear()

    def _sum(self, sums: GridConceptSums, columns: Columns, q: Tensor, k: Tensor, heads: int, scale: float) -> None:
        add_fractions(sums.now, q, k, columns.numerator, columns.denominators, heads, scale)

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
        again = self._project(number, context)
        if again.shape != k.shape or not bool(
            (again.float() - k.float()).abs().amax() <= _TOLERANCE * k.float().abs().amax() + 1e-6
        ):
            raise UnsupportedModel(
                f"{name} attends to keys that are not those of the text it is given, so a concept's cannot be made; "
                "something stands between the text encoder and this layer"
            )

    def add_part(self, part: int, prompts: Sequence[Prompt]) -> None:
        """Prompts of another part of the same pictures, see `BatchSlice.part`; a host whose pictures have one text has none."""
        self._parts[part] = prompts

    def told(self, image: int) -> list[Prompt]:
        return [*super().told(image), *(prompts[image] for prompts in self._parts.values())]

    def release(self) -> None:
        """Let go of the model."""
        self._keys.clear()
        self._columns.clear()
        self._waiting.clear()
        self._project = self._weights = _released

    def hold_against(self, prompts: Sequence[Prompt]) -> None:
        """Other prompts of the same pictures, from now on."""
        if len(prompts) != len(self.prompts):
            raise NothingRecorded(f"a prompt for {len(prompts)} pictures came in where {len(self.prompts)} are made")
        self.flush()
        self.prompts = dict(enumerate(prompts))
        self._columns.clear()

    def hold_one_against(self, image: int, prompt: Prompt) -> None:
        """Another prompt of one picture, from now on."""
        if self.prompts.get(image) is not prompt:
            self.flush()
            self.prompts[image] = prompt
            self._columns.pop((image, 0), None)

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


def plain_weights(projection: nn.Module) -> object:
    """What a plain linear projection's answers depend on; None for any other module, such as one with a LoRA."""
    forward = getattr(vars(projection).get("forward"), "__self__", None)
    own = "forward" not in vars(projection) or (isinstance(forward, ForwardWrapper) and forward.is_innermost)
    if type(projection) is not nn.Linear or projection._forward_hooks or projection._forward_pre_hooks or not own:
        return None
    weight = projection.weight
    return id(weight), weight.data_ptr(), 0 if weight.is_inference() else weight._version
