"""What the classes of `comfy.supported_models` that make films, sound and solids are built with, and which are left out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import comfy.ldm.flux.layers
import torch
from families_settings import ALL, Cross, Family, Joint, Settings
from zoo import TEXT

_WAN: Settings = {
    "dim": 64, "ffn_dim": 128, "num_heads": 2, "num_layers": 2, "text_dim": 48, "text_len": TEXT, "freq_dim": 32, "out_dim": 16,
    "patch_size": (1, 2, 2), "eps": 1e-6,
}  # fmt: skip
_FILM = Cross(3 * 60)
_PAIR = Cross(2 * 60)
_STILL = Cross(60)
_NOTHING: Mapping[str, Any] = {}
_CAMERA = {"camera_conditions": (1, 24, 3, 96, 160)}
_POSE = {"pose_video_latent": (1, 16, 2, 12, 20)}
_SMALL_POSE = {"pose_video_latent": (1, 16, 3, 6, 10)}


def _wan(name: str, channels: int, maps: Cross = _FILM, given: Mapping[str, Any] = _NOTHING, **more: Any) -> Family:
    size = maps.grid[0] * 2, maps.grid[1] * 2
    return Family(name, _WAN | {"in_dim": channels} | more, size=size, frames=3, given=given, maps=maps)


_HUNYUAN: Settings = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 40, "context_in_dim": 48, "hidden_size": 64, "mlp_ratio": 2.0,
    "num_heads": 2, "depth": 1, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 256, "patch_size": [1, 2, 2],
    "qkv_bias": True, "guidance_embed": False, "byt5": False, "meanflow": False, "use_cond_type_embedding": False,
    "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
_LATER = {"out_channels": 32, "use_cond_type_embedding": True}
_IMAGE = {"out_channels": 64, "vec_in_dim": None}


FLIPPED = "flipped_img_txt" in inspect.signature(comfy.ldm.flux.layers.DoubleStreamBlock.__init__).parameters
"""Whether the blocks of this ComfyUI can put the picture first, as HunyuanVideo's then do."""


def hunyuan_maps(before: int, reference: int, places: int, behind: int = 0, grid: tuple[int, int] = (6, 10)) -> Joint:
    """Where text and picture stand, with so many other columns of text ahead and behind, and tokens of a reference."""
    whole = before + TEXT + behind + reference + places
    text, picture = (reference + places + before, reference) if FLIPPED else (before, before + TEXT + behind + reference)
    return Joint(text, picture, whole, grid)


def _hunyuan(name: str, grid: tuple[int, int] = (6, 10), frames: int = 2, **more: Any) -> Family:
    maps = hunyuan_maps(0, 0, frames * grid[0] * grid[1], grid=grid)
    settings, params = _HUNYUAN | more, ("hunyuan_video.model", "HunyuanVideoParams")
    return Family(name, settings, pooled=40, frames=frames, params=params, maps=maps)


_COSMOS: Settings = {
    "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1,
    "num_blocks": 2, "crossattn_emb_channels": 48, "pos_emb_cls": "rope3d", "pos_emb_interpolation": "crop",
    "use_adaln_lora": True, "adaln_lora_dim": 16, "concat_padding_mask": True,
}  # fmt: skip
_COSMOS1 = _COSMOS | {
    "model_channels": 128, "num_heads": 1, "block_config": "FA-CA-MLP", "pos_emb_learnable": False, "block_x_format": "THWBD",
    "affline_emb_norm": True, "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
}  # fmt: skip
_COSMOS2 = _COSMOS | {
    "model_channels": 64, "num_heads": 2, "pos_emb_learnable": True, "rope_h_extrapolation_ratio": 4.0,
    "rope_w_extrapolation_ratio": 4.0, "rope_t_extrapolation_ratio": 1.0, "rope_enable_fps_modulation": False,
    "extra_per_block_abs_pos_emb": False,
}  # fmt: skip
_KANDINSKY = {
    "in_text_dim": 48, "in_text_dim2": 40, "time_dim": 32, "model_dim": 64, "ff_dim": 64, "num_text_blocks": 1,
    "num_visual_blocks": 2, "axes_dims": (8, 12, 12),
}  # fmt: skip
_LTX = {
    "in_channels": 128, "cross_attention_dim": 64, "attention_head_dim": 32, "num_attention_heads": 2, "caption_channels": 48,
    "num_layers": 2,
}  # fmt: skip


