"""A node for tests: reduced, random models of a family, in place of the loaders of files that nobody has here."""

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


NODE_CLASS_MAPPINGS = {"ReducedModel": ReducedModel}
