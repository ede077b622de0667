"""A prompt as plain numbers, strings and lists, and back, as records hold it."""

from __future__ import annotations

from typing import Any

from ..errors import BadPrompt, BadRecord, quoted
from ..prompt.prompt import Prompt, Token, Word
from .record_values import Values

LONGEST_ENCODER = 40
"""Characters of the name of a text encoder."""


def prompt_to_dict(prompt: Prompt) -> dict[str, Any]:
    """Plain numbers, strings and lists, ready for JSON. Records call a channel a row."""
    return {
        "text": prompt.text,
        "tokens": [_token_to_dict(token) for token in prompt.tokens],
        "words": [{"label": w.label, "text": w.text, "weight": w.weight, "rows": list(w.channels)} for w in prompt.words],
        "start": list(prompt.start),
        "end": list(prompt.end),
        "padding": list(prompt.padding),
        "length": prompt.length,
        "truncated": list(prompt.truncated),
    }


def _encoder(token: Values) -> str:
    name = "" if token.get("encoder") is None else token.text("encoder")
    if len(name) > LONGEST_ENCODER:
        told = f"This record names a text encoder {quoted(name, 40)}, which is longer than any; it was damaged or changed."
        raise BadRecord(told)
    return name


def _token_to_dict(token: Token) -> dict[str, Any]:
    found = {"column": token.column, "text": token.text, "weight": token.weight, "row": token.channel}
    return {**found, "encoder": token.encoder} if token.encoder else found


def prompt_from_dict(values: Values) -> Prompt:
    """The inverse of `prompt_to_dict`.

    Raises:
        BadRecord: anything that `prompt_to_dict` cannot have written.
    """
    most = 2**20
    tokens = tuple(
        Token(t.whole("column", 0, most), t.text("text"), t.whole("row", 1, most), t.number("weight"), _encoder(t))
        for t in values.each("tokens")
    )
    words = tuple(
        Word(w.text("label"), w.text("text"), tuple(w.wholes("rows", 1, most)), w.number("weight"))
        for w in values.each("words")
    )
    start, end, padding = (tuple(values.wholes(name, 0, most)) for name in ("start", "end", "padding"))
    length = values.whole("length", 0, most)
    try:
        return Prompt(values.text("text"), tokens, words, start, end, padding, length, tuple(values.texts("truncated")))
    except BadPrompt as error:
        raise BadRecord(f"The record's prompt cannot be read ({error}); the file was damaged or changed.") from error
