"""Small random pipelines whose text takes a way of its own to the transformer: blocks, connectors, pieces, another encoder."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLWan,
    BriaFibo2Pipeline,
    BriaFibo2Transformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux3AutoBlocks,
    Flux3ModularPipeline,
    Flux3Transformer2DModel,
    JoyImageEditPlusPipeline,
    JoyImageEditPlusTransformer3DModel,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from torch import Tensor, nn

from .transformer_pipelines import WIDTH, TextEncoder, qwen, sentence_piece, spread


class Processor:
    """A processor of texts and pictures, as far as texts go."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: Any, images: Any = None, **options: Any) -> Any:
        return self.tokenizer(text, **options)

    def apply_chat_template(self, *args: Any, **options: Any) -> Any:
        return self.tokenizer.apply_chat_template(*args, **options)


def flux3() -> Any:
    """A modular pipeline; what rewrites the prompt is taken out."""
    torch.manual_seed(0)
    tokenizer = qwen()
    blocks = Flux3AutoBlocks()
    blocks.sub_blocks.pop("prompt_upsampler")
    pipe = Flux3ModularPipeline(blocks)
    transformer = Flux3Transformer2DModel(
        in_channels=16, cond_in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=3 * WIDTH, timestep_channels=16, axes_dims_rope=(2, 2, 2, 2),
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        latent_channels=4, block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4, sample_size=32,
    )  # fmt: skip
    pipe.update_components(
        transformer=transformer, text_encoder=TextEncoder(len(tokenizer)), tokenizer=Processor(tokenizer), vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip
    return spread(pipe)


def longcat() -> Any:
    torch.manual_seed(0)
    tokenizer = qwen()
    transformer = LongCatImageTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=WIDTH, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    encoder = TextEncoder(len(tokenizer))
    return spread(
        LongCatImagePipeline(
            FlowMatchEulerDiscreteScheduler(), None, encoder, tokenizer, Processor(tokenizer), transformer
        )
    )  # fmt: skip


def ltx2() -> Any:
    """Its text is padded on the left; registers take the padding's place, behind the text."""
    torch.manual_seed(0)
    tokenizer = sentence_piece()
    transformer = LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=4,
        audio_cross_attention_dim=8, num_layers=2, caption_channels=WIDTH, rope_double_precision=False,
    )  # fmt: skip
    connectors = LTX2TextConnectors(
        caption_channels=WIDTH, text_proj_in_factor=3, video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=8, video_connector_num_layers=1, video_connector_num_learnable_registers=5,
        audio_connector_num_attention_heads=2, audio_connector_attention_head_dim=8, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=5, rope_double_precision=False,
    )  # fmt: skip
    vae = AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8,), decoder_block_out_channels=(8,), layers_per_block=(1,),
        decoder_layers_per_block=(1, 1), spatio_temporal_scaling=(True,), decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False), downsample_type=("spatial",), upsample_residual=(False,), upsample_factor=(1,),
        patch_size=8,
    )  # fmt: skip
    audio_vae = AutoencoderKLLTX2Audio(
        base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, attn_resolutions=None, resolution=32,
        latent_channels=2, mid_block_add_attention=False, mel_bins=8,
    )  # fmt: skip
    return spread(
        LTX2Pipeline(
            FlowMatchEulerDiscreteScheduler(),
            vae,
            audio_vae,
            TextEncoder(len(tokenizer)),
            tokenizer,
            connectors,
            transformer,
            None,
        )
    )


class _Layered(nn.Module):
    """A text encoder of vision and language models: the last layer's output is what a pipeline takes."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.language_model = nn.Module()
        self.model.language_model.layers = nn.ModuleList([TextEncoder(tokens)])
        self.config = type("Config", (), {})()

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        return self.model.language_model.layers[0](input_ids)  # type: ignore[index, operator, union-attr]


class _Normed(nn.Module):
    """A text encoder whose last norm a pipeline takes off."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.model, self.inner = nn.Module(), TextEncoder(tokens)
        self.model.norm = nn.Identity()
        self.config = self.inner.config

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def forward(self, **inputs: Any) -> Any:
        return self.inner(inputs["input_ids"], inputs["attention_mask"])


class _Templated(Processor):
    """Its chat template gives tokens, too."""

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        said = messages[0]["content"][0]["text"]
        return [self.tokenizer(f"<|im_start|>system\n{said}<|im_end|>\n").input_ids]


def qwen_image21() -> Any:
    """The texts of a batch are padded on the left, and the padding is taken out again."""
    torch.manual_seed(0)
    tokenizer = qwen()
    transformer = QwenImage21Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, context_in_dim=WIDTH,
        axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    encoder = _Normed(len(tokenizer))
    return spread(
        QwenImage21Pipeline(FlowMatchEulerDiscreteScheduler(), None, encoder, _Templated(tokenizer), transformer)
    )  # fmt: skip


def joyimage_plus() -> Any:
    torch.manual_seed(0)
    tokenizer = qwen()
    transformer = JoyImageEditPlusTransformer3DModel(
        patch_size=[1, 2, 2], in_channels=4, hidden_size=16, num_attention_heads=2, text_dim=WIDTH, num_layers=2,
        rope_dim_list=[2, 2, 4],
    )  # fmt: skip
    vae = AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    return spread(
        JoyImageEditPlusPipeline(
            FlowMatchEulerDiscreteScheduler(), vae, _Layered(len(tokenizer)), tokenizer, transformer, Processor(tokenizer)
        )
    )


def nucleus() -> Any:
    """Its tokenizer is a part of a processor; a system's message stands before the prompt."""
    torch.manual_seed(0)
    tokenizer = qwen()
    transformer = NucleusMoEImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4, num_key_value_heads=2,
        joint_attention_dim=WIDTH, axes_dims_rope=(2, 2, 4), moe_enabled=False, mlp_ratio=12.0,
    )  # fmt: skip
    encoder = TextEncoder(len(tokenizer))
    made = NucleusMoEImagePipeline(transformer, FlowMatchEulerDiscreteScheduler(), None, encoder, Processor(tokenizer))
    made.default_return_index = -1
    return spread(made)


def bria_fibo2() -> Any:
    """Its text has a row for each layer that reads it."""
    torch.manual_seed(0)
    tokenizer = qwen()
    transformer = BriaFibo2Transformer2DModel(
        in_channels=4, dim=16, n_layers=2, n_refiner_layers=1, n_heads=2, cap_feat_dim=3 * WIDTH, injection_layer_ids=(0, 1),
        perceiver_num_layers=1, min_num_gist_tokens=2, max_num_gist_tokens=6, gist_step=2, gist_min_text_len=8,
        gist_max_text_len=90, axes_dims=(4, 2, 2), axes_lens=(16, 8, 8),
    )  # fmt: skip
    encoder = TextEncoder(len(tokenizer))
    vae = AutoencoderKLFlux2(
        latent_channels=4, block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4, sample_size=32,
    )  # fmt: skip
    made = BriaFibo2Pipeline(transformer, FlowMatchEulerDiscreteScheduler(), vae, encoder, Processor(tokenizer))
    made.text_encoder_out_layers = ((0, 1, 2), (1, 0, 2), (2, 1, 0))
    return spread(made)
