"""What a text encoder was told: token ids and weights of a prompt, carried along inside ComfyUI's conditioning.

Nobody types a prompt twice: the CLIP that Record gives out encodes as it always did, and adds the words as one more
entry of the conditioning's own dictionary, which Combine, SetArea, SetTimestepRange and the rest hand on.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from ...daam_core.prompt.compose import mark_template
from ...daam_core.prompt.prompt import Prompt
from .tensor_hash import tensor_hash

logger = logging.getLogger("daam_lens")
KEY = "daam_lens_prompts"
PromptTokens = Mapping[str, Prompt]
"""One prompt as each of a model's text encoders read it, by ComfyUI's names for these: "l", "g", "t5xxl", "qwen25_7b", …"""


def recording_clip(clip: Any) -> Any:
    """A clone of a CLIP whose encoder notes what it is told; everything else about it is the same."""
    recorded = clip.clone()
    if not isinstance(recorded.cond_stage_model, _RecordingEncoder):
        recorded.cond_stage_model = _RecordingEncoder(recorded.cond_stage_model, recorded.tokenizer)
    return recorded


def prompt_tokens(clip: Any, text: str) -> PromptTokens:
    """`text` as the encoders of `clip` read it; nothing is encoded."""
    return prompts_of(clip.tokenize(text), clip.tokenizer, clip.cond_stage_model, text)


def prompts_of(tokens: Mapping[str, Any], tokenizer: Any, encoder: Any, text: str = "") -> PromptTokens:
    """ComfyUI's tokens `{encoder: [[(id or vector, weight, …), …], …]}` as prompts, for the encoders that are loaded."""
    found: dict[str, Prompt] = {}
    for name, batches in tokens.items():
        vocabulary = _vocabulary(tokenizer, name)
        if vocabulary is None or not batches or not _loaded(encoder, name):
            continue
        ids = [[_entry(token[0], last) for token, last in _with_last(batch)] for batch in batches]
        weights = [[float(token[1]) for token in batch] for batch in batches]
        prompt = Prompt.from_ids(ids, vocabulary, weights, text)
        found[name] = _without_template(prompt, ids[0], vocabulary) if len(ids) == 1 else prompt
    return found


class _RecordingEncoder:
    """Stands before a text encoder; only `encode_token_weights` is its own."""

    def __init__(self, encoder: Any, tokenizer: Any) -> None:
        object.__setattr__(self, "_encoder", encoder)
        object.__setattr__(self, "_tokenizer", tokenizer)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_encoder"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._encoder, name, value)

    def encode_token_weights(self, tokens: Any, *args: Any, **kwargs: Any) -> Any:
        """What the encoder gives, and the words beside it."""
        given = self._encoder.encode_token_weights(tokens, *args, **kwargs)
        try:
            prompts = prompts_of(tokens, self._tokenizer, self._encoder)
            if not prompts:
                return given
            ENCODINGS.keep(given[0], prompts)
            return (given[0], given[1], {**(given[2] if len(given) > 2 else {}), KEY: prompts}, *given[3:])
        except Exception:
            logger.debug("The words of a prompt could not be read; its maps are kept by column.", exc_info=True)
            return given


class EncodingCache:
    """The prompts of recent encodings, found again by the encoding itself.

    ConditioningConcat keeps the words of one side only, and some packs drop the dictionary: the numbers are still there.
    """

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._prompts: OrderedDict[str, PromptTokens] = OrderedDict()
        self._lengths: OrderedDict[int, None] = OrderedDict()

    def keep(self, context: Tensor, prompts: PromptTokens) -> None:
        """Remember that `context` `[1, columns, d]` says `prompts`."""
        key = tensor_hash(context)
        self._prompts[key] = prompts
        self._prompts.move_to_end(key)
        self._lengths[context.shape[1]] = None
        while len(self._prompts) > self._most:
            self._prompts.popitem(last=False)

    def find(self, context: Tensor, first: int = 0) -> tuple[int, PromptTokens] | None:
        """(columns, prompts) of an encoding that stands in `context` `[1, columns, d]` from column `first` on."""
        for columns in self._lengths:
            if first + columns <= context.shape[1]:
                prompts = self._prompts.get(tensor_hash(context[:, first : first + columns]))
                if prompts is not None:
                    return columns, prompts
        return None


ENCODINGS = EncodingCache()
"""Nodes have no state of their own, and a prompt is encoded long before it is sampled."""


class _Vocabulary:
    """One of ComfyUI's tokenizers as `Prompt.from_ids` wants it."""

    def __init__(self, tokenizer: Any) -> None:
        self.bos_token_id: int | None = tokenizer.start_token
        self.eos_token_id: int | None = tokenizer.end_token
        self._pieces: Mapping[int, str] = tokenizer.inv_vocab

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self._pieces.get(i, f"<{i}>") for i in ids]

    def get_added_vocab(self) -> dict[str, int]:
        return {}


def _vocabulary(tokenizer: Any, name: str) -> _Vocabulary | None:
    for attribute in (f"clip_{name}", name, getattr(tokenizer, "clip", name)):
        own = getattr(tokenizer, attribute, None)
        if hasattr(own, "inv_vocab"):
            return _Vocabulary(own)
    return None


def _loaded(encoder: Any, name: str) -> bool:
    """False where the model has a place for this encoder, and it is empty (SD3 without T5)."""
    return not any(getattr(encoder, attribute, encoder) is None for attribute in (f"clip_{name}", name))


def _with_last(batch: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    last = None
    for token in batch:
        yield token, last
        last = token[0]


def _entry(token: Any, last: Any) -> int | str:
    """An id, or the name of an embedding and an empty string for each of its further vectors."""
    if isinstance(token, Tensor):
        return "" if isinstance(last, Tensor) else "embedding"
    return int(token)


def _without_template(prompt: Prompt, ids: Sequence[int | str], vocabulary: _Vocabulary) -> Prompt:
    """A chat model is asked inside a template; its words are not the user's."""
    pieces = [vocabulary.convert_ids_to_tokens([i])[0] if isinstance(i, int) else "" for i in ids]
    starts = [i for i, piece in enumerate(pieces) if piece == "<|im_start|>"]
    if len(starts) < 2 or "<|im_end|>" not in pieces[starts[-2] : starts[-1]]:
        return prompt
    head = starts[-2] + 3  # <|im_start|> user \n
    last = starts[-2] + pieces[starts[-2] : starts[-1]].index("<|im_end|>")
    return mark_template(prompt, head, prompt.length - last)
