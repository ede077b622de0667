"""The smallest honest models of every family, built from the host's own classes with random weights."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import torch

PROMPT = "a red house and a green tree"
_UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": [1, 2], "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1, "context_dim": 64, "use_spatial_transformer": True, "use_linear_in_transformer": False,
    "adm_in_channels": None, "legacy": False, "use_temporal_attention": False, "use_temporal_resblock": False,
}  # fmt: skip
_CLIP = {
    "num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128,
    "hidden_act": "quick_gelu", "max_position_embeddings": 77, "eos_token_id": 49407, "num_positions": 77,
    "projection_dim": 64, "vocab_size": 49408, "layer_norm_eps": 1e-5, "dropout": 0.0,
}  # fmt: skip


def _filled(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Random weights; queries and keys are spread, so that maps differ between tokens and a wrong column shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        if weight.dim() > 1:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.6 * weight[0].numel() ** -0.5
            if "attn2.to_q" in name or "attn2.to_k" in name:
                weight.data *= 4
        elif "norm" in name and name.endswith(("weight", "scale")):
            weight.data = torch.ones(weight.shape)
        else:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.02
    for name, table in module.named_buffers():  # tables that checkpoints bring: of positions, SeedVR2's texts
        if table.is_floating_point() and ("pos_embed" in name or name.endswith("_conditioning")):
            table.copy_(torch.randn(table.shape, generator=generator) * 0.1)
    return module.eval().requires_grad_(False)


def _patcher(model: Any, seed: int = 0) -> Any:
    _filled(model.diffusion_model, seed)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


@cache
def unet(kind: str) -> Any:
    """MODEL of "sd15", "sd15_inpaint" (nine channels), "sd15_level" (one level, for what takes long to compile), "sd2"
    (v-prediction), "sdxl", or "sdxl_whole": all of SDXL's 70 layers at its resolutions, with few channels."""
    with torch.inference_mode(False):
        settings = dict(_UNET)
        models = comfy.supported_models
        family = {"sd2": models.SD20}.get(kind, models.SDXL if kind.startswith("sdxl") else models.SD15)
        if kind == "sd15_level":
            settings |= {
                "num_res_blocks": [1],
                "channel_mult": [1],
                "transformer_depth": [1],
                "transformer_depth_output": [1, 1],
            }
        if kind == "sdxl_whole":
            settings |= {"num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
                         "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10,
                         "adm_in_channels": 64 + 6 * 256, "context_dim": 128, "num_classes": "sequential"}  # fmt: skip
        if kind == "sdxl":
            settings |= {"transformer_depth": [0, 2], "transformer_depth_output": [0, 0, 2, 2], "transformer_depth_middle": 2,
                         "adm_in_channels": 64 + 6 * 256, "context_dim": 128, "num_classes": "sequential"}  # fmt: skip
        settings["use_linear_in_transformer"] = not kind.startswith("sd15")
        settings["in_channels"] = 9 if kind == "sd15_inpaint" else 4
        host = family(settings)
        host.unet_config |= {"num_heads": -1, "num_head_channels": 16}
        host.set_inference_dtype(torch.float32, None)
        if kind.startswith("sdxl"):
            return _patcher(comfy.model_base.SDXL(host, comfy.model_base.ModelType.EPS))
        kinds = comfy.model_base.ModelType
        made = comfy.model_base.BaseModel(host, kinds.V_PREDICTION if kind == "sd2" else kinds.EPS)
        if kind == "sd15_inpaint":
            made.set_inpaint()
        return _patcher(made)


@cache
def clip(kind: str) -> Any:
    """CLIP that fits `unet(kind)`, with the host's real SD1 tokenizer."""
    with torch.inference_mode(False):
        options = {"clip_l_model_config": _CLIP, "clip_g_model_config": dict(_CLIP), "dtype": torch.float32}
        if kind.startswith("sdxl"):
            target = SimpleNamespace(params={}, clip=comfy.sdxl_clip.SDXLClipModel, tokenizer=comfy.sdxl_clip.SDXLTokenizer)
        else:
            target = SimpleNamespace(params={}, clip=comfy.sd1_clip.SD1ClipModel, tokenizer=comfy.sd1_clip.SD1Tokenizer)
        made = comfy.sd.CLIP(target, model_options=options)
        generator = torch.Generator().manual_seed(7)
        for weight in made.cond_stage_model.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * (0.5 if weight.dim() > 1 else 0.1)
        return made


