"""The results file: one section a benchmark, each replaced when its benchmark runs again."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch

from . import documents

RESULTS = Path(__file__).parent / "results.md"
_HEAD = """# Measured

Written by `python -m benchmarks.step`, `python -m benchmarks.cost` and `python -m benchmarks.finalise` (see README.md).
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """The machine in general terms."""
    import daam_core

    return (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), {torch.get_num_threads()} threads, no GPU, "
        f"PyTorch {torch.__version__.split('+')[0]}, diffusers {diffusers.__version__}, "
        f"DAAM Lens {daam_core.__version__}, float32."
    )


def write(title: str, body: str, path: Path = RESULTS) -> None:
    """Put one section in its place and print it."""
    text = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    section = f"## {title}\n\n{body.strip()}\n\n_{machine()}_\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.M | re.S)
    replaced, found = pattern.subn(lambda _: section + "\n", text)
    text = replaced if found else f"{text.rstrip()}\n\n{section}"
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    print(section)
    if path == RESULTS:
        documents.write_documents()
