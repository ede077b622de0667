"""Memory of one step that the C library keeps for the next.

A recording on a processor holds a step's queries until the step ends, and gives them back at once. glibc then hands the top
of its heap back to the system, and the next step pays for each page of it anew: of a small model as much as for all the
softmax. How much glibc keeps grows with the largest block that was given back to the system so far, up to twice 32 MiB.
"""

from __future__ import annotations

import functools

import torch

KEPT_BYTES = 30 * 2**20
"""Of the block: glibc takes no notice of larger ones than 32 MiB. It keeps up to twice as much."""


@functools.cache
def keep_heap() -> None:
    """Have glibc keep up to 60 MiB of free memory from now on; once in a process, some microseconds.

    Any model whose tensors are that large does the same. Other C libraries, and a glibc whose limits somebody set, stay as
    they are. The block is never written to, so that it takes no memory.
    """
    torch.empty(KEPT_BYTES, dtype=torch.uint8, device="cpu")
