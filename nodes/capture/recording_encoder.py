"""A CLIP whose encoder notes what it is told, so that a conditioning carries the words that it was made of."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from ...daam_core.errors import DaamLensError
from .prompt_tokens import COLUMNS, ENCODING, ENCODINGS, KEY, prompts_of

logger = logging.getLogger("daam_lens")


class BesidePrompt(Protocol):
    """Something that a conditioning carries along, made whenever a prompt is encoded, with the encoder in that state."""

    key: str

    def beside_prompt(self, encoder: Any, tokenizer: Any) -> object: ...


def recording_clip(clip: Any, beside: BesidePrompt | None = None) -> Any:
    """A clone of a CLIP whose encoder notes what it is told; everything else about it is the same. An earlier one gives way.

    Args:
        beside: gives what else goes into each conditioning.
    """
    recorded = clip.clone()
    encoder = recorded.cond_stage_model
    if type(encoder) is _RecordingEncoder:
        encoder = object.__getattribute__(encoder, "_encoder")
    recorded.cond_stage_model = _RecordingEncoder(encoder, recorded.tokenizer, beside)
    return recorded


class _RecordingEncoder:
    """Stands before a text encoder; only `encode_token_weights` is its own.

    It says that it is of the encoder's class: other packs ask `isinstance` which model a CLIP is of (ADV_CLIP_emb, Cutoff).
    """

    def __init__(self, encoder: Any, tokenizer: Any, beside: BesidePrompt | None = None) -> None:
        object.__setattr__(self, "_encoder", encoder)
        object.__setattr__(self, "_tokenizer", tokenizer)
        object.__setattr__(self, "_beside", beside)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(object.__getattribute__(self, "_encoder"))

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_encoder"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._encoder, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._encoder, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._encoder(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._encoder)

    def __dir__(self) -> list[str]:
        return dir(self._encoder)

    def encode_token_weights(self, tokens: Any, *args: Any, **kwargs: Any) -> Any:
        """What the encoder gives, and the words beside it."""
        with _PictureLengths(self._encoder, tokens) as lengths:
            given = self._encoder.encode_token_weights(tokens, *args, **kwargs)
        try:
            prompts = prompts_of(tokens, self._tokenizer, self._encoder, lengths=lengths.found)
            if not prompts:
                return given
            noted = {**(given[2] if len(given) > 2 else {}), KEY: prompts, ENCODING: ENCODINGS.keep(given[0], prompts)}
            if isinstance(given[0], Tensor) and given[0].dim() > 1:
                noted[COLUMNS] = int(given[0].shape[-2])
            if self._beside is not None:
                noted[self._beside.key] = self._beside.beside_prompt(self._encoder, self._tokenizer)
            return (given[0], given[1], noted, *given[3:])
        except Exception as error:
            logger.warning(
                "DAAM Lens: the words of a prompt could not be read, its maps are kept by column: %s",
                error,
                exc_info=None if isinstance(error, DaamLensError) else error,
            )
            return given


class _PictureLengths:
    """How many columns an encoder makes of each picture in its tokens: it is watched while it encodes.

    Attributes:
        found: lengths of each encoder's pictures, in order.
    """

    def __init__(self, encoder: Any, tokens: Any) -> None:
        self.found: dict[str, list[int]] = {}
        self._watched: list[Any] = []
        for name, batches in tokens.items() if isinstance(tokens, Mapping) else ():
            pictures = any(isinstance(token[0], Mapping) for batch in batches for token in batch)
            own = getattr(encoder, f"clip_{name}", None) or getattr(encoder, name, None)
            network = getattr(own, "transformer", None)
            if pictures and hasattr(network, "preprocess_embed"):
                self._watch(network, self.found.setdefault(name, []))

    def _watch(self, network: Any, lengths: list[int]) -> None:
        original = network.preprocess_embed

        def watched(*args: Any, **kwargs: Any) -> Any:
            given = original(*args, **kwargs)
            made = given[0] if isinstance(given, tuple) else given
            lengths.append(made.numel() // made.shape[-1] if isinstance(made, Tensor) else 0)
            return given

        network.preprocess_embed = watched
        self._watched.append(network)

    def __enter__(self) -> _PictureLengths:
        return self

    def __exit__(self, *_: object) -> None:
        for network in self._watched:
            del network.preprocess_embed  # the class's own method shows again