def _cogvideox(name: str, channels: int) -> Family:
    return Family(name, {
        "num_attention_heads": 3, "attention_head_dim": 32, "in_channels": channels, "time_embed_dim": 32, "text_embed_dim": 48,
        "num_layers": 2, "sample_width": 20, "sample_height": 12, "sample_frames": 5, "max_text_seq_length": TEXT,
    }, frames=2, maps=Joint(0, TEXT, TEXT + 120))  # fmt: skip


FILMS = {
    "wan": (_wan("WAN21_T2V", 16), _wan("WAN21_FlowRVS", 16), _wan("WAN22_T2V", 48, out_dim=48)),
    "wan_image_to_video": (
        _wan("WAN21_I2V", 36, given={"clip_vision_output": (1, 257, 1280)}),
        _wan("WAN21_FunControl2V", 48),
    ),
    "wan_causal": (_wan("WAN21_CausalAR_T2V", 16),),
    "wan_camera": (_wan("WAN21_Camera", 32, given=_CAMERA), _wan("WAN22_Camera", 36, given=_CAMERA)),
    "wan_vace": (replace(_wan("WAN21_Vace", 16, vace_layers=1, vace_in_dim=96), apart="vace_blocks"),),
    "wan_humo": (_wan("WAN21_HuMo", 16, given={"audio_embed": (1, 3, 8, 5, 1280)}),),
    "wan_speech": (
        replace(
            _wan("WAN22_S2V", 16, audio_inject_layers=[0], given={"audio_embed": (1, 25, 1024, 12)}), module="wan.model"
        ),
    ),
    "wan_animate": (_wan("WAN22_Animate", 36, num_layers=5, given=_POSE), _wan("WAN_Animate2", 36, given=_POSE)),
    "wan_scail": (
        _wan("WAN21_SCAIL", 20, Cross(3 * 60 + 3 * 15), given=_SMALL_POSE),
        _wan("WAN21_SCAIL2", 20, Cross(3 * 60 + 3 * 15), given=_SMALL_POSE),
    ),
    "wan_dancer": (
        _wan("WAN22_WanDancer", 36, Cross(3 * 64, grid=(8, 8)), {"audio_embed": (1, 24, 35)}, audio_inject_layers=[0]),
    ),
    "hunyuan_video": (
        _hunyuan("HunyuanVideo"),
        _hunyuan("HunyuanVideoI2V", in_channels=33),
        _hunyuan("HunyuanVideoSkyreelsI2V", in_channels=32),
    ),
    "hunyuan_video_15": (
        _hunyuan("HunyuanVideo15", in_channels=65, **_LATER),
        _hunyuan("HunyuanVideo15_SR_Distilled", in_channels=98, **_LATER),
    ),
    "hunyuan_image": (
        _hunyuan("HunyuanImage21", (12, 20), 1, in_channels=64, patch_size=[1, 1], axes_dim=[16, 16], **_IMAGE),
        _hunyuan("HunyuanImage21Refiner", (12, 20), in_channels=128, patch_size=[1, 1, 1], **_IMAGE),
    ),
    "cosmos": (
        Family("CosmosT2V", _COSMOS1 | {"in_channels": 16}, frames=2, maps=_PAIR),
        Family("CosmosI2V", _COSMOS1 | {"in_channels": 17}, frames=2, maps=_PAIR),
    ),
    "cosmos_predict2": (
        Family("CosmosT2IPredict2", _COSMOS2 | {"in_channels": 16}, maps=_STILL),
        Family("CosmosI2VPredict2", _COSMOS2 | {"in_channels": 17}, frames=2, maps=_PAIR),
    ),
    "anima": (Family("Anima", _COSMOS2 | {"in_channels": 16, "crossattn_emb_channels": 1024}, width=1024, maps=_STILL),),
    "kandinsky5": (
        Family("Kandinsky5", _KANDINSKY | {"visual_embed_dim": 132}, pooled=40, frames=2, maps=_PAIR),
        Family("Kandinsky5Image", _KANDINSKY | {"visual_embed_dim": 64}, pooled=40, maps=_STILL),
    ),
    "ltxv": (Family("LTXV", _LTX, frames=2, given={"frame_rate": 25, **ALL}, maps=Cross(2 * 240, grid=(12, 20))),),
    "mochi": (
        Family("GenmoMochi", {
            "depth": 2, "patch_size": 2, "num_heads": 2, "hidden_size_x": 64, "hidden_size_y": 32, "mlp_ratio_x": 192.0,
            "mlp_ratio_y": 2.0, "learn_sigma": False, "in_channels": 12, "qk_norm": True, "qkv_bias": False, "out_bias": True,
            "attn_drop": 0.0, "use_t5": True, "t5_feat_dim": 48, "t5_token_length": TEXT,
        }, frames=2, given=ALL, maps=Joint(120, 0, 120 + TEXT), mixes_text=True),
    ),
    "cogvideox": (_cogvideox("CogVideoX_T2V", 16), _cogvideox("CogVideoX_I2V", 32), _cogvideox("CogVideoX_Inpaint", 48)),
    "seedvr": (
        Family("SeedVR2", {
            "vid_dim": 64, "heads": 2, "head_dim": 32, "num_layers": 2, "norm_eps": 1e-5, "mlp_type": "swiglu",
            "vid_out_norm": True, "rope_dim": 32, "mm_layers": 1, "txt_in_dim": 48,
        }, given={"condition": (1, 17, 1, 12, 20)}),
    ),
}  # fmt: skip

