"""Which words stand in which columns of a model's context: encoders side by side, alone, cut, padded, remembered."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

Pack = Callable[[str], ModuleType]
VOCABULARY = {0: "<s>", 1: "</s>", 2: "red</w>", 3: "house</w>", 4: "tree</w>"}


def tokenizer() -> Any:
    own = SimpleNamespace(start_token=0, end_token=1, inv_vocab=VOCABULARY)
    t5 = SimpleNamespace(start_token=None, end_token=1, inv_vocab=VOCABULARY)
    return SimpleNamespace(clip_l=own, clip_g=own, t5xxl=t5)


def chunk(ids: list[int], length: int = 77, start: bool = True) -> list[tuple[int, float]]:
    tokens = [0, *ids, 1] if start else [*ids, 1]
    return [(i, 1.0) for i in [*tokens, *[1] * (length - len(tokens))]]


def read(pack: Pack, tokens: Any, encoder: Any = None) -> Any:
    return pack("nodes.capture.prompt_tokens").prompts_of(tokens, tokenizer(), encoder or SimpleNamespace())


def places(prompt: Any, word: str) -> list[int]:
    rows = prompt.find(word).channels
    return [token.column for token in prompt.tokens if token.channel in rows]


def test_sd3_reads_with_clip_and_t5(pack: Pack) -> None:
    tokens = read(pack, {"l": [chunk([2, 3])], "g": [chunk([2, 3])], "t5xxl": [chunk([2, 3], 90, False)]})
    prompt = pack("nodes.capture.context_alignment").of_length(tokens, 77 + 90)
    assert prompt.labels == ["red", "house"]
    assert places(prompt, "house") == [2, 77 + 1]


def test_flux_reads_with_t5_alone(pack: Pack) -> None:
    tokens = read(pack, {"l": [chunk([2, 3])], "t5xxl": [chunk([2, 3], 256, False)]})
    assert places(pack("nodes.capture.context_alignment").of_length(tokens, 256), "house") == [1]


def test_an_encoder_that_is_not_loaded_says_nothing(pack: Pack) -> None:
    tokens = read(pack, {"l": [chunk([2])], "t5xxl": [chunk([2], 77, False)]}, SimpleNamespace(t5xxl=None))
    assert set(tokens) == {"l"}


def test_padding_without_an_end_token_is_no_word(pack: Pack) -> None:
    """Gemma has no end token: what is padded behind its words is padding all the same."""
    own = SimpleNamespace(start_token=0, end_token=None, pad_token=9, inv_vocab={**VOCABULARY, 9: "<pad>"})
    tokens = {"gemma2_2b": [[(i, 1.0) for i in (0, 2, 3, 9, 9, 9)]]}
    found = pack("nodes.capture.prompt_tokens").prompts_of(tokens, SimpleNamespace(gemma2_2b=own), SimpleNamespace())
    prompt = found["gemma2_2b"]
    assert prompt.labels == ["red", "house"]
    assert (prompt.start, prompt.end, prompt.padding, prompt.length) == ((0,), (), (3, 4, 5), 6)


def test_pieces_of_bert_make_words(pack: Pack) -> None:
    """A piece that goes on with a word begins with ##; the others begin one."""
    vocabulary = {0: "[CLS]", 1: "[SEP]", 2: "red", 3: "ho", 4: "##use"}
    inner = type("BertTokenizerFast", (), {})()
    own = SimpleNamespace(start_token=0, end_token=1, inv_vocab=vocabulary, tokenizer=inner)
    tokens = {"hydit_clip": [[(i, 1.0) for i in (0, 2, 3, 4, 1)]]}
    found = pack("nodes.capture.prompt_tokens").prompts_of(tokens, SimpleNamespace(hydit_clip=own), SimpleNamespace())
    assert found["hydit_clip"].labels == ["red", "house"]
    assert places(found["hydit_clip"], "house") == [2, 3]


def test_sdxl_cuts_the_longer_encoder_to_the_shorter(pack: Pack) -> None:
    tokens = read(pack, {"l": [chunk([2, 3])], "g": [chunk([2, 3]), chunk([4])]})
    prompt = pack("nodes.capture.context_alignment").of_length(tokens, 77)
    assert prompt.labels == ["red", "house"]


