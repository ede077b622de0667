"""The proof that a UNet's layers attend to the text that the model was given, and no other node's."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import cosine_similarity

from ...daam_core.errors import NothingRecorded
from .model_call import Call

SAME_TEXT = 0.98
"""Cosine between a column of the model's text and the same column at a layer, from which on it counts as the same."""


class LayerText:
    """Holds the texts at the layers of one run against the model's.

    Attributes:
        same_text: whether the text at a layer has to be the model's, number by number.
    """

    def __init__(self) -> None:
        self.same_text = True
        self._alike: Tensor | None = None

    def check(self, call: Call, context: Any) -> None:
        """The text at a layer is the model's: in length, and in its numbers whenever they lie somewhere else.

        A node that scales the text, or adds a little to it, leaves every column where it was.

        Raises:
            NothingRecorded: it has another length.
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
        self._alike = alike if self._alike is None else self._alike & alike  # asking for the answer would make the sampler wait

    def require(self) -> None:
        """Waits for the device.

        Raises:
            NothingRecorded: the numbers were other ones at some layer.
        """
        if self._alike is not None and not bool(self._alike):
            raise NothingRecorded(
                "another node exchanges the text inside the model (attention couple and regional prompts do): the words at "
                "a layer are not those of the prompt. Record without that node"
            )

    def clear(self) -> None:
        self._alike = None
