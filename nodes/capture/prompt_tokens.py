"""What a text encoder was told: token ids and weights of a prompt, carried along inside ComfyUI's conditioning.

Nobody types a prompt twice: the CLIP that Record gives out encodes as it always did, and adds the words as one more
entry of the conditioning's own dictionary, which Combine, SetArea, SetTimestepRange and the rest hand on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from numbers import Integral
from threading import RLock
from types import MappingProxyType
from typing import Any

from torch import Tensor

from ...daam_core.errors import BadPrompt
from ...daam_core.prompt.compose import mark_template
from ...daam_core.prompt.prompt import Prompt
from ...daam_core.prompt.tokenization import CHUNK
from .tensor_hash import tensor_hash

KEY = "daam_lens_prompts"
COLUMNS = "daam_lens_columns"
"""Beside them: of how many columns the encoding was, to which other nodes may add (ConditioningConcat, style models)."""
ENCODING = "daam_lens_encoding"
"""And its hash, so that an encoding whose numbers somebody has changed since is known."""
_NOTHING: Mapping[str, Sequence[int]] = MappingProxyType({})
PromptTokens = Mapping[str, Prompt]
"""One prompt as each of a model's text encoders read it, by ComfyUI's names for these: "l", "g", "t5xxl", "qwen25_7b", …"""


def prompt_tokens(clip: Any, text: str) -> PromptTokens:
    """`text` as the encoders of `clip` read it; nothing is encoded."""
    return prompts_of(clip.tokenize(text), clip.tokenizer, clip.cond_stage_model, text)


def prompts_of(
    tokens: Mapping[str, Any], tokenizer: Any, encoder: Any, text: str = "", lengths: Mapping[str, Sequence[int]] = _NOTHING
) -> PromptTokens:
    """ComfyUI's tokens `{encoder: [[(id or vector, weight, …), …], …]}` as prompts, for the encoders that are loaded.

    A picture is one entry and many columns: `lengths` are those of the pictures of each encoder, in order.
    """
    found: dict[str, Prompt] = {}
    for name, batches in tokens.items():
        vocabulary = _vocabulary(tokenizer, name)
        if vocabulary is None or not batches or not _loaded(encoder, name):
            continue
        own = iter(lengths.get(name, ()))
        columns = [[column for token in _with_last(batch) for column in _columns_of(*token, own)] for batch in batches]
        ids, weights = [[i for i, _ in row] for row in columns], [[weight for _, weight in row] for row in columns]
        prompt = Prompt.from_ids(ids, vocabulary, weights, text)
        bare = _without_template(prompt, ids[0], vocabulary) if len(ids) == 1 else prompt
        found[name] = bare if text or bare is prompt else replace(bare, text=_own_text(bare, ids[0], vocabulary))
    return found


class EncodingCache:
    """The prompts of recent encodings, found again by the encoding itself.

    ConditioningConcat keeps the words of one side only, and some packs drop the dictionary: the numbers are still there.
    An encoding is looked for by its length and the numbers of its last column, and hashed only where these are known, so that
    a search costs a column for each length and not a context.
    """

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._prompts: OrderedDict[tuple[int, str, str], PromptTokens] = OrderedDict()
        self._columns: dict[tuple[int, str, str], tuple[str, ...]] = {}
        self._lock = RLock()  # some packs encode in a thread of their own

    def keep(self, context: Tensor, prompts: PromptTokens) -> str:
        """Remember that `context` `[1, columns, d]` says `prompts`; gives its hash, empty where it is no such tensor."""
        with self._lock:
            if not isinstance(context, Tensor) or context.dim() != 3 or not context.shape[1]:
                return ""
            key = context.shape[1], tensor_hash(context[:, -1]), tensor_hash(context)
            self._prompts[key] = prompts
            self._prompts.move_to_end(key)
            if set(prompts) <= _CAUSAL and context.shape[1] <= _MOST_CHUNKS * CHUNK:
                self._columns[key] = tuple(tensor_hash(context[:, i]) for i in range(context.shape[1]))
            while len(self._prompts) > self._most:
                self._columns.pop(self._prompts.popitem(last=False)[0], None)
            return key[2]

    def find(self, context: Tensor, first: int = 0) -> tuple[int, PromptTokens] | None:
        """(columns, prompts) of an encoding that stands in `context` `[1, columns, d]` from column `first` on."""
        with self._lock:
            lengths = dict.fromkeys(columns for columns, _, _ in self._prompts if first + columns <= context.shape[1])
            known = {(columns, last) for columns, last, _ in self._prompts}
            for columns in lengths:
                last = tensor_hash(context[:, first + columns - 1])
                if (columns, last) in known:
                    prompts = self._prompts.get((columns, last, tensor_hash(context[:, first : first + columns])))
                    if prompts is not None:
                        return columns, prompts
            return None

    def altered(self, context: Tensor) -> PromptTokens | None:
        """The prompts of an encoding of CLIP's in which somebody has exchanged a few columns since (PhotoMaker puts a face into
        a word's) and that is `context` `[1, columns, d]` otherwise.

        A column depends on all tokens before it, so the last one of each chunk says that the tokens are these; most of the
        others have to be the same, too. Columns out of another known text (a node that swaps words) say that text's words.
        """
        with self._lock:
            known = [key for key in self._columns if key[0] == context.shape[1]]
            if not known or context.shape[0] != 1:
                return None
            columns = [tensor_hash(context[:, i]) for i in range(context.shape[1])]
            ends = range(CHUNK - 1, len(columns), CHUNK)
            for key in reversed(known):
                own = self._columns[key]
                exchanged = [other for one, other in zip(own, columns, strict=True) if one != other]
                ended = len(columns) % CHUNK == 0 and all(own[i] == columns[i] for i in ends)
                if not ended or 2 * len(exchanged) >= len(columns):
                    continue
                if all(set(exchanged).isdisjoint(others) for others in self._columns.values()):
                    return self._prompts[key]
            return None


_CAUSAL = {"l", "g"}
"""Encoders whose columns depend on the tokens before them: CLIP's."""
_MOST_CHUNKS = 4
"""So many are told column by column."""
ENCODINGS = EncodingCache()
"""Nodes have no state of their own, and a prompt is encoded long before it is sampled."""


