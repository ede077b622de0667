"""The families of transformers that are read: one entry each, known by the module and name of its classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from ..errors import UnsupportedModel
from ..prompt.template import Keeps
from . import family_layouts as of
from .text_rows import without_single_axes
from .token_layout import TokenLayout

_DIFFUSERS = "diffusers.models.transformers."


@dataclass(frozen=True)
class Family:
    """A family of transformers.

    Attributes:
        name: as people call it.
        classes: `module.Class` of its transformers in diffusers, behind `diffusers.models.transformers.`.
        layers: a pattern of the names of the modules whose attention has text among its keys.
        layout: gives the layout of one call, from the model and the call's arguments by name.
        text: the names of the arguments that hold its text, in the order in which columns are counted.
        tokenizers: the pipeline's tokenizers whose tokens are these columns, in order.
        looks_at: arguments whose values say something about the layout, not only their shapes.
        keeps: which tokens become columns.
        packed: its text argument is as long as the whole sequence; the layout says which part is text.
        suffix: the end of the template is tokenized on its own, and stands behind the padding.
        video: whether it paints videos.
    """

    name: str
    classes: tuple[str, ...]
    layers: str
    layout: Callable[[Any, Mapping[str, Any]], TokenLayout]
    text: tuple[str, ...] = ("encoder_hidden_states",)
    tokenizers: tuple[str, ...] = ("tokenizer",)
    looks_at: tuple[str, ...] = ()
    keeps: Keeps = "tail"
    suffix: bool = False
    packed: bool = False
    video: bool = False

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(self.layers)

    def is_text_layer(self, name: str) -> bool:
        """Whether the attention of the module of this name has text among its keys."""
        return self._pattern.fullmatch(name) is not None

    def text_rows(self, given: Mapping[str, Any]) -> list[Tensor]:
        """The first of its text arguments, row by row of the batch: `[columns, …]` each."""
        value = given[self.text[0]]
        return [without_single_axes(row) for row in (value[0] if isinstance(value, tuple) else value)]

    def text_columns(self, given: Mapping[str, Any], row: Tensor, layout: TokenLayout) -> tuple[int, ...]:
        """How many columns each of its text arguments has, for a row of `text_rows`."""
        if self.packed:
            return (layout.columns,)
        return (row.shape[0], *(int(given[name].shape[-2]) for name in self.text[1:] if given.get(name) is not None))


_JOINT = r"transformer_blocks\.\d+\.attn"
_BOTH = r"(single_)?transformer_blocks\.\d+\.attn"
_CROSS = r"transformer_blocks\.\d+\.attn2"
_WAN = r"blocks\.\d+\.attn2"

FAMILIES: tuple[Family, ...] = (
    Family(
        "Flux.1",
        ("transformer_flux.FluxTransformer2DModel",),
        _BOTH,
        of.by_positions,
        tokenizers=("tokenizer_2",),
        looks_at=("img_ids",),
    ),
    Family("Flux.2", ("transformer_flux2.Flux2Transformer2DModel",), _BOTH, of.flux2, looks_at=("img_ids",)),
    Family("Chroma", ("transformer_chroma.ChromaTransformer2DModel",), _BOTH, of.by_positions, looks_at=("img_ids",)),
    Family(
        "Stable Diffusion 3",
        ("transformer_sd3.SD3Transformer2DModel",),
        _JOINT,
        of.sd3,
        tokenizers=("tokenizer", "tokenizer_3"),
    ),
    Family("Qwen-Image", ("transformer_qwenimage.QwenImageTransformer2DModel",), _JOINT, of.by_shapes),
    Family(
        "Z-Image",
        ("transformer_z_image.ZImageTransformer2DModel",),
        r"layers\.\d+\.attention",
        of.z_image,
        text=("cap_feats",),
        keeps="kept",
    ),
    Family(
        "Lumina 2",
        ("transformer_lumina2.Lumina2Transformer2DModel",),
        r"layers\.\d+\.attn",
        of.lumina2,
        looks_at=("encoder_attention_mask",),
    ),
    Family("Lumina", ("lumina_nextdit2d.LuminaNextDiT2DModel",), r"layers\.\d+\.attn2", of.latent_cross),
    Family(
        "AuraFlow",
        ("auraflow_transformer_2d.AuraFlowTransformer2DModel",),
        r"(joint|single)_transformer_blocks\.\d+\.attn",
        of.aura_flow,
    ),
    Family(
        "HiDream",
        ("transformer_hidream_image.HiDreamImageTransformer2DModel",),
        r"(double|single)_stream_blocks\.\d+\.block\.attn1",
        of.hidream,
        text=("encoder_hidden_states_t5", "encoder_hidden_states_llama3"),
        tokenizers=("tokenizer_3", "tokenizer_4"),
    ),
    Family("PixArt", ("pixart_transformer_2d.PixArtTransformer2DModel",), _CROSS, of.latent_cross),
    Family("Sana", ("sana_transformer.SanaTransformer2DModel",), _CROSS, of.latent_cross, keeps="first and tail"),
    Family(
        "HunyuanDiT",
        ("hunyuan_transformer_2d.HunyuanDiT2DModel",),
        _WAN,
        of.hunyuan_dit,
        text=("encoder_hidden_states", "encoder_hidden_states_t5"),
        tokenizers=("tokenizer", "tokenizer_2"),
    ),
    Family(
        "HunyuanImage 2.1",
        ("transformer_hunyuanimage.HunyuanImageTransformer2DModel",),
        _BOTH,
        of.hunyuan_image,
        text=("encoder_hidden_states", "encoder_hidden_states_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        looks_at=("encoder_attention_mask", "encoder_attention_mask_2"),
    ),
    Family(
        "CogView",
        ("transformer_cogview3plus.CogView3PlusTransformer2DModel", "transformer_cogview4.CogView4Transformer2DModel"),
        r"transformer_blocks\.\d+\.attn1",
        of.text_then_latent,
        keeps="left",
    ),
    Family("Krea 2", ("transformer_krea2.Krea2Transformer2DModel",), _JOINT, of.krea2, looks_at=("position_ids",), suffix=True),
    Family(
        "Bria",
        ("transformer_bria.BriaTransformer2DModel", "transformer_bria_fibo.BriaFiboTransformer2DModel"),
        _BOTH,
        of.by_positions,
        looks_at=("img_ids",),
    ),
    Family(
        "Ovis-Image", ("transformer_ovis_image.OvisImageTransformer2DModel",), _BOTH, of.by_positions, looks_at=("img_ids",)
    ),
    Family(
        "LongCat-Image",
        ("transformer_longcat_image.LongCatImageTransformer2DModel",),
        _BOTH,
        of.by_positions,
        looks_at=("img_ids",),
    ),
    Family("PRX", ("transformer_prx.PRXTransformer2DModel",), r"blocks\.\d+\.attention", of.prx),
    Family(
        "Kandinsky 5",
        ("transformer_kandinsky.Kandinsky5Transformer3DModel",),
        r"visual_transformer_blocks\.\d+\.cross_attention",
        of.kandinsky5,
        video=True,
    ),
    Family(
        "ERNIE-Image",
        ("transformer_ernie_image.ErnieImageTransformer2DModel",),
        r"layers\.\d+\.self_attention",
        of.ernie,
        text=("text_bth",),
    ),
    Family("GLM-Image", ("transformer_glm_image.GlmImageTransformer2DModel",), r"transformer_blocks\.\d+\.attn1", of.glm_image),
    Family("JoyImage", ("transformer_joyimage.JoyImageEditTransformer3DModel",), r"double_blocks\.\d+\.attn", of.joy_image),
    Family(
        "Wan",
        (
            "transformer_wan.WanTransformer3DModel",
            "transformer_wan_vace.WanVACETransformer3DModel",
            "transformer_skyreels_v2.SkyReelsV2Transformer3DModel",
            "transformer_chronoedit.ChronoEditTransformer3DModel",
        ),
        _WAN,
        of.wan,
        video=True,
    ),
    Family("Wan Animate", ("transformer_wan_animate.WanAnimateTransformer3DModel",), _WAN, of.wan_animate, video=True),
    Family("Helios", ("transformer_helios.HeliosTransformer3DModel",), _WAN, of.helios, video=True),
    Family("AnyFlow", ("transformer_anyflow.AnyFlowTransformer3DModel",), _WAN, of.frames_first, video=True),
    Family(
        "LTX-Video",
        ("transformer_ltx.LTXVideoTransformer3DModel",),
        _CROSS,
        of.ltx,
        looks_at=("video_coords",),
        video=True,
    ),
    Family("HunyuanVideo", ("transformer_hunyuan_video.HunyuanVideoTransformer3DModel",), _BOTH, of.hunyuan_video, video=True),
    Family(
        "HunyuanVideo 1.5",
        ("transformer_hunyuan_video15.HunyuanVideo15Transformer3DModel",),
        _JOINT,
        of.hunyuan_video15,
        text=("encoder_hidden_states", "encoder_hidden_states_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        looks_at=("encoder_attention_mask", "encoder_attention_mask_2", "image_embeds"),
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
        looks_at=("encoder_attention_mask",),
        video=True,
    ),
    Family("Allegro", ("transformer_allegro.AllegroTransformer3DModel",), _CROSS, of.latent_cross, video=True),
    Family(
        "Ideogram 4",
        ("transformer_ideogram4.Ideogram4Transformer2DModel",),
        r"layers\.\d+\.attention",
        of.ideogram4,
        looks_at=("position_ids", "indicator"),
        keeps="left",
        packed=True,
    ),
    Family("Latte", ("latte_transformer_3d.LatteTransformer3DModel",), _CROSS, of.latte, keeps="kept", video=True),
    Family(
        "Sana Video",
        ("transformer_sana_video.SanaVideoTransformer3DModel",),
        _CROSS,
        of.latent_cross,
        video=True,
        keeps="first and tail",
    ),
    Family(
        "Cosmos",
        ("transformer_cosmos.CosmosTransformer3DModel",),
        r"transformer_blocks\.\d+\.attn2",
        of.latent_cross,
        video=True,
    ),
)

REFUSED: Mapping[str, str] = {
    "dit_transformer_2d.DiTTransformer2DModel": "it is told a class by number, not a text",
    "transformer_hunyuan_video_framepack.HunyuanVideoFramepackTransformer3DModel": "frames of before stand among its tokens",
    "transformer_qwenimage21.QwenImage21Transformer2DModel": "its packed sequence is not known yet",
    "transformer_ltx2.LTX2VideoTransformer3DModel": "between encoder and model its text is mixed anew, column by column",
    "transformer_omnigen.OmniGenTransformer2DModel": "text and pictures are one sequence of tokens inside it",
    "transformer_anyflow_far.AnyFlowFARTransformer3DModel": "its frames attend in chunks",
}
"""Transformers of diffusers that are known and not read, each with the reason."""


def family_of(model: nn.Module) -> Family:
    """The family of a transformer, wrapped by `torch.compile` or not.

    Raises:
        UnsupportedModel: none is known; the sentence names the class.
    """
    classes = type(getattr(model, "_orig_mod", model)).__mro__
    names = [f"{c.__module__}.{c.__name__}" for c in classes]
    for name in names:
        for family in FAMILIES:
            if name.removeprefix(_DIFFUSERS) in family.classes and name.startswith(_DIFFUSERS):
                return family
    for name in names:
        if reason := REFUSED.get(name.removeprefix(_DIFFUSERS)):
            raise UnsupportedModel(f"{classes[0].__name__} cannot be read: {reason}.")
    raise UnsupportedModel(
        f"{classes[0].__name__} is a model that DAAM Lens does not know. It reads "
        + ", ".join(family.name for family in FAMILIES)
        + "."
    )