_SECONDS = {
    "embedder.embedding.0.weights": (128,), "embedder.embedding.1.weight": (768, 257), "embedder.embedding.1.bias": (768,),
}  # fmt: skip
_SOUND = {"embed_dim": 64, "cond_token_dim": 768, "project_cond_tokens": True, "depth": 2, "num_heads": 2}
_SOLID = {"context_in_dim": 48, "hidden_size": 64, "num_heads": 2, "depth": 1, "depth_single_blocks": 1}
_SEQUENCE = ((1, 64, 40),)


def _seconds(*kinds: str) -> dict[str, tuple[int, ...]]:
    return {f"conditioner.conditioners.{kind}.{name}": shape for kind in kinds for name, shape in _SECONDS.items()}


OTHERS = {
    "hidream_o1": (
        Family("HiDreamO1", {
            "text_config_overrides": {
                "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 1, "head_dim": 32, "rope_dims": [8, 4, 4],
            },
            "vision_config_overrides": {
                "hidden_size": 64, "num_heads": 2, "intermediate_size": 64, "depth": 1, "deepstack_visual_indexes": (),
            },
        }, size=(96, 160), given={"text_input_ids": torch.arange(TEXT)[None]}),
    ),
    "stable_audio": (
        Family("StableAudio", _SOUND | {"io_channels": 64, "global_cond_dim": 1536}, width=768, shapes=_SEQUENCE,
               weights=_seconds("seconds_start", "seconds_total")),
        Family("StableAudio3", _SOUND | {
            "io_channels": 256, "global_cond_dim": 768, "timestep_features_type": "learned", "global_cond_type": "adaLN",
            "global_cond_shared_embed": True, "local_add_cond_dim": 257,
        }, width=768, shapes=((1, 256, 40),), weights=_seconds("seconds_total")),
    ),
    "ace_step": (
        Family("ACEStep", {
            "inner_dim": 64, "attention_head_dim": 32, "num_attention_heads": 2, "num_layers": 2, "text_embedding_dim": 48,
            "lyric_hidden_size": 1024, "ssl_encoder_depths": [1, 1],
        }, shapes=((1, 8, 16, 40),), given={"conditioning_lyrics": torch.ones(1, 12, dtype=torch.long)}),
        Family("ACEStep15", {
            "hidden_size": 64, "text_hidden_dim": 48, "num_dit_layers": 2, "num_lyric_layers": 1, "num_timbre_layers": 1,
            "num_tokenizer_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 32, "intermediate_size": 64,
            "fsq_dim": 64, "encoder_hidden_size": 64, "encoder_intermediate_size": 64, "encoder_num_heads": 2,
        }, shapes=_SEQUENCE, given={"conditioning_lyrics": (1, 12, 48)}),
    ),
    "hunyuan_3d": (
        Family("Hunyuan3Dv2", _SOLID, shapes=_SEQUENCE),
        Family("Hunyuan3Dv2mini", _SOLID, shapes=_SEQUENCE),
        Family("Hunyuan3Dv2_1", {
            "hidden_size": 64, "context_dim": 48, "depth": 3, "num_heads": 2, "num_moe_layers": 1, "num_experts": 2,
            "guidance_cond_proj_dim": None,
        }, shapes=_SEQUENCE),
    ),
    "trellis": (
        Family("Trellis2", {"resolution": 32, "model_channels": 64, "cond_channels": 48, "num_blocks": 1, "num_heads": 1},
               shapes=((1, 8, 16, 16, 16),), given={"embeds": (1, TEXT, 48)}),
    ),
}  # fmt: skip

