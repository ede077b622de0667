"""A small CLIP tokenizer: every word of the world is one token, any other text still tokenises byte by byte.

The vocabulary has CLIP's layout (256 bytes, 256 bytes with `</w>`, merges, `<|startoftext|>`, `<|endoftext|>`),
so that stock `CLIPTokenizer` classes read it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from .captions import COLOUR_NAMES, PLACES, RELATIONS, SIZE_NAMES
from .shapes import NOUNS

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START = "<|startoftext|>"
END = "<|endoftext|>"
LENGTH = 77
# Words that people try although no caption has them; one token each keeps their maps readable.
_EXTRA = (
    "an the of is are in with left right under over behind near two one image photo painting little large tiny "
    "white black brown grey sky water"
)


def words() -> list[str]:
    """Every word that is one token, sorted."""
    grammar = " ".join(["a", "picture", "drawing", *RELATIONS, *PLACES.values()])
    return sorted({*COLOUR_NAMES, *NOUNS, *SIZE_NAMES, *grammar.split(), *_EXTRA.split()})


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes, in CLIP's order."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + k) for k in range(len(hidden))]


def merges_for(vocabulary: list[str]) -> list[tuple[str, str]]:
    """BPE merges, in rank order, after which each word is a single token.

    Words are built letter by letter from the left, but their prefixes are merged only where no other word's merge
    would take a letter away first: longest-first ranks would break that, so each word is replayed through the merges
    found so far and its remaining pieces are joined from the left.
    """
    merges: list[tuple[str, str]] = []
    changed = True
    while changed:
        changed = False
        for word in vocabulary:
            pieces = bpe(word, merges)
            while len(pieces) > 1:
                merges.append((pieces[0], pieces[1]))
                pieces = bpe(word, merges)
                changed = True
    return merges


def bpe(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding of one ASCII word: merge the pair of the lowest rank until none is left."""
    rank = {pair: k for k, pair in enumerate(merges)}
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        pairs = list(zip(pieces, pieces[1:], strict=False))
        best = min(pairs, key=lambda pair: rank.get(pair, len(merges)))
        if best not in rank:
            break
        joined: list[str] = []
        for piece in pieces:
            if joined and (joined[-1], piece) == best:
                joined[-1] += piece
            else:
                joined.append(piece)
        pieces = joined
    return pieces


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write the tokenizer's files into `folder` and load them."""
    from transformers import CLIPTokenizer

    merges = merges_for(words())
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *dict.fromkeys(a + b for a, b in merges), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {token: k for k, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer
