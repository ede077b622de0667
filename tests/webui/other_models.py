"""Small models of other kinds for hosts that read configs: Stable Diffusion XL, Stable Diffusion 2, a hypernetwork."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from daam_core.tiny.export import export

from .checkpoints import ldm_config, text_config, tokenizer_files
from .ldm_weights import Shapes, Sizes, clip_shapes, random_weights, strided_weights, unet_shapes, vae_shapes

XL_VECTOR = 3 * 2 * 256
"""Width of Stable Diffusion XL's numbers for original size, crop and target size."""
V2_WIDTH, V2_LAYERS = 512, 12
"""Of the text encoder of open_clip's smallest model, RN50."""


def xl_checkpoint(folder: Path, name: str = "xl", seed: int = 2) -> Path:
    """Two text encoders side by side, linear projections, a vector of sizes: the layout of Stable Diffusion XL."""
    clip = folder / "clip"
    one = Sizes(vocabulary=tokenizer_files(clip))
    (clip / "config.json").write_text(json.dumps(text_config(one)), encoding="utf-8")
    sizes = Sizes(vocabulary=one.vocabulary, context=2 * one.context, linear=True, vector=XL_VECTOR)
    shapes = {f"model.diffusion_model.{k}": v for k, v in unet_shapes(sizes).items()}
    shapes |= {f"first_stage_model.{k}": v for k, v in vae_shapes(sizes.vae, sizes.vae_blocks).items()}
    for number in (0, 1):
        at = f"conditioner.embedders.{number}.transformer.text_model"
        shapes |= {f"{at}.{k}": v for k, v in clip_shapes(one).items()}
    return _written(folder, name, random_weights(shapes, seed), _xl_config(sizes, clip))


def v2_checkpoint(folder: Path, name: str = "v2", seed: int = 3) -> Path:
    """Stable Diffusion 2's text encoder (open_clip, the real vocabulary) and its v-prediction."""
    sizes = Sizes(context=V2_WIDTH)
    shapes = {f"model.diffusion_model.{k}": v for k, v in unet_shapes(sizes).items()}
    shapes |= {f"first_stage_model.{k}": v for k, v in vae_shapes(sizes.vae, sizes.vae_blocks).items()}
    shapes |= {f"cond_stage_model.model.{k}": v for k, v in _open_clip_shapes(V2_WIDTH, V2_LAYERS, 1024).items()}
    weights = {k: x.half() for k, x in random_weights(shapes, seed).items()}
    config = ldm_config(sizes, folder)
    params: Any = config["model"]
    params["params"] |= {
        "parameterization": "v",
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder",
            "params": {"arch": "RN50", "version": "", "freeze": True, "layer": "penultimate"},
        },
    }
    return _written(folder, name, weights, config)


def full_shape_others(folder: Path, whole_depth: bool = False) -> None:
    """Stable Diffusion XL and 2 for hosts that know a model by its shapes, a few MB on disk: text encoders and autoencoder are
    whole; the UNets have few levels of the least width, and XL's blocks stand as in KOALA, the smallest XL they know.

    Args:
        whole_depth: as many levels and blocks as the real ones have, all of the least width (0.25 billion weights in memory).
    """
    vae = {f"first_stage_model.{k}": v for k, v in vae_shapes((128, 256, 512, 512), 2).items()}
    large = Sizes(context=768, text_layers=12, vocabulary=49408)
    xl = Sizes(channels=320, levels=(1, 1, 1), depths=(0, 2, 5), context=2048, linear=True, vector=2816)
    v2 = Sizes(channels=320, levels=(1, 1), context=1024, linear=True)
    if whole_depth:
        xl, v2 = replace(xl, blocks=2, depths=(0, 2, 10)), replace(v2, blocks=2, levels=(1, 1, 1, 1))
    first = {f"conditioner.embedders.0.transformer.text_model.{k}": v for k, v in clip_shapes(large).items()}
    second = {f"conditioner.embedders.1.model.{k}": v for k, v in _open_clip_shapes(1280, 32, 1280).items()}
    text = {f"cond_stage_model.model.{k}": v for k, v in _open_clip_shapes(1024, 24, 1024).items()}
    for seed, (name, sizes, texts) in enumerate([("xl", xl, {**first, **second}), ("v2", v2, text)], 2):
        unet = {f"model.diffusion_model.{k}": v for k, v in unet_shapes(sizes).items()}
        torch.save({"state_dict": strided_weights({**unet, **vae, **texts}, seed)}, folder / f"{name}.ckpt")


