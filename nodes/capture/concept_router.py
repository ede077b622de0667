"""Adds a UNet's attention to concepts that are not in the prompt; whatever goes wrong ends them and not the words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...daam_core.capture.attention_call import AttentionCall
from ...daam_core.capture.block_streams import ConceptRow
from ...daam_core.capture.buffers import BatchSlice
from ...daam_core.capture.concept_texts import ConceptTexts
from ...daam_core.capture.concepts import ConceptRecording
from ...daam_core.capture.plain_weights import plain_weights
from ...daam_core.capture.recording import Recording
from ...daam_core.errors import NothingRecorded, UnsupportedModel
from ...daam_core.prompt.prompt import Prompt
from ...daam_core.types import Grid
from .batch_rows import Conds, Side

Place = tuple[str, int, int]
"""(input, middle or output; number of the block; number of the transformer's block) of a cross-attention."""
_BLOCKS = {"input": "input_blocks", "middle": "middle_block", "output": "output_blocks"}


class ConceptRouter:
    """The concepts of one run.

    Args:
        recording: gets a `ConceptRecording` at the first attention.
        network: ComfyUI's UNet.
        images: pictures of the batch.
    """

    def __init__(self, recording: Recording, network: Any, images: int) -> None:
        self._recording, self._network, self._images = recording, network, images
        self._projections: dict[int, nn.Module] = {}
        self._proved: set[int] = set()
        self._own: ConceptRecording | None = None

    def add(
        self,
        conds: Conds,
        context: Tensor | None,
        wanted: Sequence[BatchSlice],
        place: Place,
        layer: int,
        grid: Grid,
        a: AttentionCall,
    ) -> None:
        """One cross-attention of one step.

        Args:
            context: the text that the UNet was given, `[batch, columns, dim]`.
            wanted: the rows of the prompt.
            layer: its number in the recording.
        """
        if self._recording.concept_failure or not wanted:
            return
        try:
            if a.bias is not None or not a.packed_heads:
                raise UnsupportedModel("another node puts a mask between picture and text")
            if context is None:
                raise NothingRecorded("the model was given no text")
            concepts = self._own or self._start(conds, a.k)
            if layer not in self._projections:
                self._projections[layer] = _projection(self._network, place)
            for where in wanted:
                if layer not in self._proved:
                    self._proved.add(layer)
                    text = context[where.start].to(a.k.device, a.k.dtype)
                    concepts.require_own_keys(self._recording.layers[layer], layer, text, a.k[where.start])
                concepts.add(layer, grid, a.q, a.k, a.heads, a.scale, where)
        except Exception as error:
            self._recording.fail_concepts(error)

    def _start(self, conds: Conds, like: Tensor) -> ConceptRecording:
        texts = one_encoding(conds.concepts)

        def project(layer: int, states: Tensor) -> Tensor:
            keys: Tensor = self._projections[layer](states[None])[0]
            return keys

        def weights(layer: int) -> object:
            # Hooks on a conditioning write other weights into the model in the middle of a run, past PyTorch's counter.
            return None if conds.hooked else plain_weights(self._projections[layer])

        first, *further = ([prompt] * self._images for prompt in conds.prompts["prompt"])
        concepts = ConceptRecording(texts, first, project, weights, like)
        for part, prompts in enumerate(further, start=1):
            concepts.add_part(part, prompts)
        self._recording.concepts = self._own = concepts
        return concepts

    def clear(self) -> None:
        """Let go of the model."""
        self._network = self._own = None
        self._projections.clear()


def one_encoding(carried: Sequence[ConceptTexts | str | None]) -> ConceptTexts:
    """The concepts that every prompt of a run was encoded beside.

    Raises:
        NothingRecorded: there are none, or several; the text says what to do.
    """
    for one in carried:
        if isinstance(one, str):
            raise NothingRecorded(one)
        if one is None:
            raise NothingRecorded(
                "concepts are encoded beside the prompt, and this prompt was not encoded by the CLIP that comes out of Record. "
                "Give Record the CLIP, and encode the prompt with the one that comes out"
            )
        if one is not carried[0]:
            raise NothingRecorded(
                "the prompts of this run were encoded by CLIPs in different states (another LoRA or CLIP skip), and concepts "
                "are of one. Encode them with the same CLIP"
            )
    if not carried:
        raise NothingRecorded("there is no prompt that concepts could be held against")
    assert isinstance(carried[0], ConceptTexts)
    return carried[0]


def concept_rows(wanted: Sequence[tuple[Side, BatchSlice]], prompts: Sequence[Prompt]) -> list[ConceptRow]:
    """The rows of a transformer's batch that concepts are read beside: the prompt's, one a picture and part of the prompt.

    Args:
        wanted: whose rows are recorded, and where in the batch they stand.
        prompts: what the pictures are made of.
    """
    return [
        ConceptRow(row, image, tuple(prompts), batch_slice.area, batch_slice.part)
        for side, batch_slice in wanted
        if side == "prompt"
        for image, row in enumerate(range(batch_slice.start, batch_slice.stop))
    ]


def _projection(network: Any, place: Place) -> nn.Module:
    """`to_k` of a cross-attention.

    Raises:
        UnsupportedModel: there is none at that place.
    """
    name, number, index = place
    try:
        blocks = getattr(network, _BLOCKS[name])
        block = blocks if name == "middle" else blocks[number]
        owners = [module for module in block if hasattr(module, "transformer_blocks")]
        found = owners[0].transformer_blocks[index].attn2.to_k
    except (AttributeError, IndexError, KeyError, TypeError):
        found = None
    if not isinstance(found, nn.Module):
        raise UnsupportedModel(f"{name}_blocks.{number}.transformer_blocks.{index} has no projection of its text to keys")
    return found
