"""One process, or the processes of `accelerate launch`: which this is, how many there are, and waiting for all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")
LONGEST_WAIT = timedelta(days=30)


@dataclass(frozen=True)
class Processes:
    """This process among all of a run.

    Attributes:
        index: its number, from 0; 0 writes the report.
        count: how many there are.
        device: the device that is this process's own ("cuda:3"), or None where that is left to the model.
    """

    index: int = 0
    count: int = 1
    device: str | None = None
    state: Any = None

    @property
    def first(self) -> bool:
        return self.index == 0

    def share(self, work: Sequence[T]) -> list[T]:
        """This process's part: every `count`-th piece, so that all parts together are the whole, none twice."""
        return list(work[self.index :: self.count])

    def wait(self) -> None:
        """Until all processes are here."""
        if self.state is not None:
            self.state.wait_for_everyone()


def processes(device: str | None) -> Processes:
    """What `accelerate launch` (or torchrun) made of this run; without it, one process.

    Args:
        device: what the user asked for; "cpu" makes the processes talk by gloo.
    """
    # torchrun and accelerate's own launcher set the first; `accelerate launch --mpirun_hostfile` one of the others.
    sizes = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    if all(int(os.environ.get(name, "1")) < 2 for name in sizes):
        return Processes()
    import torch
    from accelerate import PartialState

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    # A process may have to wait for another as long as the whole study takes; the library's own limit is minutes.
    state = PartialState(cpu=on_cpu, timeout=LONGEST_WAIT)
    return Processes(state.process_index, state.num_processes, "cpu" if on_cpu else str(state.device), state)
