"""The family of errors. Each text is the sentence a host shows: what was wrong, what was seen, what to do."""

from __future__ import annotations

import re
import reprlib
import traceback
from pathlib import Path

_OWN = tuple(Path(__file__).resolve().parents[1] / name for name in ("daam_core", "nodes", "daam_webui"))
"""Our own folders, whose files are named when an error came up in them. All libraries may lie beside them."""
_PLACE = re.compile(r" at 0x[0-9A-Fa-f]+(?=[\s>)\]]|$)")
"""Where a value without a text of its own lies in memory, as Python writes it."""


class DaamLensError(Exception):
    """Base of everything DAAM Lens raises on purpose."""


class WordNotFound(DaamLensError, KeyError):
    """A word that the recorded prompt does not hold."""

    # KeyError prints repr(message); people read the message itself.
    __str__ = Exception.__str__


class NothingRecorded(DaamLensError):
    """Maps were asked for, but no attention was recorded (or recording stopped); the text says why."""


class DetailMissing(DaamLensError):
    """A choice of layers, steps or heads that this recording did not keep."""


class UnsupportedModel(DaamLensError):
    """A model without the cross-attention that heat maps are made of, or a folder that is no pipeline."""


class BadPrompt(DaamLensError, ValueError):
    """A prompt that cannot be drawn or aligned."""


class BadArgument(DaamLensError, ValueError):
    """An argument outside its documented range."""


class BadRecord(DaamLensError):
    """A record file that is truncated, foreign, too large, of another version, or hostile."""


class MissingPackage(DaamLensError):
    """A package that is not installed, and without which this cannot be done; the text says what to install."""


class CannotWrite(DaamLensError, OSError):
    """A file or folder that cannot be written."""


def reason_of(error: BaseException) -> str:
    """Why something failed, as part of a sentence: what was foreseen in its own words, anything else by class and place.

    A library's own text is not repeated: it means nothing to whoever paints. The log has it, with the traceback.

    Example:
        >>> reason_of(BadArgument("There is no word 'fox'."))
        "There is no word 'fox'."
        >>> reason_of(KeyError("transformer_options"))
        'an error that was not foreseen (KeyError); the log has all of it, please report it'
    """
    if isinstance(error, DaamLensError):
        return str(error)
    if out_of_memory(error):
        return "there was not enough memory for it. Record without detail, or at a smaller size"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if any(map(Path(frame.filename).is_relative_to, _OWN))]
    place = f" in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
    return f"an error that was not foreseen ({type(error).__name__}{place}); the log has all of it, please report it"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice.

    Example:
        >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("CUDA out of memory")), out_of_memory(KeyError("memory"))
        (True, True, False)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # torch's own is a RuntimeError; on a processor only the text tells.
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in ("out of memory", "allocate memory"))


def quoted(value: object, most: int = 120) -> str:
    """A value as a sentence quotes it: as Python writes it, on one line, cut where it is long, without its place in memory.

    Args:
        value: what was given; anything.
        most: characters of a text that are kept, and about as many of anything else.

    Example:
        >>> quoted("house"), quoted("house and tree", 6), quoted(0.5)
        ("'house'", "'house…'", '0.5')
    """
    if isinstance(value, str):
        return str.__repr__(value if len(value) <= most else value[: most - 1] + "…")
    short = reprlib.Repr()
    short.maxother = short.maxlong = short.maxstring = most
    try:
        written = _PLACE.sub("", " ".join(short.repr(value).split()))
    except ValueError:  # Python writes no whole number of more than 4300 digits
        written = f"{type(value).__name__} of thousands of digits"
    return written if len(written) <= most else written[: most - 1] + "…"


def recording_failure(error: Exception) -> str:
    """The sentence for a recording that stopped while the picture was still made."""
    return f"Recording stopped, the picture was still made: {reason_of(error)}".rstrip(".") + "."