class _Vocabulary:
    """One of ComfyUI's tokenizers as `Prompt.from_ids` wants it."""

    def __init__(self, tokenizer: Any) -> None:
        self.bos_token_id: int | None = tokenizer.start_token
        self.eos_token_id: int | None = tokenizer.end_token
        self.pad_token_id: int | None = getattr(tokenizer, "pad_token", None)
        self._pieces: Mapping[int, str] = tokenizer.inv_vocab
        self._word_pieces = type(getattr(tokenizer, "tokenizer", None)).__name__.startswith("Bert")

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        pieces = [self._pieces.get(i, f"<{i}>") for i in ids]
        if self._word_pieces:  # a piece that goes on with a word begins with "##", one that begins a word with nothing
            pieces = [piece[2:] if piece.startswith("##") else f"\u2581{piece}" for piece in pieces]
        return pieces

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


def _columns_of(token: Sequence[Any], last: Any, lengths: Iterator[int]) -> list[tuple[int | str, float]]:
    """(id, weight) of each column of a token; the name of an embedding or picture, and an empty string for each further
    vector of it.

    Raises:
        BadPrompt: a picture of unknown length, or another kind of entry.
    """
    entry, weight = token[0], float(token[1])
    if isinstance(entry, Tensor):
        return [("" if isinstance(last, Tensor) else "embedding", weight)]
    if isinstance(entry, Mapping):
        own = entry.get("data") if entry.get("type") == "embedding" else None
        columns = own.reshape(-1, own.shape[-1]).shape[0] if isinstance(own, Tensor) else next(lengths, None)
        if columns is None:
            raise BadPrompt("The prompt holds a picture, and nobody can say how many columns the encoder makes of it.")
        return [("picture" if i == 0 else "", weight) for i in range(columns)]
    if isinstance(entry, (int, Integral)):
        return [(int(entry), weight)]
    raise BadPrompt(f"The prompt holds a {type(entry).__name__} where a token stands.")


_TURNS = (
    ("<|im_start|>user\n", "<|im_end|>"),
    ("[INST]", "[/INST]"),
    ("<start_of_turn>user\n", "<end_of_turn>"),
    ("<|start|>user<|message|>", "<|end|>"),
    ("or evaluations:\nUser Prompt:", "<pad>"),
    ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
)
"""What stands before and behind the user's words in the templates of chat models."""
_PICTURE_END = "<|vision_end|>"


def _without_template(prompt: Prompt, ids: Sequence[int | str], vocabulary: _Vocabulary) -> Prompt:
    """A chat model is asked inside a template, found by what it says: its words are not the user's, and what is given to it
    beside the text, pictures and padding, is no word either."""
    pieces = [vocabulary.convert_ids_to_tokens([i])[0] if isinstance(i, int) else "" for i in ids]
    written = [piece.replace("Ċ", "\n").replace("Ġ", " ").replace("\u2581", " ") for piece in pieces]
    found = _turn(written)
    if found is None:
        return _without_padding(prompt, ids, vocabulary)
    head, last = found
    stop = last
    while stop > head and ids[stop - 1] == vocabulary.pad_token_id:
        stop -= 1
    marked = mark_template(prompt, head, prompt.length - stop)
    padding = range(stop, last)
    end = tuple(column for column in marked.end if column not in padding)
    return replace(marked, end=end, padding=(*marked.padding, *padding))


def _own_text(prompt: Prompt, ids: Sequence[int | str], vocabulary: _Vocabulary) -> str:
    """What the tokens of a prompt say, without the template around them."""
    own = [ids[token.column] for token in prompt.tokens]
    return Prompt.from_ids(own, vocabulary).text if own else ""


def _without_padding(prompt: Prompt, ids: Sequence[int | str], vocabulary: _Vocabulary) -> Prompt:
    """What is padded without an end token before it has padding behind its words, and no words there; what is padded ahead has
    none ahead of its start token."""
    stop = len(ids)
    while stop and ids[stop - 1] == vocabulary.pad_token_id:
        stop -= 1
    first = next((i for i, token in enumerate(ids) if token != vocabulary.pad_token_id), 0)
    if first and ids[first] == vocabulary.bos_token_id:
        first += 1
    if not first and not any(token.column >= stop for token in prompt.tokens):
        return prompt
    marked = mark_template(prompt, first, prompt.length - stop)
    padding = tuple(range(stop, prompt.length))
    return replace(marked, end=tuple(c for c in marked.end if c < stop), padding=(*marked.padding, *padding))


def _turn(written: Sequence[str]) -> tuple[int, int] | None:
    """The tokens, first to last (exclusive), of what the user said last, and after any picture; None without a template."""
    whole = "".join(written)
    for before, behind in _TURNS:
        at = whole.rfind(before)
        if at < 0:
            continue
        first = at + len(before)
        stop = whole.find(behind, first)
        stop = len(whole) if stop < 0 else stop
        pictured = whole.rfind(_PICTURE_END, first, stop)
        first = first if pictured < 0 else pictured + len(_PICTURE_END)
        ends = list(accumulate(map(len, written)))
        starts = [0, *ends[:-1]]
        head = next((i for i, start in enumerate(starts) if start >= first), len(written))
        return head, next((i for i in range(head, len(written)) if starts[i] >= stop), len(written))
    return None
