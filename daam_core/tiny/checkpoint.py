"""Training state on disk: one safetensors file with a JSON header, written atomically, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from ..files import atomic_write


def write_state(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write `tensors` and `facts` (anything JSON) to `path`; an older file stays whole until the new one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dense = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    atomic_write(path, save(dense, {"facts": json.dumps(dict(facts))}))


def read_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `write_state` wrote."""
    with safe_open(str(path), framework="pt") as file:
        facts: dict[str, Any] = json.loads((file.metadata() or {}).get("facts", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 (not a dict)


def module_tensors(modules: Mapping[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """Parameters and buffers of named modules as `"name/parameter"`."""
    return {f"{name}/{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}


def load_modules(modules: Mapping[str, torch.nn.Module], tensors: Mapping[str, torch.Tensor]) -> None:
    """The reverse of `module_tensors`; missing or foreign names raise."""
    for name, module in modules.items():
        prefix = name + "/"
        module.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})


def optimiser_tensors(optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """Momenta and step counts of optimisers as `"optimiser/number/parameter/key"`."""
    found: dict[str, torch.Tensor] = {}
    for number, optimiser in enumerate(optimisers):
        for index, parameter in enumerate(_parameters(optimiser)):
            for key, value in optimiser.state.get(parameter, {}).items():
                found[f"optimiser/{number}/{index}/{key}"] = torch.as_tensor(value)
    return found


def load_optimisers(optimisers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, torch.Tensor]) -> None:
    """The reverse of `optimiser_tensors`."""
    for name, value in tensors.items():
        if name.startswith("optimiser/"):
            _, number, index, key = name.split("/")
            optimiser = optimisers[int(number)]
            parameter = _parameters(optimiser)[int(index)]
            # AdamW keeps its step count on the CPU, everything else beside the parameter.
            place = torch.device("cpu") if value.ndim == 0 else parameter.device
            optimiser.state[parameter][key] = value.to(place)


def _parameters(optimiser: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimiser.param_groups for p in group["params"]]
