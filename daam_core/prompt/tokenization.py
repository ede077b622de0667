"""A host's token ids as chunks: the role of each position, and the bytes of each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..errors import BadPrompt
from .alignment import piece_bytes

CHUNK = 77
SPECIALS = ("<start>", "<end>", "<padding>")


class Tokenizer(Protocol):
    """What is used of transformers' tokenizers."""

    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def eos_token_id(self) -> int | None: ...
    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]: ...
    def get_added_vocab(self) -> dict[str, int]: ...


def as_chunks(ids: Any, start: int | None) -> list[list[int | str]]:
    """Ids as given to `Prompt.from_ids` -> chunks; a flat list is cut where every 77th id is `start`."""
    entries = list(ids.tolist() if hasattr(ids, "tolist") else ids)
    if entries and not isinstance(entries[0], (int, str)) and hasattr(entries[0], "__len__"):
        return [_entries(part) for part in entries]
    flat = _entries(entries)
    whole = len(flat) % CHUNK == 0 and start is not None and all(entry == start for entry in flat[::CHUNK])
    return [flat[i : i + CHUNK] for i in range(0, len(flat), CHUNK)] if whole else [flat]


def _entries(part: Any) -> list[int | str]:
    return [x if isinstance(x, str) else int(x) for x in (part.tolist() if hasattr(part, "tolist") else part)]


def flattened(weights: Any) -> list[float]:
    """Weights of all chunks, one after the other."""
    entries = weights.tolist() if hasattr(weights, "tolist") else weights
    return [w for part in entries for w in (part if isinstance(part, (list, tuple)) else [part])]


def roles(chunk: Sequence[int | str], start: int | None, end: int | None) -> list[str]:
    """The role of each place of a chunk: "<start>", "token", "<end>" or "<padding>".

    Padding is known by its position alone: its id may be the end token's (SD 1) or that of "!" (SD 2, SDXL's second
    encoder), and a prompt may hold "!" itself.
    """
    roles = ["token"] * len(chunk)
    if chunk and chunk[0] == start:
        roles[0] = "<start>"
    ends = [i for i, entry in enumerate(chunk) if entry == end and roles[i] == "token"]
    if ends:
        roles[ends[0] :] = ["<end>", *["<padding>"] * (len(chunk) - ends[0] - 1)]
    return roles


def spelling(entries: Sequence[int | str], tokenizer: Tokenizer) -> list[bytes]:
    """The bytes each token spells. Added tokens and named embeddings spell their name, their further vectors
    (`<cat-toy>_1` after `<cat-toy>`, as diffusers numbers them) nothing."""
    ids = [entry for entry in entries if isinstance(entry, int)]
    pieces: list[str | None] = list(tokenizer.convert_ids_to_tokens(ids)) if ids else []
    unknown = [number for number, piece in zip(ids, pieces, strict=True) if piece is None]
    if unknown:
        raise BadPrompt(f"Token id {unknown[0]} is not in the tokenizer's vocabulary: give the model's own tokenizer.")
    plain = iter(zip(pieces, piece_bytes([piece or "" for piece in pieces]), strict=True))
    added = tokenizer.get_added_vocab()
    spelled: list[bytes] = []
    name, vectors = "", 0
    for entry in entries:
        piece, code = (entry, b"") if isinstance(entry, str) else next(plain)
        named = isinstance(entry, str) or piece in added
        if named and piece in ("", f"{name}_{vectors + 1}") and spelled:
            vectors += 1
            spelled.append(b"")
            continue
        name, vectors = (piece or "", 0) if named else ("", 0)
        spelled.append(f" {name} ".encode() if named else code)
    return spelled
