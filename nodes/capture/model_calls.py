"""What each call of the diffusion model is: whose rows stand in its batch, which part of the picture, where its text stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...daam_core.capture.buffers import BatchSlice
from ...daam_core.capture.comfyui_model import CONTEXT, ComfyUIModel, ModelCall
from ...daam_core.capture.counted_call import blocks_of
from ...daam_core.capture.token_layout import TokenLayout
from ...daam_core.errors import NothingRecorded
from .batch_rows import Conds, Row, names_of
from .model_call import Call, own_slice

_KNOWN = 64
"""So many different calls of a model are remembered with where their tokens stand."""


class ModelCalls:
    """The calls of the diffusion model in one run.

    Args:
        guider: ComfyUI's guider; its prepared conditionings are read when the first step begins.
        latent: shape `[images, c, …, h, w]` of the noise.
        model: the diffusion model.
        family: the transformer's family, None for a UNet.
        negative: whether the negative prompt's rows are recorded, too.

    Attributes:
        conds: the conditionings, None before the first step.
        in_pieces: whether conditionings were predicted that are not the sampler's own.
    """

    def __init__(self, guider: Any, latent: Sequence[int], model: Any, family: ComfyUIModel | None, negative: bool) -> None:
        self.conds: Conds | None = None
        self.in_pieces = False
        self._guider, self._latent, self._model, self._family, self._negative = guider, latent, model, family, negative
        self._texts = (CONTEXT,) if family is None else family.texts
        self._blocks = 0 if family is None else blocks_of(getattr(model, "_orig_mod", model))
        self._slices: dict[tuple[int, Row | None], BatchSlice] = {}
        self._layouts: dict[Any, TokenLayout] = {}
        self._names: dict[int, str] = {}
        self._predicted: set[str] = set()

    def begin_step(self) -> None:
        """No conditioning was predicted yet."""
        self._predicted = set()

    def begin_batch(self, lists: Sequence[Any], x: Tensor, timestep: Tensor) -> None:
        """The conditionings that are predicted next for the latent `x`; a second look at one (PAG, SAG) is another pack's.

        Raises:
            NothingRecorded: they say of no picture which words are its own.
        """
        known = self._guider.conds
        if self.conds is None:
            self.conds = Conds(known, self._guider.original_conds, self._latent, texts=self._texts)
            if "prompt" in self.conds.travelling or (self._negative and self.conds.travelling):
                raise NothingRecorded(
                    "a prompt node made another text for each picture of the batch (prompt travel), and nobody can say which "
                    "words are whose. Sample the pictures one by one, each with its own prompt"
                )
        names = names_of(lists, known)
        self.in_pieces |= not names  # copies of the sampler's lists, or somebody's own
        self._names = {i: name for i, name in names.items() if name not in self._predicted}
        self._predicted |= set(names.values())
        self.conds.begin(self._names.values(), known, x, timestep)

    def end_batch(self) -> None:
        self._names = {}

    def are_known(self, options: Mapping[str, Any]) -> bool:
        """Whether ComfyUI says of which of the conditionings a call's rows are."""
        indices, uuids = _rows_of(options)
        return self.conds is not None and len(indices) == len(uuids) and bool(self._names)

    def call(self, x: Tensor, context: Tensor | None, options: Mapping[str, Any], given: Mapping[str, Any]) -> Call | None:
        """The call with `x` `[channels, c, …, h, w]`; `given` is everything else. None where nothing of it is recorded.

        Raises:
            NothingRecorded: another node shows the model something else than the sampler's latent or the prompt's text.
        """
        assert self.conds is not None
        rows = [self._wanted(row) for row in self.conds.rows(self._names, *_rows_of(options))]
        if not any(rows):
            return None
        self._check_latent(x, rows)
        slices = [self._slice_of(i, row) for i, row in enumerate(rows)]
        wanted = [(row.side, batch_slice) for row, batch_slice in zip(rows, slices, strict=True) if row is not None]
        layout = None
        if self._family is not None:
            asked = self._family.call(x.shape, context, given)
            if not asked.columns:  # Ideogram 4's other model is given no text
                return None
            self._check_columns(asked.columns, rows)
            layout = self._layout(self._family, asked)
        whole_video = x.dim() != 5 or x.shape[2] == self._latent[2]
        return Call(x.shape[0], wanted, own_slice(rows, slices), layout, context, whole_video, self._blocks)

    def clear(self) -> None:
        """Let go of everything that is the host's."""
        self._guider = self._model = None
        self.conds = None
        self._layouts.clear()

    def _wanted(self, row: Row | None) -> Row | None:
        return row if row is not None and (row.side == "prompt" or self._negative) else None

    def _check_latent(self, x: Tensor, rows: Sequence[Row | None]) -> None:
        sizes = {row.size for row in rows if row is not None}
        if x.shape[0] != len(rows) * self._latent[0] or sizes != {tuple(x.shape[2:])}:
            raise NothingRecorded(
                "another node cuts the picture into parts or batches while it is sampled: the model was shown "
                f"{_times(x.shape)}, and {len(rows)} prompt(s) on {_times((len(rows) * self._latent[0], *self._latent[1:]))} "
                "are sampled. So nobody can say which part of the picture the attention belongs to. Record without that node"
            )

    def _check_columns(self, columns: int, rows: Sequence[Row | None]) -> None:
        assert self.conds is not None
        for row in rows:
            own = columns if row is None else self.conds.prompts[row.side][row.part].length
            if own != columns:
                raise NothingRecorded(
                    f"the model was given a text of {columns} columns, and the prompt has {own}. Another node exchanges the "
                    "text. Record without that node"
                )

    def _layout(self, family: ComfyUIModel, call: ModelCall) -> TokenLayout:
        """Made anew whenever something that it is made of has another shape."""
        key = call.latent, call.columns, _shapes(call.given)
        if key not in self._layouts:
            if len(self._layouts) >= _KNOWN:  # where every call has a mask of its own
                self._layouts.clear()
            self._layouts[key] = family.layout(self._model, call)
        return self._layouts[key]

    def _slice_of(self, group: int, row: Row | None) -> BatchSlice:
        """One value for the same rows of every call: accumulators look up by it what is the same in every step."""
        key = (group, row)
        if key not in self._slices:
            first = group * self._latent[0]
            self._slices[key] = BatchSlice(first, first + self._latent[0], row.part, row.area) if row else BatchSlice(0, 0)
        return self._slices[key]


def _rows_of(options: Mapping[str, Any]) -> tuple[Sequence[int], Sequence[Any]]:
    """Of each of a call's rows: the number of its list, and its name."""
    return options.get("cond_or_uncond") or [], options.get("uuids") or []


def _shapes(given: Mapping[str, Any]) -> tuple[Any, ...]:
    """Everything in a call's further arguments that a layout may be made of."""
    found: list[Any] = []
    for name, value in given.items():
        if isinstance(value, Tensor):
            # A mask says which columns there are by its numbers.
            found.append((name, tuple(value.shape), value.data_ptr() if "mask" in name else 0))
        elif isinstance(value, (list, tuple)):
            found.append((name, tuple(tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in value)))
        elif isinstance(value, (int, float, str, bool)):
            found.append((name, value))
    return tuple(found)


def _times(shape: Sequence[int]) -> str:
    """`[rows, c, (frames,) h, w]` as people say it."""
    places = " x ".join(str(int(n)) for n in shape[2:])
    return f"{int(shape[0])} latent(s) of {places}"