def test_a_concatenation_is_remembered(pack: Pack) -> None:
    """The second half's words are found by its numbers; columns of which nothing is known are padding."""
    spoken_module, columns = pack("nodes.capture.prompt_tokens"), pack("nodes.capture.context_alignment")
    first, second = read(pack, {"l": [chunk([2, 3])]}), read(pack, {"l": [chunk([4])]})
    contexts = torch.randn(3, 1, 77, 4, generator=torch.Generator().manual_seed(11))
    spoken_module.ENCODINGS.keep(contexts[1], second)
    both = columns.context_prompt(first, torch.cat([contexts[0], contexts[1]], 1))
    assert both.labels == ["red", "house", "tree"]
    assert places(both, "tree") == [78]
    unknown = columns.context_prompt(first, torch.cat([contexts[0], contexts[2]], 1))
    assert unknown.labels == ["red", "house"]
    assert set(range(77, 154)) <= set(unknown.padding)


def test_an_encoding_with_exchanged_columns_keeps_its_words(pack: Pack) -> None:
    """PhotoMaker takes its trigger out of the text and puts a face into the word before it."""
    memory, columns = pack("nodes.capture.prompt_tokens"), pack("nodes.capture.context_alignment")
    tokens = read(pack, {"l": [chunk([2, 3])]})
    context = torch.randn(1, 77, 4, generator=torch.Generator().manual_seed(12))
    memory.ENCODINGS.keep(context, tokens)
    face, of_another_text = context.clone(), context.clone()
    face[:, 2] += 1
    of_another_text[:, 76] += 1
    found = columns.context_prompt(None, face)
    assert found.labels == ["red", "house"] and places(found, "house") == [2]
    assert columns.context_prompt(None, of_another_text).labels[:2] == ["0", "1"]
    face[:, 3:50] += 1
    assert columns.context_prompt(None, face).labels[:2] == ["0", "1"], "little is the same"


def test_words_swapped_for_those_of_another_text_are_not_the_first_one_s(pack: Pack) -> None:
    """The column of a word out of another encoding; beside it, a face in an encoding whose other columns are known twice."""
    memory, columns = pack("nodes.capture.prompt_tokens"), pack("nodes.capture.context_alignment")
    generator = torch.Generator().manual_seed(21)
    house, tree = torch.randn(1, 77, 4, generator=generator), torch.randn(1, 77, 4, generator=generator)
    emphasized = house.clone()
    emphasized[:, 1] *= 1.3
    for context, ids in ((emphasized, [2, 3]), (house, [2, 3]), (tree, [2, 4])):
        memory.ENCODINGS.keep(context, read(pack, {"l": [chunk(ids)]}))
    swapped, face = house.clone(), emphasized.clone()
    swapped[:, 2] = tree[:, 2]
    face[:, 2] += 1
    assert columns.context_prompt(None, swapped).labels[:2] == ["0", "1"]
    assert columns.context_prompt(None, face).labels == ["red", "house"]


def test_nothing_known_is_counted(pack: Pack) -> None:
    prompt = pack("nodes.capture.context_alignment").context_prompt(None, torch.rand(1, 5, 4))
    assert prompt.labels == ["0", "1", "2", "3", "4"]


def test_memory_of_prompts_is_bounded(pack: Pack) -> None:
    remembered = pack("nodes.capture.prompt_tokens").EncodingCache(most=2)
    contexts = [torch.full((1, 3, 2), float(k)) for k in range(3)]
    for context in contexts:
        remembered.keep(context, {})
    assert [remembered.find(context) is not None for context in contexts] == [False, True, True]


def test_a_text_that_does_not_fit_is_refused(pack: Pack) -> None:
    tokens = read(pack, {"l": [chunk([2, 3])], "t5xxl": [chunk([2], 100, False)]})
    with pytest.raises(pack("daam_core.errors").BadArgument, match="90 columns, and this one has 77 or 100"):
        pack("nodes.capture.context_alignment").words_for(tokens, 90)


