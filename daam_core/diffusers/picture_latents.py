"""A picture as the clean latent that a pipeline starts from, in the pipeline's own layout, and the proof that it is that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import UnsupportedModel
from ..types import Image


def raw_latent(pipe: Any, picture: Image) -> Tensor:
    """What the pipeline's autoencoder makes of a picture: `[1, c, h, w]`, or `[1, c, 1, h, w]` where it is one of videos.

    Args:
        picture: uint8 `[H, W, 3]`, sides multiples of what the model takes.

    Raises:
        UnsupportedModel: the pipeline has no autoencoder that encodes.
    """
    vae = getattr(pipe, "vae", None)
    if vae is None or not callable(getattr(vae, "encode", None)):
        raise UnsupportedModel(f"{type(pipe).__name__} has no autoencoder that encodes, so it cannot read a picture.")
    weight = next(vae.parameters())
    # SDXL's own autoencoder overflows in half precision, and says so.
    dtype = torch.float32 if weight.dtype == torch.float16 and vae.config.get("force_upcast") else weight.dtype
    device = getattr(pipe, "_execution_device", weight.device)
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].to(device, dtype) / 127.5 - 1
    if any(isinstance(module, torch.nn.Conv3d) for module in vae.modules()):
        pixels = pixels[:, :, None]
    before = weight.dtype
    try:
        if dtype != before:
            vae.to(dtype)
        coded = vae.encode(pixels)
    finally:
        if dtype != before:
            vae.to(before)
    for name in ("latents", "latent"):
        if isinstance(getattr(coded, name, None), Tensor):
            return getattr(coded, name)  # type: ignore[no-any-return]
    distribution = getattr(coded, "latent_dist", None)
    if distribution is None:
        raise UnsupportedModel(f"{type(vae).__name__} encodes to {type(coded).__name__}, which is not known here.")
    latent: Tensor = distribution.mode()
    return latent


def normalized(pipe: Any, raw: Tensor) -> Tensor:
    """The latent as the model knows it: (z - mean) * scale / deviation, by the numbers in the autoencoder's configuration.

    Flux.2's autoencoder keeps mean and deviation of patches in a layer of its own.
    """
    vae, config = pipe.vae, pipe.vae.config
    if hasattr(vae, "bn") and hasattr(pipe, "_patchify_latents"):
        patches: Tensor = pipe._patchify_latents(raw)
        mean, variance = (x.view(1, -1, 1, 1).to(patches) for x in (vae.bn.running_mean, vae.bn.running_var))
        return (patches - mean) / torch.sqrt(variance + vae.config.batch_norm_eps)
    shape = (1, -1, *(1 for _ in raw.shape[2:]))

    def channels(name: str, otherwise: float) -> Tensor:
        values = config.get(name)
        return torch.as_tensor(otherwise if values is None else values, dtype=torch.float32, device=raw.device).view(
            shape if values is not None else ()
        )

    shift = config.get("shift_factor")
    mean, deviation = channels("latents_mean", 0.0 if shift is None else float(shift)), channels("latents_std", 1.0)
    scale = config.get("scaling_factor")
    return (raw.float() - mean) * (1.0 if scale is None else float(scale)) / deviation


class GivenLatent(TorchFunctionMode):
    """Inside the block, the first noise of a latent's shape that this thread draws is that latent.

    A pipeline packs its first noise into the model's own layout, each in its own way; so it packs a latent.

    Attributes:
        seen: the shape that was drawn, empty until then.
        given: whether the latent took the noise's place.
    """

    def __init__(self, latent: Tensor) -> None:
        super().__init__()
        self._latent = latent
        self.seen: tuple[int, ...] = ()
        self.given = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.randn or self.given:
            return func(*args, **kwargs)
        shape = kwargs.get("size") or (args if args and isinstance(args[0], int) else args[0])
        self.seen = tuple(int(side) for side in shape)
        fitting = next((x for x in self._forms() if tuple(x.shape) == self.seen), None)
        if fitting is None:
            return func(*args, **kwargs)
        self.given = True
        return fitting.to(kwargs.get("device") or fitting.device, kwargs.get("dtype") or fitting.dtype)

    def _forms(self) -> list[Tensor]:
        """The latent, and where it has an axis of frames also without it, or with it before the channels."""
        latent = self._latent
        if latent.dim() == 4:
            return [latent, latent[:, :, None], latent[:, None]]
        return [latent, latent.transpose(1, 2), latent[:, :, 0]]


class DecodedProbe:
    """Takes the place of an autoencoder's `decode` for one call of a pipeline: keeps what it is given and decodes nothing.

    Attributes:
        given: the latent that the pipeline would have decoded, None until then.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self.given: Tensor | None = None

    def __call__(self, z: Tensor, *_: Any, return_dict: bool = True, **__: Any) -> Any:
        self.given = z
        frames = (1,) if z.dim() == 5 else ()
        picture = z.new_zeros((z.shape[0], 3, *frames, *self._size))
        return SimpleNamespace(sample=picture) if return_dict else (picture,)

    def matches(self, raw: Tensor) -> bool:
        """Whether the pipeline came back to the latent that the autoencoder had made of the picture."""
        back = self.given
        if back is None or back.shape != raw.shape:
            return False
        back, raw = back.detach().float(), raw.detach().float().to(back.device)
        # Half precision loses some thousandths on the way there and back.
        return bool((back - raw).abs().max() <= 0.02 * raw.std().clamp_min(1e-3) + 0.02 * raw.abs().max())
