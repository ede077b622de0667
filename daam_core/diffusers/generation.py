"""One recorded picture from a diffusers pipeline, with the settings that the command line and the app share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import BadArgument, DaamLensError, UnsupportedModel, out_of_memory, quoted
from .attention_trace import AttentionTrace
from .call_options import arguments_of, call_options
from .outputs import output_pictures, pictures_of
from .settings import Settings
from .trace import trace

__all__ = ["Settings", "defaults", "generate_recorded"]
_ADVICE = "Leave one out to see which; many models want sizes in multiples of 32."


def defaults(pipe: Any) -> Settings:
    """What a pipeline does when nobody asks for something else: steps, guidance and size."""
    known = arguments_of(pipe)
    unet = getattr(pipe, "unet", None)
    # Pipelines of transformers say it themselves; their models have no size of their own.
    latent = getattr(pipe, "default_sample_size", None) if unet is None else unet.config.sample_size
    factor = getattr(pipe, "vae_scale_factor", None) or getattr(pipe, "vae_scale_factor_spatial", None) or 8
    guidance = known.get("guidance_scale")
    guidance = known.get("true_cfg_scale", 1.0) if guidance is None else guidance
    side = int(latent or 128) * int(factor)
    return Settings(steps=int(known.get("num_inference_steps") or 50), guidance=float(guidance or 1.0), size=(side, side))


def generate_recorded(
    pipe: Any, prompt: str, settings: Settings, on_step: Callable[[int], None] | None = None
) -> tuple[NDArray[np.uint8], AttentionTrace]:
    """The picture as uint8 `[H, W, 3]`, of a video its middle frame, and the recording.

    Args:
        on_step: called with how many steps are done, where the pipeline can tell.

    Raises:
        BadArgument: something was asked for that this pipeline does not take, or refuses.
        UnsupportedModel: it made no picture.
    """
    options = call_options(pipe, settings, on_step)
    concepts = list(settings.concepts) or None
    negative, relations, output = bool(settings.negative), settings.relations, settings.output_space
    recording = trace(
        pipe, keep=settings.detail, negative=negative, concepts=concepts, relations=relations, output_space=output
    )  # fmt: skip
    with recording:
        try:
            output = pipe(prompt=prompt, **options)
        except DaamLensError:
            raise
        except ValueError as error:
            raise BadArgument(f"{type(pipe).__name__} refused these settings: {_shown(settings)}. {_ADVICE}") from error
        except Exception as error:
            if out_of_memory(error):
                raise
            raise UnsupportedModel(
                f"{type(pipe).__name__} stopped while it painted ({type(error).__name__}), with these settings: "
                f"{_shown(settings)}. Where others do not help, its files are damaged or of different models."
            ) from error
    return _one_picture(pipe, output), recording


def _shown(settings: Settings) -> str:
    """What was asked for, in words."""
    named: dict[str, object] = {"steps": settings.steps, "guidance": settings.guidance, "negative": settings.negative or None}
    said = [f"{name} {quoted(value)}" for name, value in named.items() if value is not None]
    if settings.size is not None:
        said.insert(0, f"size {settings.size[0]} x {settings.size[1]}")
    return ", ".join(said) or "its own"


def _one_picture(pipe: Any, output: Any) -> NDArray[np.uint8]:
    found = output_pictures(output)
    if found is None:  # a video: of the first one, frame by frame
        frames = pictures_of(output)
        found = frames[0] if frames is not None and len(frames) else None
        found = found[len(found) // 2 :] if found is not None and len(found) else None
    if found is None or not len(found):
        raise UnsupportedModel(f"{type(pipe).__name__} gave out no picture that can be shown.")
    one = found[0]
    if isinstance(one, Image.Image):
        return np.asarray(one.convert("RGB"))
    values = np.asarray(one if isinstance(one, np.ndarray) else one.detach().float().cpu().permute(1, 2, 0))
    return np.asarray((np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8)[..., :3])
