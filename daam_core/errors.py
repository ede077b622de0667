"""The family of errors. Each text is the sentence a host shows: what was wrong, what was seen, what to do."""

from __future__ import annotations


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


def recording_failure(error: Exception) -> str:
    """The sentence for a recording that stopped while the picture was still made."""
    reason = str(error) if isinstance(error, DaamLensError) else f"{type(error).__name__}: {error}"
    # torch names the class `OutOfMemoryError`; it is no MemoryError.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        reason = f"there was not enough memory for it ({error}). Record without detail, or at a smaller size"
    return f"Recording stopped, the picture was still made: {reason}".rstrip(".") + "."
