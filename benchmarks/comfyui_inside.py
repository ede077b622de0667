"""The part of `benchmarks.comfyui` that runs in ComfyUI's interpreter: `python comfyui_inside.py COMFYUI PACK SHAPE QUICK`.

Prints one line of JSON.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

host, pack, shape, quick = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "1"
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path[:0] = [host]
sys.argv = ["main.py", "--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_base  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.supported_models  # noqa: E402
import torch  # noqa: E402

import nodes as host_nodes  # noqa: E402


def load(name: str, folder: str) -> Any:
    """A folder as a package under another name."""
    spec = importlib.util.spec_from_file_location(name, f"{folder}/__init__.py", submodule_search_locations=[folder])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


load("daam-lens", pack)
record = importlib.import_module("daam-lens.nodes.record").Record
tiny = importlib.import_module("daam-lens.nodes.tiny_model").TinyModel
runs = importlib.import_module("daam-lens.nodes.capture.recording_store")
hook = importlib.import_module("daam-lens.nodes.capture.sampler_hooks")
listeners = importlib.import_module("daam-lens.nodes.capture.sampler_listeners")
measure = importlib.import_module("daam-lens.benchmarks.measure")
PROMPT = "a red house and a green tree"


def sdxl() -> Any:
    """MODEL of SDXL's full shape with random weights (float32)."""
    settings = {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10], "context_dim": 2048,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10,
        "adm_in_channels": 2816, "num_classes": "sequential", "use_spatial_transformer": True,
        "use_linear_in_transformer": True, "legacy": False, "use_temporal_attention": False, "use_temporal_resblock": False,
    }  # fmt: skip
    family = comfy.supported_models.SDXL(settings)
    family.unet_config |= {"num_heads": -1, "num_head_channels": 64}
    family.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.SDXL(family, comfy.model_base.ModelType.EPS)
    bank = torch.randn(2**22) * 0.02
    for weight in model.diffusion_model.parameters():
        row = weight[0].numel()  # all rows are one row of the bank: the same work, and no 10 GB of numbers
        weight.data = bank[:row].expand(len(weight), row).view(weight.shape)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model.eval().requires_grad_(False), load_device=cpu, offload_device=cpu)


def prompts(clip: Any, width: int) -> tuple[Any, Any]:
    """(positive, negative): encoded, or random numbers of the right shape where the shape has no encoder."""
    if clip is not None:
        encode = host_nodes.CLIPTextEncode().encode
        return encode(clip, PROMPT)[0], encode(clip, "")[0]
    made = [[torch.randn(1, 77, width), {"pooled_output": torch.randn(1, 1280)}] for _ in range(2)]
    return [made[0]], [made[1]]


