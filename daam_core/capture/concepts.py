"""Sums of the attention to concepts that are not in the prompt, for the pictures of one prompt's side.

The queries are those that the layer attended with, the keys what its own `to_k` makes of the concepts' texts. The picture is
not touched: the projection is called beside the model's own call, and nothing of it goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attention.concepts import add_fractions
from ..attention.upsample import bicubic
from ..errors import NothingRecorded, UnsupportedModel, WordNotFound
from ..maps.data import LayerInfo, RecordedImage
from ..prompt.concepts import concept_prompt
from ..prompt.prompt import Prompt
from ..types import Grid, Layer
from .buffers import BatchSlice
from .concept_texts import Columns, ConceptTexts
from .forward_wrapper import ForwardWrapper
from .region import Area

_SMALL = 2**16
"""Layers of at most so many numbers in their queries wait for each other until the step ends: 256 KiB each."""
_TOLERANCE = 0.02
"""How far the keys of the prompt, projected once more, may be from those that the layer attended with, as a share of them."""


@dataclass(eq=False)
class _Sums:
    """One resolution of one picture, `[2, n, concepts]` float32: the map and the presence."""

    grid: Grid
    area: Area
    now: Tensor
    total: Tensor
    late: Tensor
    step_terms: int = 0
    num_terms: int = 0


class ConceptRecording:
    """The attention to concepts while a UNet samples the pictures of one side.

    Args:
        texts: the concepts, encoded.
        prompts: the words of each picture, which concepts are held against.
        project: `project(layer, states)`: what a layer's `to_k` makes of text states `[columns, dim]`: `[columns, heads * d]`.
        weights: `weights(layer)`: what these keys depend on, None where that cannot be told and they are made anew every time.
        like: the text that the model is given, whose device and dtype the states are brought to.
    """

    def __init__(
        self,
        texts: ConceptTexts,
        prompts: Sequence[Prompt],
        project: Callable[[int, Tensor], Tensor],
        weights: Callable[[int], object],
        like: Tensor,
    ) -> None:
        self.texts, self.prompts = texts, prompts
        self._project, self._weights = project, weights
        self._states = texts.needed_states().to(like.device, like.dtype)
        self._parts: dict[int, Sequence[Prompt]] = {}
        self._columns: dict[tuple[int, int], Columns] = {}
        self._keys: dict[int, tuple[object, Tensor]] = {}
        self._sums: list[dict[tuple[Grid, Area], _Sums]] = [{} for _ in prompts]
        self._waiting: dict[tuple[int, int, Grid, Area, int, float, int], list[tuple[Tensor, Tensor, Tensor]]] = {}
        self._layers: dict[int, Grid] = {}
        self.step_count = 0

    def add(self, layer: int, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, where: BatchSlice) -> None:
        """One cross-attention layer of one step: q `[batch, n, heads * d]`, k `[batch, keys, heads * d]`."""
        own = self._layer_keys(layer).to(k.dtype)
        self._layers.setdefault(layer, grid)
        for image, row in enumerate(range(where.start, where.stop)):
            columns = self._columns_of(image, where.part, q.device)
            words = k[row].index_select(0, columns.kept)
            sums = self._place(image, grid, where.area, q.device)
            sums.step_terms += heads
            if q[row].numel() > _SMALL:
                self._sum(sums, columns, q[row : row + 1], torch.cat([words, own])[None], heads, scale)
            else:  # copied: the model may write into what it gave out
                key = (image, where.part, grid, where.area, heads, scale, q.shape[-1])
                self._waiting.setdefault(key, []).append((q[row].clone(), words, own))

    def _flush(self) -> None:
        """Small layers of one shape are worked off together: most of their time would be the start of kernels."""
        for (image, part, grid, area, heads, scale, _), layers in self._waiting.items():
            q, words, own = (torch.stack(parts) for parts in zip(*layers, strict=True))
            columns = self._columns_of(image, part, q.device)
            self._sum(self._sums[image][grid, area], columns, q, torch.cat([words, own], 1), heads, scale)
        self._waiting.clear()

    def _sum(self, sums: _Sums, columns: Columns, q: Tensor, k: Tensor, heads: int, scale: float) -> None:
        add_fractions(sums.now, q, k, columns.numerator, columns.denominators, heads, scale)

    def require_own_keys(self, layer: Layer, number: int, context: Tensor, k: Tensor) -> None:
        """The layer attended to what its `to_k` makes of the text: so it will of a concept's.

        Args:
            context: `[columns, dim]`, the text that the UNet was given, of one row.
            k: `[columns, heads * d]`, what the layer attended to.

        Raises:
            UnsupportedModel: it did not.
        """
        again = self._project(number, context)
        if again.shape != k.shape or not bool(
            (again.float() - k.float()).abs().amax() <= _TOLERANCE * k.float().abs().amax() + 1e-6
        ):
            raise UnsupportedModel(
                f"{layer.name} attends to keys that are not those of the text it is given, so a concept's cannot be made; "
                "something stands between the text encoder and this layer"
            )

    def end_step(self, number: int) -> None:
        """Step `number`, from 1, is over."""
        self._flush()
        self.step_count += 1
        every = self._all()
        now = [sums.now for sums in every]
        if every:
            torch._foreach_add_([sums.total for sums in every], now)
            torch._foreach_add_([sums.late for sums in every], now, alpha=number**2)
            torch._foreach_zero_(now)
        for sums in every:
            sums.num_terms, sums.step_terms = sums.num_terms + sums.step_terms, 0

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
        self._flush()
        self.prompts = prompts
        self._columns.clear()

    def add_part(self, part: int, prompts: Sequence[Prompt]) -> None:
        """Prompts of another part of the same pictures, see `BatchSlice.part`; a host whose pictures have one text has none."""
        self._parts[part] = prompts

    def finish(self, image: int, layers: Sequence[Layer], timesteps: Sequence[float]) -> RecordedImage | None:
        """The concepts of one picture that its prompt does not hold, on the CPU; None where it holds all of them.

        Raises:
            NothingRecorded: not one step was finished, or the attention was not finite.
        """
        told = [prompts[image] for prompts in (self.prompts, *self._parts.values())]
        concepts = [c for c, one in enumerate(self.texts.concepts) if not any(_holds(prompt, one.label) for prompt in told)]
        if not concepts:
            return None
        if not self.step_count or not self._sums[image]:
            raise NothingRecorded(
                "Not one sampling step was finished, so there is no map of a concept. Let the sampler run on."
            )
        sums: dict[Grid, Tensor] = {}
        late: dict[Grid, Tensor] = {}
        presence: dict[Grid, Tensor] = {}
        terms: dict[Grid, int] = {}
        for one in self._sums[image].values():
            grid = one.area.canvas(one.grid)
            total, weighted = (one.area.put(_planes(x[:, :, concepts], one.grid)) for x in (one.total, one.late))
            sums[grid] = sums.get(grid, 0) + _with_specials(total[0])
            late[grid] = late.get(grid, 0) + _with_specials(weighted[0])
            presence[grid] = presence.get(grid, 0) + weighted[1]
            terms[grid] = terms.get(grid, 0) + one.num_terms
        if not all(bool(x.isfinite().all()) for x in (*sums.values(), *presence.values())):
            raise NothingRecorded("The model's attention to the concepts was not a number (NaN) in this run.")
        return RecordedImage(
            sums=sums,
            time_weighted=late,
            num_terms=terms,
            layers=tuple(
                LayerInfo(layers[i].name, g, layers[i].heads, layers[i].block) for i, g in sorted(self._layers.items())
            ),
            detail=None,
            heads=None,
            self_attention=None,
            prompt=concept_prompt([self.texts.concepts[c] for c in concepts]),
            steps=self.step_count,
            timesteps=tuple(timesteps),
            presence=tuple(standing_out(presence)),
        )

    def _layer_keys(self, layer: int) -> Tensor:
        weights = self._weights(layer)
        known = self._keys.get(layer)
        if known is None or weights is None or known[0] != weights:
            known = self._keys[layer] = weights, self._project(layer, self._states)
        return known[1]

    def _columns_of(self, image: int, part: int, device: torch.device) -> Columns:
        if (image, part) not in self._columns:
            prompts = self._parts.get(part, self.prompts)
            self._columns[image, part] = self.texts.columns_for(prompts[image], device)
        return self._columns[image, part]

    def _place(self, image: int, grid: Grid, area: Area, device: torch.device) -> _Sums:
        key = (grid, area)
        if key not in self._sums[image]:
            now = torch.zeros(2, grid[0] * grid[1], self.texts.num_concepts, device=device)
            self._sums[image][key] = _Sums(grid, area, now, torch.zeros_like(now), torch.zeros_like(now))
        return self._sums[image][key]

    def _all(self) -> list[_Sums]:
        return [sums for image in self._sums for sums in image.values()]


def standing_out(presence: dict[Grid, Tensor]) -> list[float]:
    """How far the hottest place of each concept among its rivals stands out: `1 - mean / peak`, 0 for an even map.

    Args:
        presence: per grid, `[concepts, h, w]`, late steps weighing more.
    """
    finest = max(presence, key=lambda grid: grid[0] * grid[1])
    maps = bicubic(list(presence.values()), finest).flatten(1)
    peak = maps.amax(1)
    found = torch.where(peak > 0, 1 - maps.mean(1) / peak.clamp(min=torch.finfo(maps.dtype).tiny), 0.0)
    return [float(x) for x in found.clamp(0, 1)]


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


def _holds(prompt: Prompt, label: str) -> bool:
    try:
        prompt.find(label)
    except WordNotFound:
        return False
    return True


def _planes(x: Tensor, grid: Grid) -> Tensor:
    """`[2, n, concepts]` on the device -> `[2, concepts, h, w]` on the CPU."""
    return x.transpose(1, 2).unflatten(-1, grid).contiguous().cpu()


def _with_specials(maps: Tensor) -> Tensor:
    """Channels of start, end and padding, which a concept has none of, around `[concepts, h, w]`."""
    return torch.nn.functional.pad(maps, (0, 0, 0, 0, 1, 2))
