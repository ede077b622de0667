"""Calls of modular pipelines of diffusers, which are made of blocks that hand a state on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..capture.class_hook import Finish
from .encodings import as_list, rows_of
from .pipeline_trace import PipelineTrace

_EMBEDDINGS = "prompt_embeds"


def is_modular(pipe: Any) -> bool:
    """Whether a pipeline is made of blocks."""
    return hasattr(pipe, "_blocks") and hasattr(pipe._blocks, "sub_blocks")


class ModularCalls(PipelineTrace):
    """What the trace of a modular pipeline knows of its calls: blocks that encode its prompts stand for `encode_prompt`."""

    def _attach_encoders(self) -> None:
        super()._attach_encoders()
        self._encoders = [block for block in _leaves(self._pipe._blocks) if _EMBEDDINGS in block.intermediate_output_names]
        for owner in {type(block) for block in self._encoders}:
            self._hook(owner, "__call__", self._begin_block)

    def _arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        given = {one.name: one.default for one in self._pipe._blocks.inputs if one.name}
        state = dict(getattr(args[0] if args else kwargs.get("state"), "values", {}))
        if self._encoders:  # they make them anew
            state = {name: value for name, value in state.items() if not name.endswith(_EMBEDDINGS)}
        return {**given, **state, **kwargs}

    def _begin_block(self, block: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        if not any(block is one for one in self._encoders) or self._pipe not in args or not self._may_encode():
            return None
        # Before the block runs: some write the templates into the prompts that they are given.
        texts = _texts(args[-1])
        return self._encode(lambda output, _: (texts, _embeddings(output[-1])))


def _texts(state: Any) -> dict[str, list[str] | None]:
    """The prompts in a state, copied; those that were not given are empty."""
    texts: dict[str, list[str] | None] = {name: as_list(state.get(name)) or [""] for name in ("prompt", "negative_prompt")}
    second = {f"{name}_2": given for name in tuple(texts) if (given := as_list(state.get(f"{name}_2"))) is not None}
    return {**texts, **second}


def _embeddings(state: Any) -> list[list[Tensor]]:
    """What an encoder's block wrote into the state, the prompt's first."""
    names = [f"{side}{_EMBEDDINGS}" for side in ("", "negative_")]
    return [own for name in names if (own := rows_of(state.get(name)))]


def _leaves(block: Any) -> Iterator[Any]:
    """The blocks inside a block that are made of no others."""
    inside = getattr(block, "sub_blocks", None)
    if not inside:
        yield block
        return
    for one in inside.values():
        yield from _leaves(one)
