"""What glibc keeps of its heap, counted in pages that a process had to ask for anew."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from daam_core.capture.heap import keep_heap

torch.set_num_threads(1)

def step():
    held = [torch.ones(25_000) for _ in range(60)]

def faults():
    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
keep_heap()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives the top of its heap back after every step")
def test_what_a_step_held_is_kept_for_the_next_one() -> None:
    # A glibc whose limits somebody set keeps to them.
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name and name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", FAULTS]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    given_back, kept = map(int, answer.stdout.split())
    if not given_back:
        pytest.skip("this process gave nothing back: something else lay at the end of its heap")
    assert kept < given_back / 10
