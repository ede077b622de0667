"""Small random pipelines around transformers, with tokenizers and templates of the kinds that the real ones have."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    WanPipeline,
    WanTransformer3DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from ..models import tokenizer as clip_tokenizer

WIDTH = 16
PROMPTS = ["a red house and a green tree", "two cats"]
NEGATIVES = ["blurry and dark", "cats"]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def sentence_piece(length: int = 77) -> PreTrainedTokenizerFast:
    """T5's kind: `▁house`, `</s>` at the end, padding on the right."""
    words = sorted({word for text in [*PROMPTS, *NEGATIVES] for word in text.split()} - {"green"})
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{w}", -1.0) for w in words)]
    vocabulary += [("▁", -9.0), *((c, -9.0) for c in letters), ("▁gre", -2.0), ("en", -2.0)]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length
    )


def qwen() -> PreTrainedTokenizerFast:
    """Qwen's kind: byte-level pieces, `Ġhouse`, a chat template, padding on the right."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    made.train_from_iterator([*PROMPTS, *NEGATIVES, "user assistant system describe the image"] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<|endoftext|>", eos_token="<|im_end|>", additional_special_tokens=special[1:],
        model_max_length=512, padding_side="right",
    )  # fmt: skip
    tokenizer.chat_template = CHAT
    return tokenizer


class Output(tuple[Tensor, ...]):
    """What a text encoder gives: by number, or by name."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]
    pooler_output: Tensor
    text_embeds: Tensor


class TextEncoder(nn.Module):
    """A text encoder of one layer: tokens, their places, and a little of the tokens before them."""

    def __init__(self, tokens: int, width: int = WIDTH, pooled: int = 0) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(tokens, width), nn.Embedding(2048, width)
        self.pooled = nn.Linear(width, pooled or width)
        self.config = type("Config", (), {"eos_token_id": 2, "projection_dim": pooled or width, "vocab_size": tokens})()

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Output:
        x = self.embedding(input_ids) + self.places(torch.arange(input_ids.shape[-1], device=input_ids.device))
        x = x + 0.1 * x.cumsum(1)
        out = Output((x, self.pooled(x[:, -1])))
        out.last_hidden_state, out.hidden_states = x, (x, x, x)
        out.pooler_output = out.text_embeds = out[1]
        if self.pooled.out_features != x.shape[-1]:  # CLIP with a projection gives the pooled vector first
            out = Output((out[1], x))
            out.last_hidden_state, out.hidden_states, out.text_embeds = x, (x, x, x), out[0]
        return out


def spread(pipe: Any) -> Any:
    """Random keys are nearly equal; spread them, so that maps differ between tokens and a wrong column shows."""
    for name, weight in pipe.transformer.named_parameters():
        if weight.dim() >= 2 and any(part in name for part in ("to_q", "to_k", "add_q", "add_k")):
            weight.data *= 4
    pipe.transformer.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def flux() -> Any:
    torch.manual_seed(0)
    clip, t5 = clip_tokenizer(), sentence_piece()
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    return spread(
        FluxPipeline(
            FlowMatchEulerDiscreteScheduler(), None, TextEncoder(len(clip)), clip, TextEncoder(len(t5)), t5, transformer
        )
    )


def stable_diffusion_3() -> Any:
    torch.manual_seed(0)
    clip, t5 = clip_tokenizer(), sentence_piece()
    transformer = SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=2 * WIDTH, caption_projection_dim=16, pooled_projection_dim=24, pos_embed_max_size=16,
    )  # fmt: skip
    return spread(
        StableDiffusion3Pipeline(
            transformer, FlowMatchEulerDiscreteScheduler(), None, TextEncoder(len(clip), pooled=12), clip,
            TextEncoder(len(clip), pooled=12), clip_tokenizer(), TextEncoder(len(t5), 2 * WIDTH), t5,
        )
    )  # fmt: skip


def qwen_image() -> Any:
    torch.manual_seed(0)
    tokenizer = qwen()
    transformer = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=WIDTH, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    return spread(
        QwenImagePipeline(FlowMatchEulerDiscreteScheduler(), None, TextEncoder(len(tokenizer)), tokenizer, transformer)
    )


def z_image() -> Any:
    torch.manual_seed(0)
    tokenizer = qwen()
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=16, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
        axes_dims=[2, 2, 4], axes_lens=[256, 32, 32],
    )  # fmt: skip
    return spread(ZImagePipeline(FlowMatchEulerDiscreteScheduler(), None, TextEncoder(len(tokenizer)), tokenizer, transformer))


def pixart(side: int = 8) -> Any:
    torch.manual_seed(0)
    t5 = sentence_piece()
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, cross_attention_dim=16,
        sample_size=side, caption_channels=WIDTH, use_additional_conditions=False,
    )  # fmt: skip
    from diffusers import DDIMScheduler

    return spread(PixArtSigmaPipeline(t5, TextEncoder(len(t5)), None, transformer, DDIMScheduler()))


def saved_pixart() -> Any:
    """One whose every part can be saved and loaded."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from transformers import T5Config, T5EncoderModel

    pipe, t5 = pixart(32), sentence_piece()
    vae = AutoencoderKL(
        block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
    )  # fmt: skip
    encoder = T5EncoderModel(T5Config(vocab_size=len(t5), d_model=WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    return PixArtSigmaPipeline(t5, encoder.eval(), vae, pipe.transformer, DDIMScheduler())


def wan() -> Any:
    torch.manual_seed(0)
    t5 = sentence_piece(512)
    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=WIDTH, freq_dim=16, ffn_dim=16,
        num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    return spread(WanPipeline(t5, TextEncoder(len(t5)), None, FlowMatchEulerDiscreteScheduler(), transformer))
