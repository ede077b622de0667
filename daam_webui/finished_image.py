"""One picture that the host finished while a session recorded it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class FinishedImage:
    """One finished picture.

    Attributes:
        saved: whether the host writes it to a file, which it decides when the picture is finished: one that was interrupted or
            skipped it may not.
        file, info: that file and the infotext inside, as soon as it is written.
    """

    iteration: int
    image: int
    picture: NDArray[np.uint8]
    seed: int
    prompt: str
    saved: bool = True
    file: str = ""
    info: str = ""
