"""WebUIs bring PyTorch of their own: AUTOMATIC1111 2.0 and 2.1, Forge 2.3. What it cannot do yet changes no map."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from daam_core import load_tiny, trace
from daam_core.attention.precision import is_autocast
from daam_core.capture.forward_end import register_forward_end

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signatures of PyTorch 2.0."""
    register = nn.Module.register_forward_hook

    def register_forward_hook(
        self: nn.Module, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> Any:
        return register(self, hook, prepend=prepend, with_kwargs=with_kwargs)

    def of(kind: str) -> Callable[[], bool]:
        enabled = torch.is_autocast_enabled
        return lambda: enabled(kind)

    monkeypatch.setattr(torch, "is_autocast_cpu_enabled", of("cpu"), raising=False)
    monkeypatch.setattr(torch, "is_autocast_enabled", of("cuda"))
    monkeypatch.setattr(nn.Module, "register_forward_hook", register_forward_hook)


def sums() -> Mapping[Any, Tensor]:
    pipe = load_tiny()
    with trace(pipe) as attention:
        pipe("a red house", num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np")
    return attention.heat_maps().sums


def test_the_maps_are_the_same(request: pytest.FixtureRequest) -> None:
    expected = sums()
    request.getfixturevalue("old")
    found = sums()
    assert found.keys() == expected.keys() and all(torch.equal(found[grid], expected[grid]) for grid in expected)


def test_autocast_is_known_for_each_kind_of_device(request: pytest.FixtureRequest) -> None:
    with torch.autocast("cpu", torch.bfloat16):  # PyTorch's own looks by today's signature
        request.getfixturevalue("old")
        assert is_autocast(CPU) and not is_autocast(CUDA) and not is_autocast(torch.device("meta"))
    assert not is_autocast(CPU)


@pytest.mark.parametrize("version", ["old", "new"])
def test_the_end_of_a_forward(version: str, request: pytest.FixtureRequest) -> None:
    """Newer ones call the hook where the module raised, too; a later forward comes to its end in every one."""
    if version == "old":
        request.getfixturevalue("old")

    class Divides(nn.Module):
        def forward(self, x: int) -> float:
            return 1 / x

    module, ends = Divides(), list[object]()
    handle = register_forward_end(module, lambda _module, _args, output: ends.append(output))
    with pytest.raises(ZeroDivisionError):
        module(0)
    module(2)
    handle.remove()
    module(4)
    assert ends == ([0.5] if version == "old" else [None, 0.5])


ROOT = Path(__file__).parents[3]
NEWER = {"nbytes", "compiler", "custom_op", "register_fake", "_foreach_copy_", "is_autocast_enabled", "always_call", "mmap"}
"""What PyTorch 2.0 lacks, or takes without arguments."""
ASKED_FIRST = {
    "daam_core/attention/precision.py", "daam_core/capture/compile_op.py", "daam_core/capture/forward_end.py",
    "daam_core/capture/layer_batching.py",
}  # fmt: skip
"""Files that look whether it is there."""
OF_DIFFUSERS = {"transformer_attention.py", "transformer_hooks.py", "transformer_ops.py"}
"""Hooks on transformers of diffusers, which needs a newer PyTorch itself."""
OWN = {("daam_core/capture/call_batching.py", "nbytes"), ("daam_core/capture/joint_batching.py", "nbytes")}
OWN |= {("daam_core/maps/heatmaps.py", "nbytes"), ("daam_webui/recording_store.py", "nbytes")}
"""`nbytes` of NumPy and of our own."""


def test_nothing_newer_is_taken_for_granted_where_a_webui_records() -> None:
    rooms = [ROOT / "daam_webui", *(ROOT / "daam_core" / room for room in ("attention", "capture", "maps", "prompt"))]
    found = set[tuple[str, str]]()
    for path in (path for room in rooms for path in sorted(room.rglob("*.py"))):
        file = path.relative_to(ROOT).as_posix()
        if file in ASKED_FIRST or path.name in OF_DIFFUSERS or file.startswith("daam_webui/hosts/sdnext"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.arg if isinstance(node, ast.keyword) else None
            if name in NEWER:
                found.add((file, name))
    assert found - OWN == set()
