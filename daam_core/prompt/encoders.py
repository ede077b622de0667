"""Which text encoder read a word, where a model joins the columns of several, as SD3 those of CLIP and T5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import BadArgument, WordNotFound, quoted
from .words import Word

if TYPE_CHECKING:
    from .prompt import Prompt

_NAMES = {
    "l": "CLIP", "g": "CLIP", "h": "CLIP", "hydit_clip": "CLIP", "t5xxl": "T5", "umt5xxl": "T5", "mt5xl": "T5",
    "llama": "Llama", "qwen25_7b": "Qwen", "byt5": "byT5",
}  # fmt: skip


def encoder_name(key: str) -> str:
    """What people call the encoder that ComfyUI has under a key; the key itself where it is another."""
    return _NAMES.get(key, key)


def encoders_of(prompt: Prompt) -> list[str]:
    """The encoders that read words of a prompt, in the order of their columns; none where they are not told apart."""
    names = {token.channel: token.encoder for token in prompt.tokens}
    own = sorted({channel for word in prompt.words for channel in word.channels})
    return list(dict.fromkeys(names[channel] for channel in own if names[channel]))


def check_encoder(name: str, known: Sequence[str]) -> str:
    """The name as it is known; upper and lower case are the same.

    Raises:
        BadArgument: there is no such encoder, or nothing to choose from.
    """
    if not known:
        raise BadArgument(
            f"There is no text encoder {quoted(name, 40)} to choose: the words were read by one, by several that share "
            "columns, or recorded before encoders were told apart."
        )
    found = next((one for one in known if isinstance(name, str) and one.casefold() == name.casefold()), None)
    if found is None:
        raise BadArgument(f"There is no text encoder {quoted(name, 40)} that read these words; there is {', '.join(known)}.")
    return found


def of_encoder(prompt: Prompt, name: str) -> Prompt:
    """The words that one encoder read, with its tokens alone. Columns, channels, start, end and padding stay those of all.

    Raises:
        BadArgument: see `check_encoder`.
    """
    name = check_encoder(name, encoders_of(prompt))
    words = (replace(word, channels=_own(prompt, word, name)) for word in prompt.words)
    return replace(prompt, words=tuple(word for word in words if word.channels))


def word_of_encoder(prompt: Prompt, word: Word, name: str) -> Word:
    """A word or phrase with the tokens of one encoder alone.

    Raises:
        BadArgument: see `check_encoder`.
        WordNotFound: that encoder did not read it.
    """
    name = check_encoder(name, encoders_of(prompt))
    channels = _own(prompt, word, name)
    if not channels:
        raise WordNotFound(
            f"{quoted(word.label)} was not read by {name}; it read: {', '.join(of_encoder(prompt, name).labels[:40])}."
        )
    return replace(word, channels=channels)


def _own(prompt: Prompt, word: Word, name: str) -> tuple[int, ...]:
    own = {token.channel for token in prompt.tokens if token.encoder == name}
    return tuple(channel for channel in word.channels if channel in own)
