"""A prompt as the host's own text encoder reads it: its chunks of 77 tokens, weights, BREAK, embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daam_core.errors import UnsupportedModel
from daam_core.prompt.prompt import Prompt


def engine_of(model: Any) -> Any:
    """The text encoder of a loaded checkpoint that can cut a line into chunks (`tokenize_line`).

    Raises:
        UnsupportedModel: it has none.
    """
    for name in (
        "text_processing_engine",
        "text_processing_engine_l",
        "text_processing_engine_g",
        "cond_stage_model",
        "conditioner",
    ):
        found = getattr(model, name, None)
        for engine in (found, *(getattr(found, "embedders", None) or ())):
            if hasattr(engine, "tokenize_line"):
                return engine
    raise UnsupportedModel(
        f"The text encoder of this checkpoint ({type(model).__name__}) is not one of Stable Diffusion 1, 2 or XL, so its "
        "words cannot be read."
    )


def read(engine: Any, line: str, chunks: Sequence[Any] | None = None) -> Prompt:
    """One line of a prompt (one part of AND, one step of a schedule) as columns and words.

    Args:
        engine: the text encoder.
        line: the text.
        chunks: its tokens, weights and embeddings where the encoder is given others than `tokenize_line` says.
    """
    if chunks is None:
        chunks, _count = engine.tokenize_line(line)
    ids: list[list[int | str]] = []
    for chunk in chunks:
        entries: list[int | str] = [int(token) for token in chunk.tokens]
        for fix in chunk.fixes:
            first = fix.offset + 1  # behind the start token
            last = min(first + int(fix.embedding.vectors), len(entries) - 1)
            for at in range(first, last):
                entries[at] = str(fix.embedding.name) if at == first else ""
        ids.append(entries)
    weights = [[float(weight) for weight in chunk.multipliers] for chunk in chunks]
    return Prompt.from_ids(ids, Vocabulary(engine), weights, line)


class Vocabulary:
    """A host's tokenizer as `Prompt.from_ids` wants it: transformers' (SD 1, XL) or open_clip's (SD 2)."""

    def __init__(self, engine: Any) -> None:
        self.bos_token_id: int | None = int(engine.id_start)
        self.eos_token_id: int | None = int(engine.id_end)
        tokenizer = getattr(engine, "tokenizer", None)
        if not hasattr(tokenizer, "convert_ids_to_tokens") and not hasattr(tokenizer, "decoder"):
            tokenizer = _open_clip()
        self._tokenizer: Any = tokenizer

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        if hasattr(self._tokenizer, "convert_ids_to_tokens"):
            pieces: list[str] = self._tokenizer.convert_ids_to_tokens(ids)
            return pieces
        decoder: Mapping[int, str] = self._tokenizer.decoder
        return [decoder[i] for i in ids]

    def get_added_vocab(self) -> dict[str, int]:
        found: Mapping[str, int] = getattr(self._tokenizer, "get_added_vocab", dict)()
        return dict(found)


def _open_clip() -> Any:
    import open_clip.tokenizer

    return open_clip.tokenizer._tokenizer
