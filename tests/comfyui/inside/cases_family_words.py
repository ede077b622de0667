"""Words of each family at the columns that its network is given: the host's own template, tokenizer and encoder."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import families
import graphs
import torch
import zoo
from encoders import pieces, text_encoder, word_columns
from zoo import PROMPT

rows = graphs.importlib.import_module("daam-lens.nodes.capture.batch_rows")
registry = graphs.importlib.import_module("daam-lens.daam_core.capture.comfyui_families")


def _prompt(family: str, encoded: Any, **given: Any) -> Any:
    """The words of what an encoder gave, where the network is given `given` beside it, or in its place."""
    texts = registry.COMFYUI_FAMILIES[family].texts
    context, more = encoded[0]
    held = {text.given: more.get(text.encoded) for text in texts if more.get(text.encoded) is not None}
    held = {"c_crossattn": context, **held, **given}
    cond = {**more, "cross_attn": context, "model_conds": {k: SimpleNamespace(cond=v) for k, v in held.items()}}
    return rows._prompt(cond, texts)


def _columns(prompt: Any, word: str) -> list[int]:
    own = set(prompt.find(word).channels)
    return [token.column for token in prompt.tokens if token.channel in own]


def _check(kind: str, family: str, encoder: str, text: str = PROMPT) -> Any:
    """The words are those that were typed, and stand where the tokens of the template put them; gives the prompt."""
    clip = text_encoder(kind)
    if clip is None:
        return "absent"
    plain = graphs.encode(clip, text)
    heard = graphs.encode(graphs.listen(zoo.unet("sd15"), clip)[1], text)
    assert torch.equal(plain[0][0], heard[0][0]), "Record changed the encoding"
    prompt = _prompt(family, heard)
    graphs.same_words([word.label for word in prompt.words], text)
    written, columns = pieces(clip, text, encoder), heard[0][0].shape[1]
    for word in ("house", "tree"):
        last = "".join(written).count(word) - 1  # a template may hold the word as well, ahead of the prompt
        expected = [column - (len(written) - columns) for column in word_columns(written, word, last)]
        assert [c for c in _columns(prompt, word) if c < columns] == expected, (word, _columns(prompt, word), expected)
    return prompt


def _done(found: Any) -> str | None:
    return "absent" if isinstance(found, str) else None


def case_krea2() -> Any:
    return _done(_check("krea2", "Krea 2", "qwen3vl_4b"))


def case_ideogram() -> Any:
    return _done(_check("ideogram", "Ideogram 4", "qwen3vl_8b"))


def case_hunyuan_image() -> Any:
    return _done(_check("hunyuan_image", "HunyuanImage 2.1", "qwen25_7b"))


def case_hunyuan_image_with_quoted_text() -> Any:
    """ByT5 reads what is quoted in a sentence of its own: its columns stand behind, and belong to the quoted word."""
    text = 'a red house and a green tree with "OPEN"'
    clip = text_encoder("hunyuan_image")
    heard = graphs.encode(graphs.listen(zoo.unet("sd15"), clip)[1], text)
    prompt, main = _prompt("HunyuanImage 2.1", heard), heard[0][0].shape[1]
    glyphs = heard[0][1]["conditioning_byt5small"].shape[1]
    assert prompt.length == main + glyphs
    assert not any(word.text == "Text" for word in prompt.words), "a word that nobody typed"
    written = pieces(clip, text, "byt5")
    assert prompt.encoders == ["Qwen", "byT5"], prompt.encoders
    quoted = [word for word in prompt.words if "OPEN" in word.text]
    assert len(quoted) == 1
    inside = [column - main for column in _columns(prompt, quoted[0].label) if column >= main]
    assert inside == word_columns(written, "OPEN"), (inside, written)
    for word in ("house", "tree"):
        assert all(column < main for column in _columns(prompt, word))


def case_hunyuan_video() -> Any:
    return _done(_check("hunyuan_video", "HunyuanVideo", "llama"))


def case_hunyuan_video_15() -> Any:
    return _done(_check("hunyuan_video_15", "HunyuanVideo 1.5", "qwen25_7b"))


def case_cosmos() -> Any:
    return _done(_check("cosmos", "Cosmos", "t5xxl"))


def case_anima() -> Any:
    """The network makes of Qwen's text another, with a column for each token of T5, and pads it."""
    clip = text_encoder("anima")
    if clip is None:
        return "absent"
    heard = graphs.encode(graphs.listen(zoo.unet("sd15"), clip)[1], PROMPT)
    ids = heard[0][1]["t5xxl_ids"]
    network = families.build(families.GROUPS["anima"][0]).model.diffusion_model
    given = network.preprocess_text_embeds(torch.randn(1, heard[0][0].shape[1], 1024), ids[None])
    assert given.shape[1] == 512
    assert bool(given[0, : len(ids)].any(-1).all())
    assert not bool(given[0, len(ids) :].any())
    prompt = _prompt("Anima", heard, c_crossattn=given)
    graphs.same_words([word.label for word in prompt.words], PROMPT)
    written = pieces(clip, PROMPT, "t5xxl")
    for word in ("house", "tree"):
        assert _columns(prompt, word) == word_columns(written, word)
    assert prompt.length == 512
    return None


