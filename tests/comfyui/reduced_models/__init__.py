"""Nodes for tests: reduced, random models of a family, in place of the loaders of files that nobody has here, and a loop."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

INSIDE = Path(__file__).resolve().parents[1] / "inside"
KINDS = ["flux2", "zimage", "krea2", "wan"]


class RandomDecoder:
    """In place of an autoencoder: three fixed mixtures of a latent's channels, 8 pixels (of `shrinks`) for each position."""

    def __init__(self, shrinks: int, frames: int) -> None:
        self._shrinks, self._frames = shrinks, frames

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """`[images, c, (frames,) h, w]` -> `[images, (frames,) H, W, 3]` 0..1; a video's first frame is for one."""
        mix = torch.randn(3, latent.shape[1], generator=torch.Generator().manual_seed(1)) * latent.shape[1] ** -0.5
        x = torch.einsum("kc,bc...->bk...", mix, latent.float().cpu()).sigmoid()
        if x.dim() == 4:
            return F.interpolate(x, scale_factor=self._shrinks).movedim(1, -1)
        x = torch.cat([x[:, :, :1], x[:, :, 1:].repeat_interleave(self._frames, 2)], 2)
        return F.interpolate(x, scale_factor=(1, self._shrinks, self._shrinks)).movedim(1, -1)


class ReducedModel:
    """MODEL, CLIP and VAE of a family."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"kind": (KINDS,)}}

    def load(self, kind: str) -> tuple[Any, Any, Any]:
        if str(INSIDE) not in sys.path:
            sys.path.append(str(INSIDE))
        zoo, encoders = (importlib.import_module(name) for name in ("zoo", "encoders"))
        model = zoo.transformer(kind)
        if model is None:
            raise ValueError(f"This ComfyUI has no {kind}.")
        shrinks = int(getattr(model[0].model.latent_format, "spacial_downscale_ratio", 8))
        return model[0], encoders.text_encoder(kind), RandomDecoder(shrinks, 4)


class RecordedLoop:
    """As loops of other packs: puts nodes into the graph while it runs, a Record of its own before each of two samplers."""

    RETURN_TYPES = ("IMAGE", "MASK", "STRING")
    FUNCTION = "run"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        given = {"model": "MODEL", "clip": "CLIP", "positive": "CONDITIONING", "latent": "LATENT"}
        return {"required": {name: (kind,) for name, kind in given.items()}}

    def run(self, model: Any, clip: Any, positive: Any, latent: Any) -> dict[str, Any]:
        from comfy_execution.graph_utils import GraphBuilder

        graph = GraphBuilder()
        for last_step in (0, 5):
            record = graph.node(
                "DaamLensRecord", model=model, clip=clip, negative=False, detail="off", heads=False, self_attention=True,
                first_step=0, last_step=last_step,
            )  # fmt: skip
            sampled = graph.node(
                "KSampler", model=record.out(0), positive=positive, negative=positive, latent_image=latent, seed=41, steps=2,
                cfg=4.0, sampler_name="euler", scheduler="sgm_uniform", denoise=1.0,
            )  # fmt: skip
            maps = graph.node(
                "DaamLensHeatMaps", latent=sampled.out(0), words="house", opacity=0.5, colour_map="ember", layers="", steps="",
                heads="",
            )  # fmt: skip
        report = graph.node("DaamLensPromptReport", maps=maps.out(0), words="house")
        return {"result": (maps.out(1), maps.out(2), report.out(0)), "expand": graph.finalize()}


NODE_CLASS_MAPPINGS = {"ReducedModel": ReducedModel, "RecordedLoop": RecordedLoop}
