"""Another pack's attention override: recorded where it gives out what the queries and keys that it is given attend to."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ...daam_core.capture.attention_call import AttentionCall
from ...daam_core.capture.output_check import ExpectedOutput, expected_output
from ...daam_core.errors import NothingRecorded
from .model_call import Call

_AGAIN = 4
"""Each layer is compared at its first call, and then at one in so many: an override may begin in the middle of a run."""


class ForeignOverride:
    """Compares what an override gives out with what the recorded queries and keys give.

    It may hand on other queries and keys than those it is given, a mask or a temperature of its own, or attend by itself:
    nobody is shown with what it attends, so its output is held against them. Nothing of it is called or wrapped here.
    """

    def __init__(self, override: Any) -> None:
        self._name = name_of(override)
        self._expected: tuple[ExpectedOutput, bool] | None = None
        self._counts: dict[Hashable, int] = {}
        self._alike: dict[bool, Tensor] = {}

    def expect(
        self, call: Call, layer: Hashable, own: bool, a: AttentionCall, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """One attention that was recorded, with the arguments of `optimized_attention`; what it gives out comes next.

        Args:
            layer: what tells it from the others of one call of the model.
            own: whether it is a UNet's picture's to itself.
        """
        self._expected = None
        count = self._counts.get(layer, 0)
        place = list(self._counts).index(layer) if count else len(self._counts)
        self._counts[layer] = count + 1
        rows = [row for _, batch_slice in call.wanted for row in range(batch_slice.start, batch_slice.stop)]
        if rows and (not count or (count + place) % _AGAIN == 0):
            v = args[2] if len(args) > 2 else kwargs["v"]
            self._expected = expected_output(a, v, rows, offset=7 * count + place), own

    def compare(self, output: Any) -> None:
        """What the attention that was expected gave out.

        Raises:
            NothingRecorded: it is no row for each query.
        """
        given, self._expected = self._expected, None
        if given is None:
            return
        expected, own = given
        if not isinstance(output, Tensor) or not expected.fits(output):
            raise NothingRecorded(self._sentence(own))
        alike = expected.alike(output)  # asking for the answer would make the sampler wait
        self._alike[own] = self._alike[own] & alike if own in self._alike else alike

    def require(self) -> None:
        """Waits for the device.

        Raises:
            NothingRecorded: something else was given out.
        """
        for own in sorted(self._alike):
            if not bool(self._alike[own]):
                raise NothingRecorded(self._sentence(own))

    def _sentence(self, own: bool) -> str:
        of_whom = "to itself" if own else "to the words"
        advice = ", or set `self_attention` of Record to false" if own else ""
        return (
            f"another node's attention override, {self._name}, gives out something else than the queries and keys that it is "
            "given attend to (it changes them, their temperature or their mask, or adds to it), so nobody can say how the "
            f"picture attends {of_whom}. Record without that node{advice}"
        )


def layer_of(block: Mapping[str, Any], own: bool) -> Hashable:
    """What tells a UNet's attention from its others, of what ComfyUI tells its patches."""
    return block.get("block"), block.get("block_index", 0), own


def name_of(override: Any) -> str:
    """Module and name of a function, or of an object's class, without folders of the machine."""
    while isinstance(override, partial):
        override = override.func
    named = override if hasattr(override, "__qualname__") else type(override)
    module = re.split(r"[/\\]", str(getattr(named, "__module__", "")))[-1]  # ComfyUI names a pack's module by its path
    return ".".join(filter(None, (module, named.__qualname__.replace(".<locals>", ""))))