def test_a_chat_template_has_no_words(pack: Pack) -> None:
    """Qwen-Image: system text and template before and after; the encoder then drops the system text."""
    newline = "\u010a"
    names = ["<|im_start|>", "system", newline, "Describe", "<|im_end|>", newline]
    names += ["<|im_start|>", "user", newline, "red", "\u0120house", "<|im_end|>", newline]
    names += ["<|im_start|>", "assistant", newline]
    own = SimpleNamespace(start_token=None, end_token=None, inv_vocab=dict(enumerate(names)))
    tokens = {"qwen25_7b": [[(i, 1.0) for i in range(len(names))]]}
    tokens = pack("nodes.capture.prompt_tokens").prompts_of(tokens, SimpleNamespace(qwen25_7b=own), SimpleNamespace())
    assert tokens["qwen25_7b"].labels == ["red", "house"] and tokens["qwen25_7b"].text == "red house"
    cut = pack("nodes.capture.context_alignment").of_length(tokens, len(names) - 9)
    assert places(cut, "house") == [1]


def test_columns_that_the_model_pads(pack: Pack) -> None:
    """Flux.2 dev puts padding ahead of a short text; a model may as well put it behind. What is neither is known by number."""
    columns = pack("nodes.capture.context_alignment")
    prompt = pack("daam_core.prompt.prompt").Prompt.by_index(4)
    text = torch.randn(1, 4, 8)
    nothing = torch.zeros(1, 6, 8)
    left = columns.placed(prompt, text, torch.cat([nothing, text], 1))
    assert [token.column for token in left.tokens] == [token.column + 6 for token in prompt.tokens]
    assert (left.length, left.padding) == (10, tuple(range(6)))
    right = columns.placed(prompt, text, torch.cat([text, nothing], 1))
    assert [token.column for token in right.tokens] == [token.column for token in prompt.tokens]
    assert (right.length, right.padding) == (10, tuple(range(4, 10)))
    assert columns.placed(prompt, text, torch.randn(1, 10, 8)) == pack("daam_core.prompt.prompt").Prompt.by_index(10)
    assert columns.placed(prompt, text, torch.randn(1, 4, 8)) is prompt


def templated(pack: Pack, *texts: str, pad: str = "<pad>") -> Any:
    """A prompt of one encoder whose tokens are these texts."""
    names = dict(enumerate(texts))
    own = SimpleNamespace(start_token=None, end_token=None, inv_vocab={**names, 999: pad}, pad_token=999)
    ids = [next(i for i, text in names.items() if text == one) if one != pad else 999 for one in texts]
    return pack("nodes.capture.prompt_tokens").prompts_of(
        {"m": [[(i, 1.0) for i in ids]]}, SimpleNamespace(m=own), SimpleNamespace()
    )["m"]


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (["[SYSTEM_PROMPT]", "You", "[/SYSTEM_PROMPT]", "[INST]"], ["[/INST]"]),
        (["<|im_start|>", "user", "Ċ"], ["<|im_end|>", "Ċ"]),
        (["<|im_start|>", "system", "Ċ", "say", "<|im_end|>", "Ċ", "<|im_start|>", "user", "Ċ"], ["<|im_end|>"]),
        (["<start_of_turn>", "user", "Ċ"], ["<end_of_turn>"]),
        (["<|start_header_id|>", "user", "<|end_header_id|>", "ĊĊ"], ["<|eot_id|>"]),
        (["<|im_start|>", "user", "Ċ", "<|vision_start|>", "picture", "<|vision_end|>"], ["<|im_end|>"]),
    ],
)
def test_templates_are_found_by_what_they_say(pack: Pack, before: list[str], behind: list[str]) -> None:
    prompt = templated(pack, *before, "red", "Ġhouse", "<pad>", "<pad>", *behind)
    n = len(before)
    assert [word.text for word in prompt.words] == ["red", "house"] and prompt.text == "red house"
    assert [token.column for token in prompt.tokens] == [n, n + 1]
    assert (prompt.start, prompt.padding) == (tuple(range(n)), (n + 2, n + 3))
    assert prompt.end == tuple(range(n + 4, n + 4 + len(behind)))
    # Encoders drop the head, or head and tail.
    columns = pack("nodes.capture.context_alignment")
    for dropped in (len(behind), 0):
        cut = columns.of_length({"m": prompt}, 4 + dropped)
        assert [token.column for token in cut.tokens] == [0, 1], dropped


def test_a_prompt_without_a_template_is_all_words(pack: Pack) -> None:
    assert [word.text for word in templated(pack, "red", "Ġhouse").words] == ["red", "house"]


