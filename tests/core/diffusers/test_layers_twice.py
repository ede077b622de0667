"""Layers of transformers that attend to a second text beside the prompt, as negative guidance in the attention (NAG) does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from daam_core import trace
from daam_core.errors import NothingRecorded

from .pipeline_cases import CASES, paint


class Twice:
    """Attends as the layer's own processor does, and once more to another text of the same form."""

    def __init__(self, below: Any) -> None:
        self.below = below

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *args: Any, **given: Any) -> Any:
        out = self.below(attn, hidden_states, encoder_hidden_states, *args, **given)
        if encoder_hidden_states is None:
            return out
        other = self.below(attn, hidden_states, -encoder_hidden_states, *args, **given)
        if isinstance(out, tuple):
            return tuple(one + 0.1 * two for one, two in zip(out, other, strict=True))
        return out + 0.1 * other


@pytest.mark.parametrize(("name", "layer"), [("sd3", "transformer_blocks.0.attn"), ("flux", "transformer_blocks.0.attn"),
                                             ("wan", "blocks.1.attn2")])  # fmt: skip
def test_a_second_text_in_a_layer_is_refused_by_its_name(name: str, layer: str) -> None:
    """Both would be added up, although the second is none of the prompt's; the picture is bit-identical."""
    case = CASES[name]
    pipe = case.make()
    module = pipe.transformer.get_submodule(layer)
    module.processor = Twice(module.processor)
    before = paint(pipe, case)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, case), before)
    with pytest.raises(NothingRecorded, match=rf"{layer} of \w+ attended to the text more than once in one step"):
        recording.heat_maps()