def case_kandinsky5() -> Any:
    """CLIP's columns are a summary, which the model attends to nowhere."""
    return _done(_check("kandinsky5", "Kandinsky 5", "qwen25_7b"))


def case_omnigen2() -> Any:
    return _done(_check("omnigen2", "OmniGen2", "qwen25_3b"))


def case_boogu() -> Any:
    return _done(_check("boogu", "Boogu", "qwen3vl_8b"))


def case_joyimage() -> Any:
    return _done(_check("joyimage", "JoyImage", "qwen3vl_8b"))


def case_mage_flow() -> Any:
    return _done(_check("mage_flow", "Mage-Flow", "qwen3vl_4b"))


def case_cogvideox() -> Any:
    return _done(_check("cogvideox", "CogVideoX", "t5xxl"))


def case_ltx() -> Any:
    return _done(_check("ltx", "LTX-Video", "t5xxl"))


def case_ltx2() -> Any:
    """Padding ahead of the text is left out by the encoder; the network puts registers behind it, up to 1024 columns."""
    prompt = _check("ltx2", "LTX-2", "gemma3_12b")
    if isinstance(prompt, str):
        return "absent"
    network = families.build(families.GROUPS["ltxav"][0]).model.diffusion_model
    for connector in (network.video_embeddings_connector, network.audio_embeddings_connector):
        connector.transformer_1d_blocks = torch.nn.ModuleList()  # which mix columns, so that it cannot be seen where they stand
        connector.learnable_registers.data.normal_()
    text = torch.randn(1, prompt.length, 48)
    given = network.preprocess_text_embeds(text, unprocessed=True)
    scaled = text * (text.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    assert given.shape[1] == 1024 and torch.allclose(given[:, : prompt.length, :48], scaled, atol=1e-3)
    heard = graphs.encode(graphs.listen(zoo.unet("sd15"), text_encoder("ltx2"))[1], PROMPT)
    whole = _prompt("LTX-2", heard, c_crossattn=given)
    graphs.same_words([word.label for word in whole.words], PROMPT)
    assert whole.length == 1024 and all(_columns(whole, word) == _columns(prompt, word) for word in ("house", "tree"))
    return None


def case_mochi() -> Any:
    return _done(_check("mochi", "Mochi", "t5xxl"))


def case_hidream() -> Any:
    """T5's columns and then Llama's: a word is both."""
    prompt = _check("hidream", "HiDream", "t5xxl")
    assert prompt.encoders == ["T5", "Llama"], prompt.encoders
    written, main = pieces(text_encoder("hidream"), PROMPT, "llama"), 128
    for word in ("house", "tree"):
        own = [column - main for column in _columns(prompt, word) if column >= main]
        assert own == word_columns(written, word), (word, own)


def case_hunyuan_dit() -> Any:
    """BERT's columns and then T5's: a word is both. BERT marks no spaces, but pieces that go on with a word."""
    prompt = _check("hydit", "HunyuanDiT", "hydit_clip")
    assert prompt.encoders == ["CLIP", "T5"], prompt.encoders
    written, main = pieces(text_encoder("hydit"), PROMPT, "mt5xl"), 77
    for word in ("house", "tree"):
        own = [column - main for column in _columns(prompt, word) if column >= main]
        assert own == word_columns(written, word), (word, own)


def case_pixeldit() -> Any:
    """Gemma is told what to do with the prompt; the model gets the first column and the last ones of that."""
    return _done(_check("pixeldit", "PixelDiT", "gemma2_2b"))
