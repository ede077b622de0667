"""One picture that the host finished while a session recorded it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class FinishedImage:
    """One finished picture, the file that the host wrote it to and the infotext inside, where it did."""

    iteration: int
    image: int
    picture: NDArray[np.uint8]
    seed: int
    prompt: str
    file: str = ""
    info: str = ""
