"""Forge Neo's own transformers, text encoders and autoencoders, as small as they run, with random weights and true tokenizers.

Runs in the host's interpreter; nothing of `daam_core` is used.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import backend.huggingface
import torch
import transformers
from backend.diffusion_engine import anima, chroma, ernie, flux, flux2, krea, lumina, qwen, wan, zimage
from backend.nn import anima as anima_net
from backend.nn import chroma as chroma_net
from backend.nn import clip, t5, vae, wan_vae
from backend.nn import ernie as ernie_net
from backend.nn import flux as flux_net
from backend.nn import krea as krea_net
from backend.nn import lumina as lumina_net
from backend.nn import qwen as qwen_net
from backend.nn import wan as wan_net
from backend.nn.llm import llama, qwen_vl
from backend.operations import using_forge_operations
from modules_forge.packages.huggingface_guess import model_list

WIDTH = 48
"""Of a state of the text encoders."""
LAYERS = 36
_FILES = os.path.dirname(backend.huggingface.__file__)

_FLUX: dict[str, Any] = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 64, "context_in_dim": WIDTH, "hidden_size": 64, "mlp_ratio": 2.0,
    "num_heads": 2, "depth": 1, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000, "patch_size": 2,
    "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip
_FLUX2 = _FLUX | {
    "vec_in_dim": None, "in_channels": 128, "out_channels": 128, "context_in_dim": 3 * WIDTH, "patch_size": 1,
    "axes_dim": [8, 8, 8, 8], "txt_ids_dims": [3], "global_modulation": True, "mlp_silu_act": True, "qkv_bias": False,
    "ops_bias": False, "guidance_embed": False, "default_ref_method": "index", "ref_index_scale": 10.0,
}  # fmt: skip
_CHROMA = {name: value for name, value in _FLUX.items() if name != "guidance_embed"} | {
    "in_channels": 64, "out_channels": 64, "vec_in_dim": 0, "in_dim": 64, "out_dim": 64, "hidden_dim": 64, "n_layers": 1,
    "txt_ids_dims": [],
}  # fmt: skip
_NEXT = {
    "patch_size": 2, "in_channels": 16, "dim": 64, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 1,
    "cap_feat_dim": WIDTH, "axes_dims": [8, 12, 12], "axes_lens": [300, 512, 512], "qk_norm": True,
}  # fmt: skip
_ZIMAGE = _NEXT | {
    "dim": 256, "n_heads": 8, "n_kv_heads": 8, "pad_tokens_multiple": 32, "z_image_modulation": True, "time_scale": 1000.0,
}  # fmt: skip
_QWEN = {
    "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2,
    "joint_attention_dim": WIDTH, "axes_dims_rope": [8, 12, 12],
}  # fmt: skip
_ANIMA = {
    "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 64, "num_blocks": 2,
    "num_heads": 2, "crossattn_emb_channels": WIDTH, "adaln_lora_dim": 16,
}  # fmt: skip
_ERNIE = {
    "hidden_size": 64, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 128, "text_in_dim": WIDTH,
    "rope_axes_dim": (8, 12, 12),
}  # fmt: skip
_KREA = {
    "features": 64, "tdim": 32, "txtdim": WIDTH, "heads": 2, "kvheads": 1, "multiplier": 2, "layers": 2, "channels": 16,
    "txtlayers": 12, "txtheads": 2, "txtkvheads": 2,
}  # fmt: skip
_WAN = {
    "model_type": "t2v", "dim": 64, "ffn_dim": 128, "num_heads": 2, "num_layers": 2, "text_dim": WIDTH, "freq_dim": 32,
    "in_dim": 16, "out_dim": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One family of the host.

    Attributes:
        engine: the host's class of a loaded checkpoint.
        guess: the host's description of it.
        network, settings: class and reduced settings of its transformer.
        texts: makes its text encoders and tokenizers, by the host's names.
        autoencoder: "kl", "kl2" or "wan".
        module: of `backend.nn`, whose attention it calls.
        order: of the keys: "text first", "picture first" or "cross".
        multiple: text and picture are padded to a multiple of it.
        stripped: whether the encoder drops its first columns.
        images: of a batch.
        reference: shape of a reference's latent, where the model attends to any.
    """

    engine: type
    guess: type
    network: Callable[..., torch.nn.Module]
    settings: Mapping[str, Any]
    texts: Callable[[], dict[str, Any]]
    autoencoder: str
    module: Any
    order: str = "text first"
    multiple: int = 1
    stripped: bool = False
    images: int = 2
    reference: tuple[int, ...] = ()


