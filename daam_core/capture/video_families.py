"""Families of transformers that make videos, for the registry in `families`."""

from __future__ import annotations

from . import cross_layouts as crossing
from . import video_layouts as of
from .family import Family

_JOINT = r"transformer_blocks\.\d+\.attn"
_BOTH = r"(single_)?transformer_blocks\.\d+\.attn"
_CROSS = r"transformer_blocks\.\d+\.attn2"
_SELF = r"transformer_blocks\.\d+\.attn1"
_WAN, _WAN_SELF = r"blocks\.\d+\.attn2", r"blocks\.\d+\.attn1"

VIDEO_FAMILIES: tuple[Family, ...] = (
    Family(
        "Kandinsky 5",
        ("transformer_kandinsky.Kandinsky5Transformer3DModel",),
        r"visual_transformer_blocks\.\d+\.cross_attention",
        crossing.kandinsky5,
        video=True,
    ),
    Family(
        "Wan",
        (
            "transformer_wan.WanTransformer3DModel",
            "transformer_wan_vace.WanVACETransformer3DModel",
            "transformer_skyreels_v2.SkyReelsV2Transformer3DModel",
            "transformer_chronoedit.ChronoEditTransformer3DModel",
        ),
        _WAN,
        crossing.wan,
        video=True,
        picture_layers=_WAN_SELF,
    ),
    Family(
        "Wan Animate",
        ("transformer_wan_animate.WanAnimateTransformer3DModel",),
        _WAN,
        crossing.wan_animate,
        video=True,
        picture_layers=_WAN_SELF,
    ),
    Family("Helios", ("transformer_helios.HeliosTransformer3DModel",), _WAN, crossing.helios, video=True),
    Family("AnyFlow", ("transformer_anyflow.AnyFlowTransformer3DModel",), _WAN, crossing.frames_first, video=True),
    Family(
        "LTX-Video",
        ("transformer_ltx.LTXVideoTransformer3DModel",),
        _CROSS,
        crossing.ltx,
        layout_arguments=("video_coords",),
        video=True,
        picture_layers=_SELF,
    ),
    Family("HunyuanVideo", ("transformer_hunyuan_video.HunyuanVideoTransformer3DModel",), _BOTH, of.hunyuan_video, video=True),
    Family(
        "HunyuanVideo 1.5",
        ("transformer_hunyuan_video15.HunyuanVideo15Transformer3DModel",),
        _JOINT,
        of.hunyuan_video15,
        text=("encoder_hidden_states", "encoder_hidden_states_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        encoders=("Qwen", "byT5"),
        quoted="tokenizer_2",
        layout_arguments=("encoder_attention_mask", "encoder_attention_mask_2", "image_embeds"),
        video=True,
    ),
    Family(
        "CogVideoX",
        ("cogvideox_transformer_3d.CogVideoXTransformer3DModel", "consisid_transformer_3d.ConsisIDTransformer3DModel"),
        r"transformer_blocks\.\d+\.attn1",
        of.cog_video,
        video=True,
    ),
    Family(
        "Mochi",
        ("transformer_mochi.MochiTransformer3DModel",),
        r"transformer_blocks\.\d+\.attn1",
        of.mochi,
        layout_arguments=("encoder_attention_mask",),
        video=True,
    ),
    Family(
        "Allegro",
        ("transformer_allegro.AllegroTransformer3DModel",),
        _CROSS,
        crossing.latent_cross,
        video=True,
        picture_layers=_SELF,
    ),
    Family("Latte", ("latte_transformer_3d.LatteTransformer3DModel",), _CROSS, crossing.latte, keeps="kept", video=True),
    Family(
        "Sana Video",
        ("transformer_sana_video.SanaVideoTransformer3DModel",),
        _CROSS,
        crossing.latent_cross,
        video=True,
        keeps="first and tail",
    ),
    Family(
        "Sana-WM",
        ("transformer_sana_wm.SanaWMTransformer3DModel",),
        r"blocks\.\d+\.cross_attn",
        crossing.latent_cross,
        video=True,
        keeps="first and tail",
    ),
    Family(
        "Cosmos",
        ("transformer_cosmos.CosmosTransformer3DModel",),
        r"transformer_blocks\.\d+\.attn2",
        crossing.cosmos,
        video=True,
        picture_layers=_SELF,
    ),
    Family(
        "Cosmos 3",
        ("transformer_cosmos3.Cosmos3OmniTransformer",),
        r"layers\.\d+\.self_attn",
        of.cosmos3,
        text=("input_ids",),
        tokenizers=("text_tokenizer",),
        layout_arguments=("text_indexes", "vision_sequence_indexes"),
        token_ids=True,
        video=True,
    ),
    Family(
        "Kandinsky 6",
        ("transformer_kandinsky6.Kandinsky6Transformer3DModel",),
        r"visual_transformer_blocks\.\d+\.video_dec_block\.cross_attention",
        crossing.kandinsky6,
        layout_arguments=("visual_rope_pos",),
        video=True,
    ),
    Family(
        "HunyuanVideo Framepack",
        ("transformer_hunyuan_video_framepack.HunyuanVideoFramepackTransformer3DModel",),
        _BOTH,
        of.framepack,
        layout_arguments=("encoder_attention_mask",),
        video=True,
    ),
    Family(
        "Motif-Video",
        ("transformer_motif_video.MotifVideoTransformer3DModel",),
        r"(single_)?transformer_blocks\.\d+\.(cross_)?attn",
        of.motif_video,
        video=True,
    ),
    Family(
        "EasyAnimate",
        ("transformer_easyanimate.EasyAnimateTransformer3DModel",),
        r"transformer_blocks\.\d+\.attn1",
        of.easy_animate,
        text=("encoder_hidden_states", "encoder_hidden_states_t5"),
        tokenizers=("tokenizer", "tokenizer_2"),
        video=True,
    ),
    Family(
        "MiniMax-H3",
        ("transformer_minimax_h3.MiniMaxH3Transformer3DModel",),
        _JOINT,
        of.minimax_h3,
        layout_arguments=("position_ids", "text_indices", "video_indices"),
        keeps="left",
        video=True,
    ),
    Family(
        "LTX-2",
        ("transformer_ltx2.LTX2VideoTransformer3DModel",),
        _CROSS,
        crossing.ltx2,
        layout_arguments=("video_coords",),
        keeps="kept",
        video=True,
        picture_layers=_SELF,
    ),
)
"""Families whose models make videos."""