def empty(height: int, width: int, images: int = 1, channels: int = 4) -> dict[str, torch.Tensor]:
    """An empty LATENT of a picture of that many pixels."""
    return {"samples": torch.zeros(images, channels, height // 8, width // 8)}


# -- transformers ---------------------------------------------------------------------------------------------------

TEXT = 24
"""Text columns of the random contexts that transformers get."""


@cache
def transformer(kind: str) -> Any:
    """(MODEL, latent channels, context width, pooled width), or None where this ComfyUI does not have the family."""
    with torch.inference_mode(False):
        return globals()[f"_{kind}"]()


def _host(family: Any, settings: dict[str, Any]) -> Any:
    host = family(settings)
    host.set_inference_dtype(torch.float32, None)
    return host


def _sd3(width: int = 48) -> Any:
    embedder = {"target": "torch.nn.Linear", "params": {"in_features": width, "out_features": 128}}
    settings = {
        "input_size": None, "patch_size": 2, "in_channels": 16, "depth": 2, "adm_in_channels": 40, "pos_embed_max_size": 32,
        "num_patches": 32 * 32, "context_embedder_config": embedder, "pos_embed_scaling_factor": None, "qk_norm": "rms",
    }  # fmt: skip
    return _patcher(comfy.model_base.SD3(_host(comfy.supported_models.SD3, settings))), 16, width, 40


def _sd3_wide() -> Any:
    """SD3 for ComfyUI's own text encoder, which pads to 4096."""
    return _sd3(4096)


def _flux() -> Any:
    settings = {
        "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 40, "context_in_dim": 48, "hidden_size": 64,
        "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000,
        "patch_size": 2, "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": [],
    }  # fmt: skip
    host = _host(comfy.supported_models.Flux, _known("flux.model", "FluxParams", settings))
    return _patcher(comfy.model_base.Flux(host)), 16, 48, 40


def _chroma() -> Any:
    settings = {
        "image_model": "chroma", "in_channels": 64, "out_channels": 64, "context_in_dim": 48, "hidden_size": 64,
        "vec_in_dim": 0, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 2, "axes_dim": [8, 12, 12],
        "theta": 10000,
        "patch_size": 2, "qkv_bias": True, "in_dim": 64, "out_dim": 64, "hidden_dim": 64, "n_layers": 1, "txt_ids_dims": [],
    }  # fmt: skip
    host = _host(comfy.supported_models.Chroma, _known("chroma.model", "ChromaParams", settings))
    return _patcher(comfy.model_base.Chroma(host)), 16, 48, 40


def _qwen() -> Any:
    settings = {
        "image_model": "qwen_image", "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 2,
        "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": 48, "axes_dims_rope": [8, 12, 12],
    }  # fmt: skip
    return _patcher(comfy.model_base.QwenImage(_host(comfy.supported_models.QwenImage, settings))), 16, 48, 0


def _next(**more: Any) -> Any:
    settings = {
        "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 64, "n_layers": 2, "n_refiner_layers": 1,
        "n_heads": 2, "n_kv_heads": 1, "cap_feat_dim": 48, "axes_dims": [8, 12, 12], "axes_lens": [300, 512, 512],
        "qk_norm": True, **more,
    }  # fmt: skip
    return _patcher(comfy.model_base.Lumina2(_host(comfy.supported_models.Lumina2, settings))), 16, 48, 0


def _lumina2() -> Any:
    return _next()


def _zimage() -> Any:
    if not hasattr(comfy.supported_models, "ZImage"):
        return None
    return _next(dim=256, n_heads=8, n_kv_heads=8, pad_tokens_multiple=32, z_image_modulation=True, time_scale=1000.0)


def _wan() -> Any:
    settings = {
        "image_model": "wan2.1", "model_type": "t2v", "dim": 64, "ffn_dim": 128, "num_heads": 2, "num_layers": 2,
        "text_dim": 48, "text_len": TEXT, "freq_dim": 32, "in_dim": 16, "out_dim": 16, "patch_size": (1, 2, 2), "eps": 1e-6,
    }  # fmt: skip
    return _patcher(comfy.model_base.WAN21(_host(comfy.supported_models.WAN21_T2V, settings))), 16, 48, 0


def _flux2() -> Any:
    """klein, whose text is that of three layers of Qwen, side by side."""
    if not hasattr(comfy.supported_models, "Flux2"):
        return None
    settings = {
        "image_model": "flux2", "in_channels": 128, "out_channels": 128, "vec_in_dim": None, "context_in_dim": 3 * 48,
        "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 2, "axes_dim": [8, 8, 8, 8],
        "theta": 2000, "patch_size": 1, "qkv_bias": False, "ops_bias": False, "guidance_embed": False, "txt_ids_dims": [3],
        "global_modulation": True, "mlp_silu_act": True, "default_ref_method": "index", "ref_index_scale": 10.0,
    }  # fmt: skip
    host = _host(comfy.supported_models.Flux2, _known("flux.model", "FluxParams", settings))
    return _patcher(comfy.model_base.Flux2(host)), 128, 144, 0


def _krea2() -> Any:
    """Its text is that of twelve layers of Qwen."""
    if not hasattr(comfy.supported_models, "Krea2"):
        return None
    settings = {
        "image_model": "krea2", "features": 64, "tdim": 32, "txtdim": 48, "heads": 2, "kvheads": 1, "multiplier": 2,
        "layers": 2, "channels": 16, "txtlayers": 12, "txtheads": 2, "txtkvheads": 2,
    }  # fmt: skip
    return _patcher(comfy.model_base.Krea2(_host(comfy.supported_models.Krea2, settings))), 16, 12 * 48, 0


def _known(module: str, params: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that this version's parameter class has."""
    import dataclasses
    import importlib

    names = {f.name for f in dataclasses.fields(getattr(importlib.import_module(f"comfy.ldm.{module}"), params))}
    return {name: value for name, value in settings.items() if name in names or name == "image_model"}
