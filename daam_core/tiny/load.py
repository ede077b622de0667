"""The models inside as users get them: pipelines with defaults of their own, and the segmenter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from safetensors.torch import load_file

from ..diffusers.model_folder import check_weight_indexes
from ..diffusers.quiet import quiet_libraries
from ..errors import BadArgument, UnsupportedModel, quoted
from ..validate import checked_device
from .package_weights import PIPELINE, SEGMENTER
from .segmenter import Segmenter

with quiet_libraries():  # they warn of packages that are not installed and not needed
    from diffusers import StableDiffusionPipeline

if TYPE_CHECKING:
    from .transformer_pipeline import TinyTransformerPipeline

Kind = Literal["unet", "transformer"]
KINDS: tuple[Kind, ...] = ("unet", "transformer")
WEIGHTS = Path(__file__).parent / "weights"
STEPS = 25
GUIDANCE = 4.5


class TinyPipeline(StableDiffusionPipeline):
    """`StableDiffusionPipeline` that draws 128x128 in 25 steps at guidance 4.5 unless told otherwise."""

    own_defaults: Mapping[str, float] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}

    def __call__(self, prompt: str | list[str] | None = None, *args: Any, **kwargs: Any) -> Any:
        """Draw; every argument of `StableDiffusionPipeline` is understood.

        Positional arguments after the prompt mean what they mean there: height, width, num_inference_steps,
        timesteps, sigmas, guidance_scale.
        """
        if len(args) < 3 and kwargs.get("timesteps") is None and kwargs.get("sigmas") is None:
            kwargs.setdefault("num_inference_steps", self.own_defaults["num_inference_steps"])
        if len(args) < 6:
            kwargs.setdefault("guidance_scale", self.own_defaults["guidance_scale"])
        return super().__call__(prompt, *args, **kwargs)


@overload
def load_tiny(
    kind: Literal["transformer"],
    device: str | torch.device = "cpu",
    weights: str | Path | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> TinyTransformerPipeline: ...
@overload
def load_tiny(
    kind: Literal["unet"] | torch.dtype = "unet",
    device: str | torch.device = "cpu",
    weights: str | Path | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> TinyPipeline: ...
def load_tiny(
    kind: Kind | torch.dtype = "unet",
    device: str | torch.device = "cpu",
    weights: str | Path | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> TinyPipeline | TinyTransformerPipeline:
    """An embedded picture-book model: 128x128 pictures, latents [4, 16, 16], 12 nouns in 7 colours.

    `kind` is `"unet"`, a Stable Diffusion, or `"transformer"`, in which words and picture are one sequence as in Stable
    Diffusion 3; a `torch.dtype` in its place is the UNet in that dtype. `dtype` is float32 by default: the files are float16,
    which a CPU computes slowly. `weights` is a folder that `daam-lens tiny train` assembled, instead of the one in the package.

    Raises:
        UnsupportedModel: no model lies there.
        BadArgument: there is no such kind, or no such device.

    Example:
        >>> pipe = load_tiny()
        >>> pipe.unet.config.sample_size, pipe.vae_scale_factor
        (16, 8)
    """
    if isinstance(kind, torch.dtype):
        return load_tiny("unet", device, weights, dtype=kind)
    if kind not in KINDS:
        raise BadArgument(f"There is no model {quoted(kind)} inside; there are {', '.join(KINDS)}.")
    if isinstance(device, str):
        checked_device(device)
    folder = Path(weights or WEIGHTS) / PIPELINE
    if not (folder / "model_index.json").is_file():
        raise UnsupportedModel(f"No model lies in {folder}. A complete checkout has one; 'daam-lens tiny train' makes one.")
    check_weight_indexes(folder)
    with quiet_libraries():
        pipe: TinyPipeline = TinyPipeline.from_pretrained(
            folder, safety_checker=None, local_files_only=True, use_safetensors=True
        )
        _load_text_encoder(pipe.text_encoder, folder / "text_encoder" / "model.safetensors")
        chosen = pipe if kind == "unet" else _transformer(pipe, Path(weights or WEIGHTS))
        # Exact: every part is stored in float16. (The argument for it in from_pretrained has changed its name.)
        return chosen.to(device, dtype)


def _transformer(shared: TinyPipeline, weights: Path) -> TinyTransformerPipeline:
    """The transformer's pipeline, with tokenizer and autoencoder of the UNet's."""
    from .transformer_pipeline import FOLDER, assemble_transformer, load_parts

    folder = weights / FOLDER
    if not (folder / "transformer" / "config.json").is_file():
        raise UnsupportedModel(f"No transformer lies in {folder}. 'daam-lens tiny train-transformer' makes one.")
    model, scheduler, encoder = load_parts(folder)
    _load_text_encoder(encoder, folder / "text_encoder" / "model.safetensors")
    pipe = assemble_transformer(model.eval(), encoder.eval(), shared.tokenizer, shared.vae)
    pipe.scheduler = scheduler
    return pipe


def _load_text_encoder(encoder: torch.nn.Module, path: Path) -> None:
    """The text encoder's weights under the names of the transformers that is installed: 4 has a prefix that 5 has not.

    `from_pretrained` only warns of names that it does not find, and leaves random numbers where they belong.
    """
    prefix = "text_model."
    wanted = encoder.state_dict().keys()
    bare = any(not name.startswith(prefix) for name in wanted)
    state = {name.removeprefix(prefix): x for name, x in load_file(str(path)).items()}
    found = encoder.load_state_dict({name if bare else prefix + name: x for name, x in state.items()}, strict=False)
    if missing := [name for name in found.missing_keys if not name.endswith("position_ids")]:
        raise UnsupportedModel(f"The text encoder of the model inside cannot be loaded by this transformers: no {missing[0]}.")


def load_segmenter(device: str | torch.device = "cpu", weights: Path | None = None) -> Segmenter:
    """The judge of generated pictures, float32, ready to `find`."""
    path = (weights or WEIGHTS) / SEGMENTER
    if not path.is_file():
        raise UnsupportedModel(f"No segmenter lies at {path}. 'daam-lens tiny train' makes one.")
    net = Segmenter()
    # BatchNorm counts its batches in int64, which must stay so.
    net.load_state_dict({k: t.float() if t.is_floating_point() else t for k, t in load_file(str(path)).items()})
    return net.eval().requires_grad_(False).to(device)