def _tokenizer(kind: str, repository: str, folder: str = "tokenizer") -> Any:
    return getattr(transformers, kind).from_pretrained(os.path.join(_FILES, *repository.split("/"), folder))


def _llm(kind: str, config: str) -> torch.nn.Module:
    """One of the host's language models with a reduced configuration."""
    true = getattr(llama, config)
    small = type(config, (true,), {"head_dim": 16, "rope_dims": None if true.rope_dims is None else [2, 3, 3]})
    own = functools.partial(
        small, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2
    )
    kept = getattr(llama, config), llama.LLMAdapter, qwen_vl.Qwen2VLVisionTransformer, llama.Qwen3VLVisionModel
    setattr(llama, config, own)
    llama.LLMAdapter = functools.partial(
        kept[1], source_dim=WIDTH, target_dim=WIDTH, model_dim=WIDTH, num_layers=1, num_heads=4
    )
    qwen_vl.Qwen2VLVisionTransformer = llama.Qwen3VLVisionModel = lambda *_, **__: torch.nn.Identity()  # no picture is shown
    try:
        with using_forge_operations(device=torch.device("cpu"), dtype=torch.float32, manual_cast_enabled=True):
            return random(getattr(llama, kind)({}))
    finally:
        setattr(llama, config, kept[0])
        _, llama.LLMAdapter, qwen_vl.Qwen2VLVisionTransformer, llama.Qwen3VLVisionModel = kept


def _t5(kind: str, vocabulary: int) -> torch.nn.Module:
    config = {
        "num_layers": 2, "d_model": WIDTH, "d_ff": 64, "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True,
        "num_heads": 4, "model_type": kind, "vocab_size": vocabulary,
    }  # fmt: skip
    with using_forge_operations(device=torch.device("cpu"), dtype=torch.float32, manual_cast_enabled=True):
        return random(t5.IntegratedT5(config))


def _clip() -> torch.nn.Module:
    config = transformers.CLIPTextConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    with using_forge_operations(device=torch.device("cpu"), dtype=torch.float32, manual_cast_enabled=True):
        return random(clip.IntegratedCLIP(transformers.CLIPTextModel, config, add_text_projection=True))


