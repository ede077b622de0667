"""Files of the embedded model for other programs.

    daam-lens-tiny.safetensors   single file with LDM names (ComfyUI, WebUIs)
    daam-lens-tiny.yaml          its configuration
    taesd_encoder.safetensors, taesd_decoder.safetensors    autoencoder for ComfyUI (models/vae_approx)
    taesd_encoder.pth, taesd_decoder.pth                    the same for the WebUI (models/VAE-taesd)
    clip/                        text encoder configuration and tokenizer

The autoencoder is not inside the single file: no host has a class for it there, all of them read TAESD files.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors.torch import save_file

from ..errors import BadArgument, CannotWrite
from . import weight_keys as names
from .diffusion import BETA_END, BETA_START, TRAINING_STEPS
from .tokenizer import build_tokenizer

NAME = "daam-lens-tiny"


def export(folder: Path, vocab: Path | None = None, pipe: StableDiffusionPipeline | None = None) -> list[Path]:
    """Write the files above into `folder` and return their paths.

    `vocab` is the host's own CLIP `vocab.json`: the token embedding is then re-indexed to it, so that the host's
    stock tokenizer works. Without it the host must use the tokenizer in `clip/`. `pipe` is another pipeline of
    the same shape instead of the embedded one.
    """
    theirs = read_vocab(vocab) if vocab else None
    if pipe is None:
        from .load import load_tiny

        pipe = load_tiny(torch.float16)
    if not isinstance(pipe.vae, AutoencoderTiny):
        raise BadArgument(f"Hosts read the autoencoder as TAESD files; this pipeline has an {type(pipe.vae).__name__} instead.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{NAME}.safetensors", folder / f"{NAME}.yaml", *_write_autoencoder(folder, pipe)]
        save_file(checkpoint_state(pipe, theirs), str(paths[0]), {"format": "pt"})
        paths.append(_write_clip(folder, pipe, theirs))
        paths[1].write_text(yaml_text(pipe, paths[-1]), encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"The folder {folder} cannot be written: {error.strerror or error}.") from error
    return paths


def read_vocab(path: Path) -> dict[str, int]:
    """A CLIP `vocab.json`: token -> row."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadArgument(f"The vocabulary {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise BadArgument(f"The vocabulary {path} is not JSON.") from error
    if not isinstance(table, dict) or "<|endoftext|>" not in table:
        raise BadArgument(f"{path} is not a CLIP vocabulary: it has no <|endoftext|>.")
    return {str(token): int(row) for token, row in table.items()}


def checkpoint_state(pipe: StableDiffusionPipeline, theirs: dict[str, int] | None = None) -> names.State:
    """UNet and text encoder under LDM's names, float16."""
    config = pipe.unet.config
    unet = names.unet_to_ldm(pipe.unet.state_dict(), len(config.block_out_channels), config.layers_per_block)
    text = names.text_to_ldm(pipe.text_encoder.state_dict())
    key = "transformer.text_model.embeddings.token_embedding.weight"
    if theirs is not None:
        text[key] = names.reindex(text[key].float(), pipe.tokenizer.get_vocab(), theirs)
    state = {f"model.diffusion_model.{k}": t for k, t in unet.items()}
    state |= {f"cond_stage_model.{k}": t for k, t in text.items() if not k.endswith("position_ids")}
    return {k: t.detach().half().contiguous().clone() for k, t in state.items()}


def yaml_text(pipe: StableDiffusionPipeline, clip: Path) -> str:
    """The LDM configuration of the exported checkpoint.

    The first stage in it is a placeholder of the right shape: the picture is decoded by the TAESD files.
    """
    unet = pipe.unet.config
    channels = unet.block_out_channels
    head = channels[0] // unet.attention_head_dim[0]
    return f"""\
model:
  base_learning_rate: 1.0e-04
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    parameterization: "v"
    linear_start: {BETA_START}
    linear_end: {BETA_END}
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: {TRAINING_STEPS}
    first_stage_key: "jpg"
    cond_stage_key: "txt"
    image_size: {unet.sample_size}
    channels: {unet.in_channels}
    cond_stage_trainable: false
    conditioning_key: crossattn
    monitor: val/loss_simple_ema
    scale_factor: {float(pipe.vae.config.scaling_factor)}
    use_ema: false
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: {unet.sample_size}
        in_channels: {unet.in_channels}
        out_channels: {unet.out_channels}
        model_channels: {channels[0]}
        attention_resolutions: {[2**k for k in reversed(range(len(channels)))]}
        num_res_blocks: {unet.layers_per_block}
        channel_mult: {[c // channels[0] for c in channels]}
        num_head_channels: {head}
        use_spatial_transformer: true
        transformer_depth: 1
        context_dim: {unet.cross_attention_dim}
        use_checkpoint: false
        legacy: false
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        monitor: val/rec_loss
        ddconfig:
          double_z: true
          z_channels: 4
          resolution: 128
          in_channels: 3
          out_ch: 3
          ch: 32
          ch_mult: [1, 1, 1, 1]
          num_res_blocks: 1
          attn_resolutions: []
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
      params:
        version: {json.dumps(str(clip.resolve()))}
"""


def _write_autoencoder(folder: Path, pipe: StableDiffusionPipeline) -> list[Path]:
    paths: list[Path] = []
    encoder, decoder = names.taesd_parts(pipe.vae.state_dict())
    for name, state in (("taesd_encoder", encoder), ("taesd_decoder", decoder)):
        plain = {k: t.detach().float().contiguous().clone() for k, t in state.items()}
        save_file(plain, str(folder / f"{name}.safetensors"), {"format": "pt"})
        # The WebUI refuses names that newer releases of PyTorch put into a zip; the older form has none.
        torch.save(plain, folder / f"{name}.pth", _use_new_zipfile_serialization=False)
        paths += [folder / f"{name}.safetensors", folder / f"{name}.pth"]
    return paths


def _write_clip(folder: Path, pipe: StableDiffusionPipeline, theirs: dict[str, int] | None) -> Path:
    clip = folder / "clip"
    if theirs is None:
        build_tokenizer(clip)
    config = pipe.text_encoder.config.to_dict()
    if theirs is not None:
        config["vocab_size"] = max(theirs.values()) + 1
        config["bos_token_id"] = theirs["<|startoftext|>"]
        config["eos_token_id"] = config["pad_token_id"] = theirs["<|endoftext|>"]
    clip.mkdir(exist_ok=True)
    (clip / "config.json").write_text(json.dumps(config, indent=1, default=str), encoding="utf-8")
    return clip
