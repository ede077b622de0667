"""Which LoRA painted where: recordings at one seed with a LoRA and without it, compared by the node."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import folder_paths
import graphs
import numpy as np
import safetensors.torch
import torch
from cases_patches import _lora
from graphs import encode, ksampler, listen, runs
from zoo import PROMPT, clip, empty, unet

import nodes as host_nodes

report = graphs.importlib.import_module("daam-lens.nodes.report")


def _recorded(name: str, strength: float) -> Any:
    """The maps of one run; Record stands behind the loader, as in most graphs."""
    model, encoder = unet("sd15"), clip("sd15")
    if name:
        model, encoder = host_nodes.LoraLoader().load_lora(model, encoder, name, strength, strength)
    watched, told = listen(model, encoder)
    runs.RECORDINGS._kept.clear()
    heard = ksampler(watched, encode(told, PROMPT), encode(told, ""), empty(128, 128), steps=3)
    return runs.maps_of(heard)


def case_two_loras_of_one_seed() -> None:
    """Each against none: what lies elsewhere is that of the maps, counted by hand; at strength 0 nothing does."""
    with tempfile.TemporaryDirectory() as folder:
        queries = {name: weight for name, weight in _lora().items() if ".to_q." in name}
        for name, weights in (("both", _lora()), ("queries", queries)):
            safetensors.torch.save_file(weights, str(Path(folder) / f"{name}.safetensors"))
        folder_paths.add_model_folder_path("loras", folder)
        folder_paths.filename_list_cache.pop("loras", None)
        plain = _recorded("", 0)
        drawn = {}
        for name, strength in (("both.safetensors", 0.8), ("queries.safetensors", 0.8), ("both.safetensors", 0.0)):
            found = _recorded(name, strength)
            change, rose, summary = report.CompareMaps.execute(found, plain, "house\ntree").result
            lines = summary.split("\n")
            assert len(lines) == 3 and change.shape[0] == rose.shape[0] == 2
            told = [line.split(": ")[1].split("%")[0] for line in lines]
            counted = []
            for line, word in zip(lines[:2], ("house", "tree"), strict=True):
                p, q = (np.clip(m[0].heat_map(word).double().numpy(), 0, None) for m in (found, plain))
                counted.append(float(np.clip(p / p.sum() - q / q.sum(), 0, None).sum()))
                assert line.startswith(f"{word}: {counted[-1]:.1%} of its heat lies elsewhere"), (line, counted)
            assert lines[2] == f"All 2: {np.mean(counted):.1%} of their heat lies elsewhere."
            if strength:
                assert min(counted) > 0.001, counted
                drawn[name] = change
            else:
                assert counted == [0.0, 0.0] and told == ["0.0", "0.0", "0.0"]
                assert not bool(rose.any()), "nothing rose"
        assert not torch.equal(*drawn.values())