def test_pictures_in_a_prompt(pack: Pack) -> None:
    """A picture is one entry and many columns; how many, the encoder is asked while it encodes, and left as it was."""
    own = pack("nodes.capture.prompt_tokens")

    class Network:
        def preprocess_embed(self, embed: Any, device: str) -> tuple[torch.Tensor, None]:
            return torch.zeros(1, embed["columns"], 8), None

    network = Network()
    tokens = {"m": [[({"type": "image", "columns": 3}, 1.0), (2, 1.0), ({"type": "image", "columns": 2}, 1.0), (3, 1.5)]]}
    with pack("nodes.capture.recording_encoder")._PictureLengths(
        SimpleNamespace(m=SimpleNamespace(transformer=network)), tokens
    ) as lengths:
        for entry in (tokens["m"][0][0][0], tokens["m"][0][2][0]):
            network.preprocess_embed(entry, device="cpu")
    assert lengths.found == {"m": [3, 2]}
    assert "preprocess_embed" not in vars(network)
    mine = SimpleNamespace(m=SimpleNamespace(start_token=None, end_token=None, inv_vocab=VOCABULARY))
    prompt = own.prompts_of(tokens, mine, SimpleNamespace(), lengths=lengths.found)["m"]
    assert prompt.length == 7
    assert [(token.column, token.weight) for token in prompt.tokens if token.text in ("red", "house")] == [(3, 1.0), (6, 1.5)]
    with pytest.raises(pack("daam_core.errors").BadPrompt, match="how many columns"):
        own.prompts_of(tokens, mine, SimpleNamespace())
    with pytest.raises(pack("daam_core.errors").BadPrompt, match="a str where a token stands"):
        own.prompts_of({"m": [[("red", 1.0)]]}, mine, SimpleNamespace())


def test_a_search_among_encodings_hashes_what_may_be_there(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encodings of a hundred lengths: a column for each, and one context."""
    own = pack("nodes.capture.prompt_tokens")
    cache = own.EncodingCache(most=100)
    contexts = [torch.randn(1, columns, 4) for columns in range(1, 130)]
    for context in contexts:
        cache.keep(context, {"m": context.shape[1]})
    hashed: list[int] = []
    honest = own.tensor_hash

    def counted(x: torch.Tensor) -> Any:
        hashed.append(x.numel())
        return honest(x)

    monkeypatch.setattr(own, "tensor_hash", counted)
    assert cache.find(torch.cat([torch.randn(1, 3, 4), contexts[49]], 1), 3) == (50, {"m": 50})
    assert sum(hashed) <= 100 * 4 + 50 * 4
    assert cache.find(contexts[10]) is None, "the oldest are gone"


def test_an_encoder_is_of_its_own_class(pack: Pack) -> None:
    """Other packs ask which model a CLIP is of, and encode in another way where it is none of those they know: with the
    CLIP of Record, SDXL's prompts came out as another picture, or as an error."""

    class Encoder:
        def __call__(self, x: int) -> int:
            return x + 1

        def __repr__(self) -> str:
            return "an encoder"

        def encode_token_weights(self, tokens: Any) -> tuple[torch.Tensor, None]:
            return torch.zeros(1, 77, 8), None

    class OfSdxl(Encoder):
        mark = 0

    class Clip(SimpleNamespace):
        def clone(self) -> Any:
            return Clip(cond_stage_model=self.cond_stage_model, tokenizer=tokenizer())

    own = pack("nodes.capture.recording_encoder")
    clip = Clip(cond_stage_model=OfSdxl())
    for told in (own.recording_clip(clip), own.recording_clip(own.recording_clip(clip))):
        encoder = told.cond_stage_model
        assert isinstance(encoder, OfSdxl) and isinstance(encoder, Encoder) and encoder.__class__ is OfSdxl
        assert encoder(2) == 3 and repr(encoder) == "an encoder" and "encode_token_weights" in dir(encoder)
        assert len(encoder.encode_token_weights({"l": [chunk([2])]})) == 3, "it notes the words"
        encoder.mark = 1
        assert clip.cond_stage_model.mark == 1
        del encoder.mark
        assert clip.cond_stage_model.mark == 0
        assert type(object.__getattribute__(encoder, "_encoder")) is OfSdxl, "an earlier Record gives way"