def random(model: torch.nn.Module) -> torch.nn.Module:
    """Weights that are not too large for any activation: the host builds its models without any."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not value.is_floating_point() or "freq" in name or "range" in name:
            continue
        norm = value.dim() == 1 and ("norm" in name or "scale" in name)
        with torch.no_grad():
            value.copy_(1 + 0.1 * torch.randn(value.shape) if norm else torch.randn(value.shape) * 0.15)
            if "running_var" in name:
                value.fill_(1.0)
    return model.eval().requires_grad_(False)


def _flux_texts() -> dict[str, Any]:
    files = "black-forest-labs/FLUX.1-dev"
    return {
        "text_encoder": _clip(), "tokenizer": _tokenizer("CLIPTokenizer", files), "text_encoder_2": _t5("t5", 32128),
        "tokenizer_2": _tokenizer("T5TokenizerFast", files, "tokenizer_2"),
    }  # fmt: skip


def _one(encoder: Callable[[], torch.nn.Module], kind: str, files: str) -> Callable[[], dict[str, Any]]:
    def texts() -> dict[str, Any]:
        return {"text_encoder": encoder(), "tokenizer": _tokenizer(kind, files)}

    return texts


def _anima_texts() -> dict[str, Any]:
    files = "circlestone-labs/Anima"
    return {
        "text_encoder": _llm("Qwen3_06B", "Qwen3_06BConfig"), "tokenizer": _tokenizer("Qwen2Tokenizer", files),
        "tokenizer_2": _tokenizer("T5TokenizerFast", files, "tokenizer_2"),
    }  # fmt: skip


_T5 = functools.partial(_t5, "t5", 32128)
_QWEN3 = functools.partial(_llm, "Qwen3_4B", "Qwen3_4BConfig")

FAMILIES = {
    "Flux.1": Family(
        flux.Flux, model_list.Flux, flux_net.IntegratedFluxTransformer2DModel, _FLUX, _flux_texts, "kl", flux_net,
        reference=(1, 16, 8, 12),
    ),
    "Flux.2": Family(
        flux2.Flux2, model_list.Flux2K4B, flux_net.IntegratedFluxTransformer2DModel, _FLUX2,
        _one(_QWEN3, "Qwen2TokenizerFast", "black-forest-labs/FLUX.2-klein-4B"), "kl2", flux_net,
        reference=(1, 128, 4, 6),
    ),
    "Chroma": Family(
        chroma.Chroma, model_list.Chroma, chroma_net.IntegratedChromaTransformer2DModel, _CHROMA,
        lambda: {"text_encoder": _T5(), "tokenizer": _flux_texts()["tokenizer_2"]}, "kl", flux_net,
    ),
    "Lumina 2": Family(
        lumina.Lumina2, model_list.Lumina2, lumina_net.NextDiT, _NEXT,
        _one(lambda: _llm("Gemma2_2B", "Gemma2_2B_Config"), "GemmaTokenizerFast", "neta-art/Neta-Lumina"), "kl", lumina_net,
    ),
    "Z-Image": Family(
        zimage.ZImage, model_list.ZImage, lumina_net.NextDiT, _ZIMAGE,
        _one(_QWEN3, "Qwen2Tokenizer", "Tongyi-MAI/Z-Image-Turbo"), "kl", lumina_net, multiple=32,
    ),
    "Qwen-Image": Family(
        qwen.QwenImage, model_list.QwenImage, qwen_net.QwenImageTransformer2DModel, _QWEN,
        _one(lambda: _llm("Qwen25_7BVLI", "Qwen25_7BVLI_Config"), "Qwen2Tokenizer", "Qwen/Qwen-Image"), "wan", qwen_net,
        stripped=True,
    ),
    "Anima": Family(anima.Anima, model_list.Anima, anima_net.Anima, _ANIMA, _anima_texts, "wan", anima_net, "cross",
                    reference=(1, 16, 1, 16, 24)),
    "ERNIE-Image": Family(
        ernie.ErnieImage, model_list.ErnieImage, ernie_net.ErnieImageModel, _ERNIE,
        _one(lambda: _llm("Ministral3_3B", "Ministral3_3BConfig"), "PixtralProcessor", "baidu/ERNIE-Image"), "kl2", ernie_net,
        "picture first",
    ),
    "Krea 2": Family(
        krea.Krea2, model_list.Krea2, krea_net.SingleStreamDiT, _KREA,
        _one(lambda: _llm("Qwen3VL", "Qwen3VL_4BConfig"), "Qwen2Tokenizer", "krea/Krea-2-Raw"), "wan", krea_net, stripped=True,
    ),
    "Wan": Family(
        wan.Wan, model_list.WAN21_T2V, wan_net.WanModel, _WAN,
        _one(lambda: _t5("umt5", 256384), "T5TokenizerFast", "Wan-AI/Wan2.1-T2V-14B"), "wan", wan_net, "cross", images=1,
    ),
}  # fmt: skip


def _autoencoder(kind: str) -> torch.nn.Module:
    with using_forge_operations(device=torch.device("cpu"), dtype=torch.float32):
        if kind == "wan":
            own = wan_vae.WanVAE(base_dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], temporal_downsample=[False, True, True])
        else:
            made = vae.AutoencoderKLFlux2 if kind == "kl2" else vae.IntegratedAutoencoderKL
            channels = 32 if kind == "kl2" else 16
            own = made(block_out_channels=(32,) * 4, layers_per_block=1, latent_channels=channels)
    return random(own)


def checkpoint(name: str) -> Any:
    """A checkpoint of a family as the host's loader makes it."""
    torch.manual_seed(3)
    family = FAMILIES[name]
    with using_forge_operations(device=torch.device("cpu"), dtype=torch.float32):
        network = random(family.network(**family.settings))
    cpu = torch.device("cpu")
    network.config = dict(family.settings)
    network.storage_dtype = network.computation_dtype = torch.float32
    network.load_device = network.initial_device = network.offload_device = cpu
    parts = {"transformer": network, "vae": _autoencoder(family.autoencoder), **family.texts()}
    guess = family.guess(dict(family.settings))
    guess.model_type = guess.model_type({})  # as the loader does
    loaded = family.engine(guess, parts)
    loaded.sd_model_hash = None
    loaded.sd_checkpoint_info = SimpleNamespace(name_for_extra=name, model_name=name, filename=name, title=name)
    loaded.comments, loaded.extra_generation_params = [], {}
    return loaded