SEVERAL_TENSORS = {
    "triposplat": (
        Family("TripoSplat", {
            "q_token_length": 64, "model_channels": 64, "cond_channels": 48, "num_blocks": 1, "num_refiner_blocks": 1,
            "num_head_channels": 32,
        }, shapes=((1, 64, 16), (1, 1, 5))),
    ),
    "ltxav": (
        Family("LTXAV", _LTX | {
            "audio_in_channels": 128, "audio_cross_attention_dim": 64, "audio_attention_head_dim": 32,
            "audio_num_attention_heads": 2, "connector_attention_head_dim": 16, "connector_num_attention_heads": 3,
        }, width=96, frames=2, given=ALL, shapes=((1, 128, 2, 12, 20), (1, 8, 10, 16)), maps=Cross(2 * 240, grid=(12, 20))),
    ),
    "minimax_h3": (
        Family("MiniMaxH3", {
            "hidden_size": 64, "num_layers": 2, "token_refiner_num_layers": 1, "num_attention_heads": 2,
            "attention_head_dim": 32, "ffn_hidden_size": 64, "text_dim": 48, "timestep_input_dim": 32,
            "time_embed_hidden_size": 64, "time_embed_dim": 64, "rope_inv_freq_len": 5,
        }, shapes=((1, 24, 2, 12, 20), (1, 32, 2, 10))),
    ),
}  # fmt: skip
"""Latents of picture and something else, sampled as one."""

NOT_SAMPLED = "looks at a finished picture: its network is not given the time of a step, so no sampler can run it"
ONE_SIZE = "makes sound, and the size of its network, above a thousand million weights, is written in ComfyUI's code"
LEFT_OUT = {
    "RT_DETR_v4": NOT_SAMPLED,
    "SAM3": NOT_SAMPLED,
    "SAM31": NOT_SAMPLED,
    "DepthAnything3": NOT_SAMPLED,
    "MiniMaxMusic3": ONE_SIZE,
}
"""Classes that are not built, and why."""
