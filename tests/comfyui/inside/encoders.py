"""Text encoders of the transformer families: the host's own classes and tokenizers, shrunk, with random weights.

T5's and Qwen's tokenizers lie in ComfyUI's tree. Gemma's and UMT5's come with a checkpoint: a sentencepiece model is trained
here on a few sentences instead, so that the host's own code for them runs, and words fall into several pieces.
"""

from __future__ import annotations

import importlib
import io
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import comfy.clip_model
import comfy.sd
import comfy.text_encoders.flux
import comfy.text_encoders.lumina2
import comfy.text_encoders.pixart_t5
import comfy.text_encoders.qwen_image
import comfy.text_encoders.qwen_vl
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.wan
import torch

_CLIP = {"num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
_T5 = {"d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 2}
_LLAMA = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3} | {
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
_SENTENCES = ["a red house and a green tree", "a blue boat on the sea", "blurry photo of a mushroom", "stars and a yellow moon"]


@cache
def text_encoder(kind: str) -> Any:
    """CLIP for `zoo.transformer(kind)` ("sd3" fits "sd3_wide"); None where this ComfyUI has no such family."""
    with torch.inference_mode(False):
        return globals()[f"_{kind}"]()


def _made(model: Any, tokenizer: Any, data: dict[str, Any] | None = None, **configs: Any) -> Any:
    options = {f"{name}_model_config": config for name, config in configs.items()} | {"dtype": torch.float32}
    target = SimpleNamespace(params={}, clip=model, tokenizer=tokenizer)
    clip = comfy.sd.CLIP(target, tokenizer_data=data or {}, model_options=options)
    _fill(clip.cond_stage_model)
    return clip


def _fill(module: torch.nn.Module) -> None:
    """Random weights; a large table of tokens is one short bank of numbers, read from another place for each token."""
    generator = torch.Generator().manual_seed(7)
    for name, weight in module.named_parameters():
        if weight.numel() > 5_000_000:
            bank = torch.randn(sum(weight.shape), generator=generator)
            weight.data = bank.as_strided(weight.shape, (1, 1))
        elif weight.dim() > 1:
            weight.data = torch.randn(weight.shape, generator=generator) * (0.5 if "embed" in name else weight.shape[1] ** -0.5)
        else:
            weight.data = torch.ones(weight.shape) if "norm" in name.lower() and "weight" in name else torch.zeros(weight.shape)


@cache
def _spiece(more: str = "") -> torch.Tensor:
    """A sentencepiece model as a checkpoint brings it: bytes in a tensor. With `more`, it knows these words, and line feeds."""
    import sentencepiece

    written = io.BytesIO()
    own = {"vocab_size": 60}
    if more:
        own = {"vocab_size": 200, "normalization_rule_name": "identity", "user_defined_symbols": ["\n"]}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((_SENTENCES + more.split("\n")) * 20), model_writer=written, hard_vocab_limit=False,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, minloglevel=2, **own,
    )  # fmt: skip
    return torch.frombuffer(bytearray(written.getvalue()), dtype=torch.uint8)


def _sd3() -> Any:
    family = comfy.text_encoders.sd3_clip
    return _made(
        family.sd3_clip(),
        family.SD3Tokenizer,
        clip_l={**_CLIP, "hidden_size": 16},
        clip_g={**_CLIP, "hidden_size": 24, "projection_dim": 24},
        t5xxl={**_T5, "d_model": 4096},  # ComfyUI pads CLIP's columns to this width
    )


def _sd3_without_t5() -> Any:
    family = comfy.text_encoders.sd3_clip
    return _made(
        family.sd3_clip(t5=False),
        family.SD3Tokenizer,
        clip_l={**_CLIP, "hidden_size": 16},
        clip_g={**_CLIP, "hidden_size": 24, "projection_dim": 24},
    )


def _flux() -> Any:
    family = comfy.text_encoders.flux
    return _made(family.flux_clip(), family.FluxTokenizer, clip_l={**_CLIP, "hidden_size": 40}, t5xxl={**_T5, "d_model": 48})


def _flux2() -> Any:
    """klein's, which reads the text in layers 9, 18 and 27."""
    family = comfy.text_encoders.flux
    if not hasattr(family, "klein_te"):
        return None
    return _made(family.klein_te(), family.KleinTokenizer, qwen3_4b={**_LLAMA, "num_hidden_layers": 28})


def _chroma() -> Any:
    family = comfy.text_encoders.pixart_t5
    return _made(family.pixart_te(), family.PixArtTokenizer, t5xxl={**_T5, "d_model": 48})


def _qwen() -> Any:
    family = comfy.text_encoders.qwen_image
    blind = mock.patch.object(comfy.text_encoders.qwen_vl, "Qwen2VLVisionTransformer", torch.nn.Identity)
    with blind:  # 600 M parameters that only pictures in prompts need
        return _made(family.te(), family.QwenImageTokenizer, qwen25_7b=_LLAMA)


def _lumina2() -> Any:
    family = comfy.text_encoders.lumina2
    return _made(family.te(), family.LuminaTokenizer, {"spiece_model": _spiece()}, gemma2_2b={**_LLAMA, "vocab_size": 64})


def _zimage() -> Any:
    try:
        family = importlib.import_module("comfy.text_encoders.z_image")
    except ModuleNotFoundError:
        return None
    return _made(family.te(), family.ZImageTokenizer, qwen3_4b=_LLAMA)


def _wan() -> Any:
    family = comfy.text_encoders.wan
    return _made(
        family.te(), family.WanT5Tokenizer, {"spiece_model": _spiece()}, umt5xxl={**_T5, "d_model": 48, "vocab_size": 64}
    )


def pieces(clip: Any, text: str, name: str) -> list[str]:
    """What the host's tokenizer wrote into each column of encoder `name`, as text: a space stands before a new word."""
    known = getattr(clip.tokenizer, name if hasattr(clip.tokenizer, name) else clip.tokenizer.clip).inv_vocab
    return [str(known.get(entry[0], "")).replace("▁", " ").replace("Ġ", " ") for entry in clip.tokenize(text)[name][0]]


def word_columns(written: list[str], word: str, nth: int = 0) -> list[int]:
    """The columns of the nth place of `word` among pieces: those whose letters lie within the word."""
    owners = [column for column, piece in enumerate(written) for _ in piece]
    whole = "".join(written)
    at = -1
    for _ in range(nth + 1):
        at = whole.index(word, at + 1)
    return sorted(set(owners[at : at + len(word)]))


def _absent(name: str) -> Any:
    """A module of `comfy.text_encoders`, None where this ComfyUI does not have it."""
    try:
        return importlib.import_module(f"comfy.text_encoders.{name}")
    except ModuleNotFoundError:
        return None


_FOUR = {**_LLAMA, "num_hidden_layers": 4}
"""For encoders that take the text three layers before the last."""
_DEEP = {**_LLAMA, "num_hidden_layers": 36}
"""For encoders that take the text from many layers."""


def _krea2() -> Any:
    return _seeing("krea2", "Krea2Tokenizer", qwen3vl_4b=_DEEP)


def _ideogram() -> Any:
    family = _absent("ideogram4")
    return None if family is None else _made(family.te(), family.Ideogram4Tokenizer, qwen3vl_8b=_DEEP)


def _seeing(name: str, tokenizer: str, **configs: Any) -> Any:
    """An encoder without the part that looks at pictures."""
    family = _absent(name)
    if family is None:
        return None
    with mock.patch.object(_absent("qwen3vl"), "Qwen3VLVisionModel", torch.nn.Identity):
        return _made(family.te(), getattr(family, tokenizer), **configs)


def _blind(family: Any, tokenizer: Any, **configs: Any) -> Any:
    with mock.patch.object(comfy.text_encoders.qwen_vl, "Qwen2VLVisionTransformer", torch.nn.Identity):
        return _made(family, tokenizer, qwen25_7b=_FOUR, **configs)


def _hunyuan_image() -> Any:
    family = _absent("hunyuan_image")
    return _blind(family.te(), family.HunyuanImageTokenizer, clip_l={**_T5, "d_model": 48})  # ByT5 has no name of its own


def _hunyuan_video() -> Any:
    family = _absent("hunyuan_video")
    clip = {**_CLIP, "hidden_size": 40}
    with mock.patch.object(family, "LlamaTokenizerFast", SpelledLlama):
        return _made(family.hunyuan_video_clip(), family.HunyuanVideoTokenizer, clip_l=clip, llama=_FOUR)


class SpelledLlama:
    """In place of Llama's tokenizer, whose vocabulary is not in every checkout: one token a byte, and those that the host
    looks for by number."""

    @staticmethod
    def from_pretrained(*_: Any, **__: Any) -> Any:
        import tokenizers
        import transformers
        from tokenizers import models, pre_tokenizers, processors

        numbered = {"ĊĊ": 271, "us": 300, "use": 301, "user": 882}
        special = {"<|begin_of_text|>": 128000, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007,
                   "<|eot_id|>": 128009, "<|image|>": 128257, "<|pad|>": 128258}  # fmt: skip
        letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        spaced = {f"Ġ{letter}": 400 + i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
        merges = [("Ċ", "Ċ"), ("u", "s"), ("us", "e"), ("use", "r"), *(("Ġ", letter) for _, letter in spaced)]
        made = tokenizers.Tokenizer(models.BPE({**letters, **numbered, **spaced, **special}, merges))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.add_special_tokens(list(special))
        start = next(iter(special.items()))
        made.post_processor = processors.TemplateProcessing(f"{start[0]} $A", special_tokens=[start])
        return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


def _hunyuan_video_15() -> Any:
    image, family = _absent("hunyuan_image"), _absent("hunyuan_video")
    tokenizer = getattr(family, "HunyuanVideo15Tokenizer", None)
    return None if tokenizer is None else _blind(image.te(), tokenizer, clip_l={**_T5, "d_model": 48})


def _anima() -> Any:
    family = _absent("anima")
    return None if family is None else _made(family.te(), family.AnimaTokenizer, qwen3_06b=_LLAMA)


def _cosmos() -> Any:
    family = _absent("cosmos")
    return _made(family.te(), family.CosmosT5Tokenizer, t5xxl={**_T5, "d_model": 48})


def _kandinsky5() -> Any:
    family = _absent("kandinsky5")
    return None if family is None else _blind(family.te(), family.Kandinsky5Tokenizer, clip_l={**_CLIP, "hidden_size": 40})


def _omnigen2() -> Any:
    family = _absent("omnigen2")
    return _made(family.te(), family.Omnigen2Tokenizer, qwen25_3b=_LLAMA)


def _boogu() -> Any:
    return _seeing("boogu", "BooguTokenizer", qwen3vl_8b=_LLAMA)


def _joyimage() -> Any:
    return _seeing("joyimage", "JoyImageTokenizer", qwen3vl_8b=_LLAMA)


def _mage_flow() -> Any:
    return _seeing("mage_flow", "MageFlowTokenizer", qwen3vl_4b=_LLAMA)


def _cogvideox() -> Any:
    family = _absent("cogvideo")
    return None if family is None else _made(family.cogvideo_te(), family.CogVideoXTokenizer, t5xxl={**_T5, "d_model": 48})


def _ltx() -> Any:
    family = _absent("lt")
    return _made(family.ltxv_te(), family.LTXVT5Tokenizer, t5xxl={**_T5, "d_model": 48})


def _ltx2() -> Any:
    """Gemma, padded ahead; all of its layers are joined and projected."""
    family = _absent("lt")
    tokenizer = getattr(family, "LTXAVGemmaTokenizer", None)
    if tokenizer is None:
        return None
    config = {**_LLAMA, "vocab_size": 64}
    with mock.patch.object(comfy.clip_model, "CLIPVision", return_value=torch.nn.Identity()):  # of 400 million weights
        unnamed = {"": config}  # as the host calls what it reads the text with
        return _made(family.LTXAVTEModel, tokenizer, {"spiece_model": _spiece()}, **unnamed)


def _mochi() -> Any:
    family = _absent("genmo")
    return _made(family.mochi_te(), family.MochiT5Tokenizer, t5xxl={**_T5, "d_model": 48})


def _hidream() -> Any:
    family = _absent("hidream")
    with mock.patch.object(_absent("hunyuan_video"), "LlamaTokenizerFast", SpelledLlama):
        return _made(
            family.HiDreamTEModel,
            family.HiDreamTokenizer,
            clip_l={**_CLIP, "hidden_size": 16},
            clip_g={**_CLIP, "hidden_size": 24, "projection_dim": 24},
            t5xxl={**_T5, "d_model": 48},
            llama=_LLAMA,
        )


def _hydit() -> Any:
    family = _absent("hydit")
    bert = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    data = {"mt5xl.spiece_model": _spiece()}
    return _made(
        family.HyditModel, family.HyditTokenizer, data, hydit_clip=bert, mt5xl={**_T5, "d_model": 40, "vocab_size": 64}
    )


def _pixeldit() -> Any:
    family = _absent("pixeldit")
    if family is None:
        return None
    data = {"spiece_model": _spiece(family._PIXELDIT_CHI_PROMPT)}
    return _made(family.pixeldit_te(), family.PixelDiTGemma2Tokenizer, data, gemma2_2b={**_LLAMA, "vocab_size": 256})
