"""One run of a sampler: what its calls of the model mean, recorded by the core's `Recording`.

`sampler_hooks` brings the calls. Nothing here raises into the sampler: the first error ends the recording and becomes the
sentence that the map nodes show.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import cosine_similarity

from ...daam_core.capture.attention_call import AttentionCall, comfyui_output, from_comfyui
from ...daam_core.capture.block_streams import ConceptRow
from ...daam_core.capture.buffers import BatchSlice, StoreOptions
from ...daam_core.capture.comfyui_concepts import ComfyUIConcepts, concepts_refusal
from ...daam_core.capture.comfyui_model import CONTEXT, ComfyUIModel, ModelCall
from ...daam_core.capture.heat_so_far import heat_so_far, words_are_known
from ...daam_core.capture.lse_capture import LseCapture
from ...daam_core.capture.recording import Recording
from ...daam_core.capture.token_layout import TokenLayout
from ...daam_core.errors import BadPrompt, NothingRecorded, UnsupportedModel, WordNotFound
from ...daam_core.maps.heatmaps import HeatMaps
from ...daam_core.prompt.concepts import Concept
from ...daam_core.types import Size
from .attention_router import AttentionRouter, Call, grid_of_block, own_slice
from .batch_rows import Conds, Row, names_of
from .concept_router import ConceptRouter, one_encoding

PIECES = (
    "Another node samples the picture or video piece by piece (context windows), so that nobody can say which part of it the "
    "attention belongs to. Record without that node."
)
_KNOWN = 64
"""So many different calls of a model are remembered with where their tokens stand."""
SAME_TEXT = 0.98
"""Cosine between a column of the model's text and the same column at a layer, from which on it counts as the same."""


@dataclass(frozen=True)
class Options:
    """What a Record node was asked for; `first_step` and `last_step` count sampling steps from 0, both included. The heat of
    `live_word` is shown while it samples, of none where it is empty; `concepts` are looked for beside the prompt's words."""

    keep: StoreOptions
    negative: bool = False
    first_step: int = 0
    last_step: int = 10_000
    live_word: str = ""
    concepts: tuple[Concept, ...] = ()


