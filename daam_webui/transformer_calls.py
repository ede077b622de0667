"""Forge's transformers while they are sampled: the name by which they call their attention, wrapped for one prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from daam_core.capture.attention_call import comfyui_output, from_comfyui
from daam_core.capture.block_streams import ConceptRow
from daam_core.capture.comfyui_model import ModelCall
from daam_core.capture.compile_op import is_compiled
from daam_core.capture.counted_call import CountedCall, add_rows, blocks_of, only_layout
from daam_core.capture.forge_concepts import ForgeConcepts
from daam_core.capture.forge_families import ATTENTION, READ_IN_FORGE, ROOM, ForgeModel, forge_model_of, is_forge_transformer
from daam_core.capture.host_words import EXTENSIONS
from daam_core.capture.joint_rows import add_self, add_text
from daam_core.capture.lse_capture import LseCapture
from daam_core.capture.named_attention import named_attention
from daam_core.capture.token_layout import TokenLayout
from daam_core.errors import NothingRecorded, UnsupportedModel

from .batch import Batch
from .concepts import OTHER_MODEL, BatchConcepts

_KNOWN = 64
"""So many different calls of a model are remembered with where their tokens stand."""


def family_of(model: nn.Module, checkpoint: Any) -> tuple[str, ForgeModel] | None:
    """(name, what is known) of the family of a transformer of Forge; None for a UNet.

    Raises:
        UnsupportedModel: a transformer that is not read.
    """
    found = forge_model_of(model, checkpoint)
    if found is None and is_forge_transformer(model):
        raise UnsupportedModel(
            f"This checkpoint's model, {type(getattr(model, '_orig_mod', model)).__name__}, is not one that DAAM Lens reads in "
            f"this host. It reads {READ_IN_FORGE}."
        )
    if found is not None and is_compiled(model):
        raise UnsupportedModel(
            f"This checkpoint's model ({found[0]}) is compiled, and of a compiled one nobody sees what it attends to. Switch "
            "torch.compile off to get heat maps."
        )
    return found


def check_frames(latent: Sequence[int]) -> None:
    """A latent `[rows, c, (frames,) h, w]` is of a picture.

    Raises:
        NothingRecorded: it is of a video.
    """
    if len(latent) == 5 and latent[2] > 1:
        raise NothingRecorded(
            f"a video of {latent[2]} latent frames is painted, and in this host heat maps are made of pictures. Paint one "
            "frame to get heat maps"
        )


class TransformerHooks:
    """Reads the attention of one transformer; a context manager for one prediction.

    Args:
        model: the diffusion model.
        family: what is known of it.
        references: gives the reference pictures that the host keeps for its models.
        fail: takes what goes wrong while an attention is read.
    """

    def __init__(
        self,
        model: nn.Module,
        family: ForgeModel,
        references: Callable[[], Sequence[Tensor]],
        fail: Callable[[Exception], None],
    ) -> None:
        self._model, self._family, self._references, self._fail = model, family, references, fail
        self._layouts: dict[Any, TokenLayout] = {}
        self._batch: Batch | None = None
        self._counted: CountedCall | None = None
        self._concepts: ForgeConcepts | None = None
        self._answers: Callable[..., Any] | None = None
        self._inside = False
        self._stack = ExitStack()

    def __enter__(self) -> TransformerHooks:
        self._stack.enter_context(named_attention(ROOM + self._family.attention_module, ATTENTION, self._override))
        return self

    def __exit__(self, *_: object) -> None:
        self._counted = self._batch = None
        if self._concepts is not None:
            self._concepts.detach()
        self._stack.close()

    def begin(self, batch: Batch, latent: Sequence[int], context: Tensor, given: Mapping[str, Any]) -> None:
        """The model is called.

        Args:
            batch: what its rows are; it has been told of the call.
            latent: its shape.
            context: the text, `[rows, columns, width]`.
            given: everything else that it gets, by the host's names.

        Raises:
            NothingRecorded: a layout that is not known.
        """
        self._counted = self._batch = None
        if batch.call is None or not batch.call.slices:
            return
        if self._family.references and not given.get("ref_latents"):
            given = {**given, "ref_latents": tuple(self._references())}
        layout = self._layout(ModelCall(tuple(int(n) for n in latent), int(context.shape[1]), given))
        self._batch, self._counted = batch, CountedCall(layout, int(latent[0]), EXTENSIONS, blocks_of(self._model))
        if batch.concepts is not None:
            self._begin_concepts(batch, batch.concepts, layout, latent, context)

    def end(self) -> None:
        """The call of the model is over.

        Raises:
            NothingRecorded: its attentions were not those of the layout.
        """
        counted, self._counted = self._counted, None
        if self._concepts is not None:
            self._concepts.end()
        if counted is not None:
            counted.finish()

    def _begin_concepts(
        self, batch: Batch, concepts: BatchConcepts, layout: TokenLayout, latent: Sequence[int], context: Tensor
    ) -> None:
        recording = batch.recording
        if recording.concept_failure:
            return
        if self._concepts is None or self._concepts.recording is not recording:
            if recording.concepts is not None:
                recording.fail_concepts(UnsupportedModel(OTHER_MODEL))
                return
            self._concepts = ForgeConcepts(recording, self._model, self._answered)
        assert batch.call is not None
        rows = [
            ConceptRow(where.start + i, image, (schedule.prompt,), where.area)
            for group, where in batch.call.slices
            if group.side == "prompt"
            for i, (image, schedule) in enumerate(zip(group.images, group.schedules, strict=True))
        ]
        self._concepts.begin(lambda: concepts.texts, rows, layout, latent, context)

    @contextmanager
    def _answered(self, answers: Callable[..., Any] | None) -> Iterator[None]:
        """See `daam_core.capture.block_streams.Answered`."""
        self._answers, self._inside = answers, True
        try:
            yield
        finally:
            self._answers, self._inside = None, False

    def _layout(self, call: ModelCall) -> TokenLayout:
        shapes = tuple(
            (name, tuple(value.shape) if isinstance(value, Tensor) else tuple(tuple(one.shape) for one in value))
            for name, value in call.given.items()
            if isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and all(isinstance(x, Tensor) for x in value))
        )
        key = call.latent, call.columns, shapes
        if key not in self._layouts:
            if len(self._layouts) >= _KNOWN:
                self._layouts.clear()
            self._layouts[key] = self._family.layout(self._model, call)
        return self._layouts[key]

    def _override(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._inside and self._answers is not None:
            return self._answers(function, *args, **kwargs)
        if self._inside or self._counted is None:
            return function(*args, **kwargs)
        seen = LseCapture()
        with seen:
            out = function(*args, **kwargs)
        try:
            self._attention(args, kwargs, seen, out)
        except Exception as error:
            self._counted = None
            self._fail(error)
        return out

    @torch.no_grad()
    def _attention(self, args: Sequence[Any], kwargs: Mapping[str, Any], seen: LseCapture, out: Any) -> None:
        counted, batch = self._counted, self._batch
        assert counted is not None
        assert batch is not None
        call = batch.call
        assert call is not None
        a = from_comfyui(args, kwargs)
        a = a.with_lse(seen.of(a))
        found = counted.take(a)
        if found is None:
            return
        number, rows = found
        layout, name = counted.layout, f"attention.{number}"
        grid = layout.patches[1:]
        layer = batch.recording.layer((name, grid, a.heads, a.scale), name, "mid", a.heads, a.scale)
        if self._concepts is not None:
            self._concepts.attention_made(layer, lambda: comfyui_output(a, args, kwargs, out), rows)
        for group, batch_slice in call.slices:
            row = only_layout(rows[batch_slice.index])
            source = group.picked(batch_slice, layout.columns, tuple(row.columns))
            into = group.accumulator
            add_rows(into, layer, layout, row, source, a, whole_video=True)
            if not call.area.whole:
                continue
            if group.side == "prompt" and into.wants_joint_self(layer):
                add_self(into, layout, row, batch_slice.index, a)
            if into.relations.wanted:
                add_text(into, layout, row, source, a)
