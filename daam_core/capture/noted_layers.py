"""What was noted of a forward of a UNet, taken when it is over: all at once where it is as in the last, else layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import NothingRecorded
from ..types import Grid
from .planned_layers import PlannedLayers, pairs
from .projection_hooks import QKHook
from .projection_wrapper import Note
from .shared_keys import WRITTEN

Read = Callable[[int, Grid, Tensor, Tensor, bool, bool], None]
"""Takes a layer that is not as it was planned, see `AttentionReceiver.on_attention`."""


def take_notes(
    notes: Sequence[Note], planned: PlannedLayers, context: Tensor | None, hooks: Sequence[QKHook], read: Read
) -> None:
    """Add what was noted.

    Args:
        planned: the layers of this forward whose way is known.
        context: the text that the UNet was given.
        hooks: on its layers, by their numbers.
        read: takes the others.

    Raises:
        NothingRecorded: somebody wrote into what one of the others gave out, behind its projection.
    """
    if planned.hold_all(notes, context, lambda index: hooks[index].grid_hook.grid):
        return
    found, alone = pairs(notes)
    taken = len(planned.read) + len(found)
    for (index, _, source, q, q_version), (_, _, text, k, k_version) in found:
        hook = hooks[index]
        grid = hook.grid_hook.grid
        cross, of_context = source is None or source is not text, hook.key_weights is not None and text is context
        assert q is not None
        known = cross and (of_context or k is not None)
        if known and planned.hold(index, grid, q, k, q_version, k_version, of_context):
            continue
        if q._version != q_version or (k is not None and k._version != k_version):
            raise NothingRecorded(WRITTEN)
        if k is None:
            with torch.no_grad():
                k = hook.attn.to_k(text)  # as it was: the same weights on the same text
        hook.is_cross = cross
        read(index, grid, q, k, cross, of_context)
    for note in alone:
        hooks[note[0]].keep(note)
    if taken == len(planned.read) and not alone and all(hooks[note[0]].key_weights is not None for note in notes):
        planned.note_order(found, notes, context)