class RecordingSession:
    """Records one run.

    Args:
        options: what to keep.
        guider: ComfyUI's guider; its prepared conditionings are read when the first step begins.
        latent: shape `[images, c, …, h, w]` of the noise.
        model: the diffusion model.
        family: the transformer's family, None for a UNet.
        scale: pixels of the picture for each latent position.

    Attributes:
        next_call: what the next attention call is, None where it is not recorded: what ComfyUI tells a UNet's block of
            itself, and whether it is the picture's attention to itself. A transformer says nothing about its calls.
        same_text: whether the text at a layer of a UNet has to be the model's, number by number.
    """

    def __init__(
        self, options: Options, guider: Any, latent: Sequence[int], model: Any, family: ComfyUIModel | None, scale: int
    ) -> None:
        self.options, self.family = options, family
        self.next_call: tuple[Mapping[str, Any], bool] | None = None
        self.sampling_step = 0
        self.same_text = True
        self._recording = Recording(options.keep)
        self._guider, self._model = guider, model
        self._latent, self._scale = tuple(int(n) for n in latent), scale
        self._texts = (CONTEXT,) if family is None else family.texts
        self._conds: Conds | None = None
        concepts = ConceptRouter(self._recording, model, self._latent[0]) if options.concepts and family is None else None
        self._block_concepts: ComfyUIConcepts | None = None
        if options.concepts and family is not None:
            if reason := concepts_refusal(model):
                self._recording.fail_concepts(UnsupportedModel(reason))
            else:
                self._block_concepts = ComfyUIConcepts(self._recording, model)
        self._router = AttentionRouter(self._recording, self._latent[0], family is not None, concepts, self._block_concepts)
        self._slices: dict[tuple[int, Row | None], BatchSlice] = {}
        self._layouts: dict[Any, TokenLayout] = {}
        self._names: dict[int, str] = {}
        self._predicted: set[str] = set()
        self._call: Call | None = None
        self._records_self = False
        self._step: Tensor | None = None  # noise level of the step that is open
        self._opened_by_batch = False
        self._in_pieces = False
        self._proof: Tensor | None = None
        self._missing = ""
        self._thread = threading.get_ident()

    @property
    def failure(self) -> str:
        """Why recording stopped, empty while it goes on."""
        return self._recording.failure

    @property
    def note(self) -> str:
        """What is missing although there are maps, empty where nothing is."""
        recording = self._recording
        return " ".join(filter(None, (recording.concept_failure, recording.output_failure, self._missing)))

    @property
    def latent_size(self) -> Size:
        """(height, width) of the latent."""
        return self._latent[-2], self._latent[-1]

    # -- the sampler ------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        return not self.failure and self.options.first_step <= self.sampling_step <= self.options.last_step

    def begin_step(self, sigma: Tensor) -> None:
        """The sampler wants a prediction."""
        self._close_step()
        self._predicted, self._step, self._opened_by_batch = set(), sigma, False

    def end_step(self) -> None:
        """The prediction is there."""
        self._close_step()

    def _close_step(self) -> None:
        if self._step is not None and self.live:
            self._recording.end_step(self._step)
        self._step = None

    def begin_batch(self, lists: Sequence[Any], x: Tensor, timestep: Tensor) -> None:
        """The conditionings that are predicted next for the latent `x`; a second look at one (PAG, SAG) is another pack's.

        Some guiders ask for predictions without saying that a step begins: it begins here then, with each noise level.
        """
        if self._step is None or (self._opened_by_batch and self._step is not timestep):
            self.begin_step(timestep)
            self._opened_by_batch = True
        known = self._guider.conds
        if self._conds is None:
            self._conds = Conds(known, self._guider.original_conds, self._latent, texts=self._texts)
        names = names_of(lists, known)
        self._in_pieces |= not names  # copies of the sampler's lists, or somebody's own
        self._names = {i: name for i, name in names.items() if name not in self._predicted}
        self._predicted |= set(names.values())
        self._conds.begin(self._names.values(), known, x, timestep)

    def end_batch(self) -> None:
        self._names = {}

    def begin_model(self, x: Tensor, context: Tensor | None, options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """The diffusion model is called with `x` `[channels, c, …, h, w]`; `given` is everything else that it gets."""
        self._drop_call()
        indices, uuids = options.get("cond_or_uncond") or [], options.get("uuids") or []
        if not self.live or self._step is None or self._conds is None or len(indices) != len(uuids) or not self._names:
            return
        if threading.get_ident() != self._thread:
            raise NothingRecorded("the model runs on several devices at once, which is not recorded. Sample on one of them")
        rows = [self._wanted(row) for row in self._conds.rows(self._names, indices, uuids)]
        if not any(rows):
            return
        self._check_latent(x, rows)
        slices = [self._slice_of(i, row) for i, row in enumerate(rows)]
        wanted = [(row.side, batch_slice) for row, batch_slice in zip(rows, slices, strict=True) if row is not None]
        layout = None
        if self.family is not None:
            asked = self.family.call(x.shape, context, given)
            if not asked.columns:  # Ideogram 4's other model is given no text
                return
            self._check_columns(asked.columns, rows)
            layout = self._layout(self.family, asked)
        whole_video = x.dim() != 5 or x.shape[2] == self._latent[2]
        self._call = Call(x.shape[0], wanted, own_slice(rows, slices), layout, context, whole_video)
        self._records_self = self._call.own is not None and self._recording.keeps_self_attention
        if layout is not None:
            self.next_call = {}, False
            self._begin_concepts(wanted, layout, x, context)

    def _begin_concepts(
        self, wanted: Sequence[tuple[str, BatchSlice]], layout: TokenLayout, x: Tensor, context: Tensor | None
    ) -> None:
        concepts, conds = self._block_concepts, self._conds
        if concepts is None or conds is None:
            return
        prompts = tuple(conds.prompts["prompt"])
        rows = [
            ConceptRow(row, image, prompts, batch_slice.area, batch_slice.part)
            for side, batch_slice in wanted
            if side == "prompt"
            for image, row in enumerate(range(batch_slice.start, batch_slice.stop))
        ]
        concepts.begin(lambda: one_encoding(conds.concepts), rows, layout, tuple(x.shape), context)

    def _check_latent(self, x: Tensor, rows: Sequence[Row | None]) -> None:
        sizes = {row.size for row in rows if row is not None}
        if x.shape[0] != len(rows) * self._latent[0] or sizes != {tuple(x.shape[2:])}:
            raise NothingRecorded(
                "another node cuts the picture into parts or batches while it is sampled: the model was shown "
                f"{_times(x.shape)}, and {len(rows)} prompt(s) on {_times((len(rows) * self._latent[0], *self._latent[1:]))} "
                "are sampled. So nobody can say which part of the picture the attention belongs to. Record without that node"
            )

    def _check_columns(self, columns: int, rows: Sequence[Row | None]) -> None:
        assert self._conds is not None
        for row in rows:
            own = columns if row is None else self._conds.prompts[row.side][row.part].length
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

    def end_model(self) -> None:
        """The call of the diffusion model is over."""
        call = self._call
        self._drop_call()
        if call is not None and not self.failure:
            if self._block_concepts is not None:
                self._block_concepts.end()
            self._router.finish_call(call)

    def _drop_call(self) -> None:
        self._call = self.next_call = None

    def _wanted(self, row: Row | None) -> Row | None:
        return row if row is not None and (row.side == "prompt" or self.options.negative) else None

    # -- attention --------------------------------------------------------------------------------------------------

    def set_next_call(self, block: Mapping[str, Any], own: bool, context: Any = None) -> None:
        """A UNet's transformer block says that its next attention call is cross-attention (or the picture's own)."""
        self.next_call = None
        call = self._call
        try:
            if call is None or (own and not (self._records_self and self._recording.wants_self(grid_of_block(block)))):
                return
            if not own:
                self._check_text(call, context)
            self.next_call = block, own
        except Exception as error:
            self.fail(error)

    def _check_text(self, call: Call, context: Any) -> None:
        """The text at a layer is the model's: in length, and in its numbers whenever they lie somewhere else.

        A node that scales the text, or adds a little to it, leaves every column where it was.
        """
        given = call.context
        if given is None or not isinstance(context, Tensor):
            return
        if context.shape[1] != given.shape[1]:
            raise NothingRecorded(
                f"another node exchanges the text inside the model (regional prompts do): {context.shape[1]} columns at a "
                f"layer, and the model was given {given.shape[1]}. Record without that node"
            )
        if context.shape[0] != given.shape[0] or not self.same_text or context is call.proved or context is given:
            return
        call.proved = context
        alike = cosine_similarity(context.float(), given.to(context.device).float(), dim=-1).amin() > SAME_TEXT
        self._proof = alike if self._proof is None else self._proof & alike  # asking for the answer would make the sampler wait

    @property
    def reads_output(self) -> bool:
        """Whether what the attention gives out is read, too."""
        recording = self._recording
        concepts = self._block_concepts is not None and not recording.concept_failure
        return concepts or (self.options.keep.output and not recording.output_failure)

    def on_output(self, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        """What a UNet's cross-attention, which was told to `on_attention` with the same arguments, gave out."""
        call, conds = self._call, self._conds
        if call is None or conds is None or call.attended is None:
            return
        (layer, grid, attention), call.attended = call.attended, None
        self._router.add_unet_output(conds, call, _with_output(attention, args, kwargs, output), layer, grid)

    def leave_out(self, reason: str, concepts: bool = True) -> None:
        """Words alone are recorded of this run, or words and concepts."""
        if self._call is not None:
            self._call.attended = None
        if self.options.keep.output:
            self._recording.fail_outputs(UnsupportedModel(reason))
        if concepts and self._block_concepts is not None:
            self._recording.fail_concepts(UnsupportedModel(reason))

    def on_attention(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], seen: LseCapture | None = None, output: Any = None
    ) -> None:
        """The attention call that was next_call, with the arguments of `optimized_attention`, and what it gave out."""
        call, next_call = self._call, self.next_call
        if call is None or next_call is None or self._conds is None:
            return
        try:
            attention = from_comfyui(args, kwargs)
            if call.layout is not None:
                attention = attention.with_lse(None if seen is None else seen.of(attention))
                if self.reads_output:
                    attention = _with_output(attention, args, kwargs, output)
                self._router.add_transformer(self._conds, call, kwargs.get("transformer_options") or {}, attention)
            else:
                self.next_call = None
                self._router.add_unet(self._conds, call, *next_call, attention)
        except Exception as error:
            self.fail(error)

    def concepts_attached(self) -> AbstractContextManager[None]:
        """While the sampler runs: hooks on the model's blocks are off again at its end, whatever happens."""
        return nullcontext() if self._block_concepts is None else self._block_concepts.attached()

    # -- the end ----------------------------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """Stop recording; the sampler goes on."""
        self._recording.fail(error)
        self._router.clear()
        self._drop_call()

    def heat_maps(self) -> list[HeatMaps]:
        """The maps of every picture of the batch, on the CPU.

        Raises:
            NothingRecorded: nothing was recorded; the text says why.
        """
        self._close_step()
        self._read_proof()
        if not self.failure and not any(group.accumulator.buffers for group in self._recording.groups):
            raise NothingRecorded(self._why_silent())
        relations = [group.accumulator.relations for group in self._recording.groups]
        if self.options.keep.relations and all(one.num_queries is None for one in relations):
            self._missing = (
                "What the text attends to was not recorded, the words were: in this model, "
                f"{type(self._model).__name__}, only the picture has queries, and the text keys."
            )
        size = (self._latent[-2] * self._scale, self._latent[-1] * self._scale)
        return [self._recording.finish(image, size) for image in range(self._latent[0])]

    def live_heat(self, word: str, size: Size) -> Tensor | None:
        """A word's heat over the steps so far, in the first picture: float32 `[h, w]` on the CPU, None before the first step.

        Waits for the device.

        Raises:
            NothingRecorded: recording stopped.
            BadPrompt: the prompt's words are not known.
            WordNotFound: the prompt has no such word; the text lists those it has.
        """
        self._read_proof()
        if self.failure:
            raise NothingRecorded(self.failure)
        if not words_are_known(self._recording, 0):
            raise BadPrompt(
                "the words of this prompt are not known while it is sampled. Encode it with the CLIP that comes out of Record."
            )
        try:
            return heat_so_far(self._recording, 0, word, size)
        except WordNotFound:
            raise
        except Exception as error:  # sums that were worked off by half would be wrong
            self.fail(error)
            raise NothingRecorded(self.failure) from error

    def _read_proof(self) -> None:
        """The text at the layers is the model's, or recording ends; waits for the device."""
        if self._proof is not None and not self.failure and not bool(self._proof):
            self.fail(
                NothingRecorded(
                    "another node exchanges the text inside the model (attention couple and regional prompts do): the words at "
                    "a layer are not those of the prompt. Record without that node"
                )
            )

    def _why_silent(self) -> str:
        if self._in_pieces:
            return PIECES
        if not self._recording.num_steps:
            return (
                "No sampling step lies between the first and last step that Record was told to keep. Set `first_step` and "
                "`last_step` to steps that the sampler does."
            )
        return (
            f"The sampler did {self._recording.num_steps} steps, but none of the model's attention to the text could be seen: "
            "another node puts its own in place of it (the samplers of ComfyUI-NAG do so), or this version of ComfyUI tells "
            "nobody of it. Record with ComfyUI's own sampler, or a newer version."
        )

    def close(self) -> None:
        """Let go of everything that is the host's."""
        self._guider = self._model = None
        self._conds = None
        self._proof = None
        self._drop_call()
        self._layouts.clear()
        self._router.clear()
        if self._block_concepts is not None:
            self._block_concepts.clear()
        self._recording.clear()


def _with_output(call: AttentionCall, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> AttentionCall:
    """A call with what it gave out; without, where that cannot be read: words need none of it."""
    try:
        return comfyui_output(call, args, kwargs, output)
    except Exception:  # its readers say that it is missing
        return call


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
