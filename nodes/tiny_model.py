"""Tiny Model: the embedded picture-book models as ComfyUI's own MODEL, CLIP and VAE; no file is downloaded or written."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from safetensors.torch import load_file

from ..daam_core.errors import UnsupportedModel
from ..daam_core.tiny import weight_keys as names
from ..daam_core.tiny.transformer_shape import SHIFT, TOKENS
from .node_inputs import Node

_WEIGHTS = Path(__file__).resolve().parents[1] / "daam_core" / "tiny" / "weights"
_PIPELINE, _TRANSFORMER = _WEIGHTS / "pipeline", _WEIGHTS / "transformer"
_UNET, _JOINT = "unet", "transformer"
_WHOLE = 77  # tokens of CLIP's chunks


class TinyModel(Node):
    """Which of the two models in; MODEL, CLIP and VAE out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensTinyModel",
            display_name="Tiny Model (DAAM Lens)",
            category="DAAM Lens",
            description="The small models inside DAAM Lens: 12 nouns in 7 colours at 128 x 128, in seconds, no download. "
            "Try 'a red house and a green tree' with dpmpp_2m, sgm_uniform, 25 steps, cfg 4.",
            inputs=[
                io.Combo.Input(
                    "kind",
                    options=[_UNET, _JOINT],
                    default=_UNET,
                    optional=True,
                    tooltip="unet: a small Stable Diffusion. transformer: words and picture are one sequence, as in Stable "
                    "Diffusion 3; it was trained little and draws far worse. Sample it with euler, simple. Take model, clip "
                    "and vae of one node.",
                )
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model (v-prediction, or flow of the transformer)."),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder."),
                io.Vae.Output(display_name="vae", tooltip="Its autoencoder."),
            ],
        )

    @classmethod
    def execute(cls, kind: str = _UNET) -> io.NodeOutput:
        """Build all three."""
        if kind == _JOINT:
            if not (_TRANSFORMER / "transformer").is_dir():
                raise UnsupportedModel(f"No transformer lies in {_TRANSFORMER}. A complete checkout has one.")
            return io.NodeOutput(_transformer(), _clip(_TRANSFORMER, TOKENS), _vae())
        return io.NodeOutput(_model(), _clip(_PIPELINE, _WHOLE), _vae())


class _Latents(comfy.latent_formats.LatentFormat):
    """Latents of unit variance, 4 channels, 8 pixels each way; the factors let ComfyUI preview them."""

    scale_factor = 1.0
    latent_channels = 4


def _read(folder: Path, file: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config, {name: tensor.float() for name, tensor in load_file(str(folder / file)).items()}


def _model() -> Any:
    config, state = _read(_PIPELINE / "unet", "diffusion_pytorch_model.safetensors")
    channels, layers = config["block_out_channels"], config["layers_per_block"]
    levels = len(channels)
    host = comfy.supported_models.SD15(
        {
            "image_size": config["sample_size"],
            "in_channels": config["in_channels"],
            "out_channels": config["out_channels"],
            "model_channels": channels[0],
            "num_res_blocks": [layers] * levels,
            "channel_mult": [c // channels[0] for c in channels],
            "transformer_depth": [1] * (levels * layers),
            "transformer_depth_output": [1] * (levels * (layers + 1)),
            "transformer_depth_middle": 1,
            "context_dim": config["cross_attention_dim"],
            "use_spatial_transformer": True,
            "use_linear_in_transformer": False,
            "use_temporal_attention": False,
            "use_temporal_resblock": False,
            "adm_in_channels": None,
            "legacy": False,
        }
    )
    host.latent_format = _Latents()
    # SD 1.5 has 8 heads everywhere; here a head has so many channels everywhere.
    host.unet_config |= {"num_heads": -1, "num_head_channels": channels[0] // config["attention_head_dim"][0]}
    host.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.BaseModel(host, model_type=comfy.model_base.ModelType.V_PREDICTION)
    model.diffusion_model.load_state_dict(names.unet_to_ldm(state, levels, layers))
    return _patcher(model)


def _transformer() -> Any:
    """The host's own class of Stable Diffusion 3; its loader knows none of 4 channels, so the configuration is made here."""
    _, state = _read(_TRANSFORMER / "transformer", "diffusion_pytorch_model.safetensors")
    # It takes names out of what it is given and swaps halves of tensors in place: these are copies of the files' already.
    theirs = comfy.model_detection.convert_diffusers_mmdit(state, "")
    host = comfy.supported_models.SD3(comfy.model_detection.detect_unet_config(theirs, ""))
    host.latent_format = _Latents()
    host.sampling_settings = {"shift": SHIFT}
    host.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.SD3(host)
    model.diffusion_model.load_state_dict(theirs)
    return _patcher(model)


def _patcher(model: Any) -> Any:
    model.eval()
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(
        model, load_device=device, offload_device=comfy.model_management.unet_offload_device()
    )


def _clip(folder: Path, length: int) -> Any:
    """The text encoder of a folder, which reads a prompt in chunks of `length` tokens.

    The host's class adds all positions to every chunk, so an encoder of shorter chunks has the first of them alone.
    """
    config, state = _read(folder / "text_encoder", "model.safetensors")
    config["max_position_embeddings"] = length
    _cut_positions(state, length)
    start, end = config["bos_token_id"], config["eos_token_id"]

    class Encoder(comfy.sd1_clip.SDClipModel):
        """ComfyUI's text encoder of SD 1 at this model's size."""

        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None, **_: Any) -> None:
            super().__init__(
                device=device,
                max_length=length,
                dtype=dtype,
                textmodel_json_config=dict(config),
                special_tokens={"start": start, "end": end, "pad": end},
                return_projected_pooled=False,
                model_options=model_options or {},
            )

    class Both(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
            super().__init__(device=device, dtype=dtype, clip_model=Encoder, model_options=model_options or {})

    class Tokenizer(comfy.sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None, **_: Any) -> None:
            super().__init__(
                str(_PIPELINE / "tokenizer"),
                max_length=length,
                embedding_directory=embedding_directory,
                embedding_size=config["hidden_size"],
                tokenizer_data=tokenizer_data or {},
            )

    class Words(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
            super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=Tokenizer)

    target = SimpleNamespace(params={}, clip=Both, tokenizer=Words)
    host = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
    own = host.cond_stage_model.clip_l.transformer
    theirs = {name.removeprefix("transformer."): tensor for name, tensor in names.text_to_ldm(state).items()}
    key = "text_model.embeddings.token_embedding.weight"
    rows = own.state_dict()[key].shape[0]  # ComfyUI's table has CLIP's size; our tokens are its first rows
    theirs[key] = F.pad(theirs[key], (0, 0, 0, rows - theirs[key].shape[0]))
    own.load_state_dict({name: tensor for name, tensor in theirs.items() if not name.endswith("position_ids")}, strict=False)
    return host


def _cut_positions(state: dict[str, torch.Tensor], length: int) -> None:
    for name in state:
        if name.endswith("position_embedding.weight"):
            state[name] = state[name][:length]


def _vae() -> Any:
    _, state = _read(_PIPELINE / "vae", "diffusion_pytorch_model.safetensors")
    encoder, decoder = names.taesd_parts(state)
    whole = {f"taesd_encoder.{name}": tensor for name, tensor in encoder.items()}
    return comfy.sd.VAE(sd=whole | {f"taesd_decoder.{name}": tensor for name, tensor in decoder.items()})
