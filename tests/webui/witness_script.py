"""Runs inside a host, as an extension of its own: notes queries and keys by itself, so that maps can be checked against
them, counts hooks, and fails on request. Knows nothing of DAAM Lens."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch
from modules import processing, script_callbacks, scripts, shared

NOTES: dict[str, Any] = {"on": False, "calls": [], "handles": [], "seen": set(), "fail": "", "conds": [], "texts": []}


def unet() -> Any:
    model = shared.sd_model
    forge = getattr(model, "forge_objects", None)
    return forge.unet.model.diffusion_model if forge is not None else model.model.diffusion_model


def _watch(params: Any) -> None:
    if NOTES["fail"] == "cfg_denoiser":
        raise RuntimeError("another script failed on purpose")
    model = unet()
    if not NOTES["on"] or id(model) in NOTES["seen"]:
        return
    NOTES["seen"].add(id(model))

    def begin(_module: Any, args: Any, kwargs: Any) -> None:
        options = kwargs.get("transformer_options") or {}
        context = kwargs.get("context", args[2] if len(args) > 2 else None)
        NOTES["columns"] = context.shape[1]
        NOTES["calls"].append(
            {
                "rows": args[0].shape[0],
                "cond_or_uncond": list(options.get("cond_or_uncond", [])),
                "layers": [],
                "sample": args[0].detach().clone(),
            }
        )

    if NOTES["texts"]:
        with torch.no_grad():
            states = shared.sd_model.get_learned_conditioning(list(NOTES["texts"]))
        states = states["crossattn"] if isinstance(states, dict) else states
        weights = {n: m.to_k.weight.detach().clone() for n, m in model.named_modules() if n.endswith("attn2")}
        NOTES["encoded"] = {"states": states.detach().clone(), "to_k": weights}
    NOTES["handles"].append(model.register_forward_pre_hook(begin, with_kwargs=True))
    for name, module in model.named_modules():
        if not name.endswith("attn2"):
            continue

        def see(
            _module: Any, _args: Any, output: Any, name: str = name, heads: int = int(module.heads), kind: str = "q"
        ) -> None:
            layers = NOTES["calls"][-1]["layers"]
            if kind == "q":
                layers.append({"name": name, "heads": heads, "q": output.detach().clone()})
            else:
                # A layer may be asked for the keys of another text, too; the model's own has as many columns as it was given.
                if output.shape[1] == NOTES["columns"]:
                    layers[-1]["k"] = output.detach().clone()

        NOTES["handles"].append(module.to_q.register_forward_hook(see))
        NOTES["handles"].append(
            module.to_k.register_forward_hook(lambda m, a, o, see=see: see(m, a, o, kind="k"))  # type: ignore[misc]
        )


def _hooks() -> int:
    def ours(m: Any) -> bool:
        return "forward_wrapper" in str(getattr(vars(m).get("forward"), "__module__", ""))

    previews = "assign_current_image" in vars(shared.state)
    return previews + sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + ours(m) for m in unet().modules())


class Witness(scripts.Script):  # type: ignore[misc]
    def title(self) -> str:
        return "Witness"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def process(self, p: Any, *args: Any) -> None:
        """Write each picture's prompt anew, as Dynamic Prompts does."""
        if NOTES["fail"] == "new prompts":
            p.all_prompts = [f"a {colour} house" for colour, _ in zip(("red", "blue"), p.all_prompts, strict=True)]

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        if NOTES["fail"] == "process_batch":
            raise RuntimeError("another script failed on purpose")

    def postprocess_image(self, p: Any, pp: Any, *args: Any) -> None:
        """Paint over a picture that is done, as ADetailer does, with all scripts at work again."""
        if NOTES["fail"] != "second run" or getattr(p, "is_second", False):
            return
        again = processing.StableDiffusionProcessingImg2Img(
            sd_model=shared.sd_model, prompt="a blue boat", steps=2, width=p.width, height=p.height, cfg_scale=5,
            sampler_name="Euler", init_images=[pp.image], denoising_strength=0.5, seed=3, do_not_save_samples=True,
            do_not_save_grid=True, outpath_samples=p.outpath_samples, outpath_grids=p.outpath_grids,
        )  # fmt: skip
        again.is_second, again.scripts, again.script_args = True, p.scripts, p.script_args
        pp.image = processing.process_images(again).images[0]

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        if NOTES["fail"] == "unet":
            handle = unet().time_embed.register_forward_pre_hook(_fail)
            NOTES["handles"].append(handle)


def _fail(*_: Any) -> None:
    raise RuntimeError("the model failed on purpose")


def _routes(_demo: Any, app: Any) -> None:
    def start(texts: str = "") -> dict[str, int]:
        """From now on; `texts`, with bars between, are encoded and stored beside the layers' weights of keys."""
        NOTES.update(on=True, calls=[], seen=set(), texts=[text for text in texts.split("|") if text], encoded=None)
        return {"hooks": _hooks()}

    def stop(path: str) -> dict[str, Any]:
        for handle in NOTES["handles"]:
            handle.remove()
        calls = NOTES["calls"]
        NOTES.update(on=False, calls=[], handles=[], seen=set(), fail="")
        if path:
            torch.save({"calls": calls, "encoded": NOTES.get("encoded")}, path)
        return {"hooks": _hooks(), "calls": len(calls), "there": bool(path) and os.path.isfile(path)}

    def seed() -> dict[str, int]:
        """Hosts encode a start picture with noise that goes on from the run before: let it begin anew."""
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        return {"seed": 0}

    def fail(where: str) -> dict[str, str]:
        NOTES["fail"] = where
        return {"fail": where}

    app.add_api_route("/witness/start", start, methods=["GET"])
    app.add_api_route("/witness/stop", stop, methods=["GET"])
    app.add_api_route("/witness/seed", seed, methods=["GET"])
    app.add_api_route("/witness/fail", fail, methods=["GET"])


script_callbacks.on_cfg_denoiser(_watch)
script_callbacks.on_app_started(_routes)