def controlnet(folder: Path, name: str = "control", seed: int = 8) -> Path:
    """A ControlNet beside `checkpoints.full_shape_checkpoint`, as ldm's code base names its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = Sizes(channels=320, levels=(1, 1), context=768)
    halves = ("time_embed", "input_blocks", "middle_block")
    shapes = {k: v for k, v in unet_shapes(sizes).items() if k.startswith(halves)}
    blocks = {k.split(".")[1] for k in shapes if k.startswith("input_blocks")}
    for at in (*(f"zero_convs.{i}.0" for i in range(len(blocks))), "middle_block_out.0"):
        shapes |= {f"{at}.weight": (320, 320, 1, 1), f"{at}.bias": (320,)}
    for number, (into, out) in enumerate(pairwise((3, 16, 16, 32, 32, 96, 96, 256, 320))):
        at = f"input_hint_block.{2 * number}"
        shapes |= {f"{at}.weight": (out, into, 3, 3), f"{at}.bias": (out,)}
    path = folder / f"{name}.safetensors"
    save_file({k: x.half() for k, x in random_weights(shapes, seed).items()}, path)
    return path


def hypernetwork(folder: Path, width: int, name: str = "bend", seed: int = 6) -> Path:
    """Two layers on keys and two on values of contexts of this width, in the format that AUTOMATIC1111 trains."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes: Shapes = {"linear.0.weight": (2 * width, width), "linear.0.bias": (2 * width,)}
    shapes |= {"linear.1.weight": (width, 2 * width), "linear.1.bias": (width,)}
    keys, values = (random_weights(shapes, seed + n) for n in (0, 1))
    about: dict[Any, Any] = {
        "step": 1,
        "name": name,
        "layer_structure": [1, 2, 1],
        "activation_func": "linear",
        "is_layer_norm": False,
    }
    # The older form: the host refuses names that newer releases of PyTorch put into a zip.
    torch.save({width: (keys, values), **about}, folder / f"{name}.pt", _use_new_zipfile_serialization=False)
    return folder / f"{name}.pt"


def model_inside(data: Path) -> None:
    """The trained model inside DAAM Lens, as `daam-lens tiny export` writes it, where a host of this data folder looks."""
    for path in export(data / "models" / "Stable-diffusion" / "inside"):  # its `clip` is not that of the others
        if path.suffix == ".pth":
            (data / "models" / "VAE-taesd").mkdir(exist_ok=True)
            path.rename(data / "models" / "VAE-taesd" / path.name)
        elif path.name.startswith("taesd"):
            path.unlink()  # ComfyUI's; here it would be listed as a checkpoint


def _written(folder: Path, name: str, weights: dict[str, Tensor], config: object) -> Path:
    path = folder / f"{name}.safetensors"
    save_file(weights, path)
    path.with_suffix(".yaml").write_text(json.dumps(config), encoding="utf-8")
    return path


def _xl_config(sizes: Sizes, clip: Path) -> object:
    sgm = "sgm.modules"
    like: Any = ldm_config(sizes, clip)["model"]
    unet = dict(like["params"]["unet_config"]["params"])
    del unet["image_size"]
    unet |= {"adm_in_channels": XL_VECTOR, "num_classes": "sequential", "use_linear_in_transformer": True}
    unet |= {"transformer_depth": [1] * len(sizes.levels), "spatial_transformer_attn_type": "softmax"}
    first = {"embed_dim": 4, "monitor": "val/rec_loss", "lossconfig": {"target": "torch.nn.Identity"}}
    first["ddconfig"] = {**like["params"]["first_stage_config"]["params"]["ddconfig"], "attn_type": "vanilla"}
    text = {
        "is_trainable": False, "input_key": "txt", "target": f"{sgm}.encoders.modules.FrozenCLIPEmbedder",
        "params": {"version": str(clip), "device": "cpu", "layer": "hidden", "layer_idx": 1},
    }  # fmt: skip
    numbers = [
        {"is_trainable": False, "input_key": key, "target": f"{sgm}.encoders.modules.ConcatTimestepEmbedderND",
         "params": {"outdim": 256}}
        for key in ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
    ]  # fmt: skip
    denoiser = {
        "num_idx": 1000,
        "weighting_config": {"target": f"{sgm}.diffusionmodules.denoiser_weighting.EpsWeighting"},
        "scaling_config": {"target": f"{sgm}.diffusionmodules.denoiser_scaling.EpsScaling"},
        "discretization_config": {"target": f"{sgm}.diffusionmodules.discretizer.LegacyDDPMDiscretization"},
    }
    params = {
        "scale_factor": 0.13025, "disable_first_stage_autocast": True,
        "denoiser_config": {"target": f"{sgm}.diffusionmodules.denoiser.DiscreteDenoiser", "params": denoiser},
        "network_config": {"target": f"{sgm}.diffusionmodules.openaimodel.UNetModel", "params": unet},
        "conditioner_config": {"target": f"{sgm}.GeneralConditioner", "params": {"emb_models": [text, text, *numbers]}},
        "first_stage_config": {"target": "sgm.models.autoencoder.AutoencoderKLInferenceWrapper", "params": first},
    }  # fmt: skip
    return {"model": {"target": "sgm.models.diffusion.DiffusionEngine", "params": params}}


def _open_clip_shapes(d: int, layers: int, out: int) -> Shapes:
    shapes: Shapes = {
        "token_embedding.weight": (49408, d), "positional_embedding": (77, d), "text_projection": (d, out),
        "logit_scale": (), "ln_final.weight": (d,), "ln_final.bias": (d,),
    }  # fmt: skip
    for layer in range(layers):
        at = f"transformer.resblocks.{layer}"
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{at}.{norm}.weight": (d,), f"{at}.{norm}.bias": (d,)}
        shapes |= {f"{at}.attn.in_proj_weight": (3 * d, d), f"{at}.attn.in_proj_bias": (3 * d,)}
        shapes |= {f"{at}.attn.out_proj.weight": (d, d), f"{at}.attn.out_proj.bias": (d,)}
        shapes |= {f"{at}.mlp.c_fc.weight": (4 * d, d), f"{at}.mlp.c_fc.bias": (4 * d,)}
        shapes |= {f"{at}.mlp.c_proj.weight": (d, 4 * d), f"{at}.mlp.c_proj.bias": (d,)}
    return shapes
