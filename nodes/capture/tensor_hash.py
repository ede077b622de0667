"""A tensor told by its numbers: how a latent finds its recording, and an encoded prompt its words."""

from __future__ import annotations

import hashlib

from torch import Tensor


def tensor_hash(x: Tensor) -> str:
    """A tensor's shape and numbers as a short text; the same for the same numbers, wherever they lie, 0 and -0 among them."""
    values = (x.detach().float() + 0.0).cpu().contiguous()  # -0 + 0 is 0
    return hashlib.sha1(f"{tuple(values.shape)}".encode() + values.numpy().tobytes(), usedforsecurity=False).hexdigest()