def timed(sample: Callable[[Any], Any], models: dict[str, Any], turns: int) -> dict[str, list[float]]:
    """Seconds of each model's runs, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _, name, model in measure.in_turns(models, turns):
        start = time.perf_counter()
        sample(model)
        taken[name].append(time.perf_counter() - start)
    return taken


@contextmanager
def clocked() -> Iterator[list[float]]:
    """Seconds of each call of Record's own code: its listeners, and what opens and ends a recording. A run of a large
    model varies by more than this."""
    spent: list[float] = []
    owners = {"_open": hook, "safely": listeners, "_outside_compile": listeners, "_keep": hook.RecordedSampling}
    own = {name: getattr(owner, name) for name, owner in owners.items()}

    def timed_one(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args)
            finally:
                spent.append(time.perf_counter() - start)

        return call

    for name, function in own.items():
        setattr(owners[name], name, timed_one(function))
    try:
        yield spent
    finally:
        for name, function in own.items():
            setattr(owners[name], name, function)


def main() -> list[dict[str, str]]:
    torch.manual_seed(0)
    side, steps, turns = {"tiny": (128, 25, 30), "sdxl": (512, 1, 4)}[shape]
    steps, turns = (min(steps, 3), 2) if quick else (steps, turns)
    side = 128 if quick else side
    model, clip, _ = tiny.execute().args if shape == "tiny" else (sdxl(), None, None)
    positive, negative = prompts(clip if clip is None else record.execute(model, clip).args[1], 2048)
    latent = {"samples": torch.zeros(1, 4, side // 8, side // 8)}

    def sample(one: Any, count: int = steps) -> Any:
        sampler = host_nodes.KSampler()
        return sampler.sample(one, 1, count, 6.0, "euler", "normal", positive, negative, latent)[0]["samples"]

    heard = record.execute(model, clip).args[0]
    words = record.execute(model, clip, self_attention=False).args[0]
    models = {"nothing": model, "Record": heard, "Record, words only": words}
    for one in models.values():
        sample(one, 1)
    taken = timed(sample, models, turns)
    plain = statistics.median(taken["nothing"])
    # Kernels do not depend on a model's width: counting them is left to the small one, whose steps are quick.
    count = (lambda one: measure.calls_a_step(lambda n: sample(one, n), 4, 64)) if shape == "tiny" else (lambda one: None)
    calls = {name: count(one) for name, one in models.items()}
    layers = sum(m.__class__.__name__ == "BasicTransformerBlock" for m in model.model.diffusion_model.modules())
    rows = []
    for name in models:
        median = statistics.median(taken[name])
        ratio = measure.ratio(taken[name], taken["nothing"])
        ours, theirs = calls[name], calls["nothing"]
        counted = name != "nothing" and ours and theirs
        own = []
        for _ in range(3 if shape == "tiny" else 1):
            with clocked() as spent:
                sampled = sample(models[name])
            own.append(sum(spent))
        kept = runs.RECORDINGS.recorded(sampled[0]).nbytes / 2**20 if name != "nothing" else 0
        rows.append({
            "work": f"{shape}, {side} px, {steps} steps, {layers} layers", "with": name, "time": f"{median:.3f} s",
            "ratio": f"{ratio:.3f}", "own": f"{1000 * statistics.median(own):.0f} ms" if kept else "-",
            "kept": f"{kept:.2f} MB" if kept else "-",
            "kernels": f"+{(ours.kernels - theirs.kernels) / layers:.2f}" if counted else "-",
            "waits": f"{ours.waits - theirs.waits:g}" if counted else "-",
        })  # fmt: skip
    other = os.environ.get("COMFYUI_DAAM_PATH")
    if not other:
        absent = {"work": rows[0]["work"], "with": "comfyui-daam: COMFYUI_DAAM_PATH is not set"}
        rows.append(dict.fromkeys(rows[0], "-") | absent)
    elif clip is not None:
        rows.append(of_comfyui_daam(other, model, clip, latent, steps, max(2, turns // 6), plain, rows[0]["work"]))
    return rows


def of_comfyui_daam(folder: str, model: Any, clip: Any, latent: Any, steps: int, turns: int, plain: float, work: str) -> Any:
    """The same picture by comfyui-daam's own text encoder and sampler."""
    theirs = load("comfyui-daam", folder).NODE_CLASS_MAPPINGS
    encoder, sampler = theirs["CLIPTextEncodeWithTokens"](), theirs["KSamplerDAAM"]()
    positive, negative = (getattr(encoder, encoder.FUNCTION)(clip=clip, text=text)[0] for text in (PROMPT, ""))
    taken = []
    for _ in range(turns):
        start = time.perf_counter()
        getattr(sampler, sampler.FUNCTION)(
            model=model, seed=1, steps=steps, cfg=6.0, sampler_name="euler", scheduler="normal", positive=positive,
            negative=negative, latent_image=latent, denoise=1.0, node_id="1",
            prompt={"1": {"inputs": {}}, "2": {"inputs": {"heatmaps": ["1", 1]}}},  # it records what is connected
        )  # fmt: skip
        taken.append(time.perf_counter() - start)
    median = statistics.median(taken)
    return {"work": work, "with": "comfyui-daam", "time": f"{median:.3f} s", "ratio": f"{median / plain:.3f}",
            "own": "-", "kernels": "-", "kept": "-", "waits": "-"}  # fmt: skip


with torch.inference_mode():
    print(json.dumps(main()), file=answers)
