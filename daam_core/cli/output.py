"""What the command line prints: on every terminal, into every pipe, and without a traceback where nobody reads on."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_PLAIN = {
    "“": '"', "”": '"', "‘": "'", "’": "'", "…": "...", "−": "-", "–": "-", "—": "-", "×": "x", "\u00a0": " ",
}  # fmt: skip
"""Signs of our own texts that a terminal of another encoding (ASCII, Latin-1) does not have."""
_OBEYED = {code: "?" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
_HANDLER = "daam-lens-plain"
_NOWHERE_TO_WRITE = {errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EBADF, errno.EDQUOT if hasattr(errno, "EDQUOT") else 0}


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: a plain sign instead, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end


def printable(text: str) -> str:
    """The text without signs that a terminal obeys: a record from a stranger may hold any in its prompt.

    Example:
        >>> printable("a \\x1b[31mred house")
        'a ?[31mred house'
    """
    return text.translate(_OBEYED)


class _Printable:
    """A stream that prints nothing which a terminal obeys; for all else it is the stream itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def any_terminal() -> Iterator[None]:
    """Inside the block no character is too rare for stdout and stderr; what they did before comes back after it."""
    codecs.register_error(_HANDLER, _plain)
    changed = []
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            changed.append((stream, stream.errors))
            stream.reconfigure(errors=_HANDLER)
    try:
        yield
    finally:
        for stream, errors in changed:
            # It writes what it still holds, which a closed pipe or a full disk does not take.
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors=errors)


@contextlib.contextmanager
def only_printable() -> Iterator[None]:
    """Inside the block stdout prints nothing that a terminal obeys. (Python's own help is coloured, and stays so.)"""
    stdout = sys.stdout
    if stdout is not None:
        sys.stdout = _Printable(stdout)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout = stdout


def flush() -> None:
    """Write out what was printed, so that what goes wrong with it is seen while somebody can say so. Raises OSError."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def is_about_output(error: OSError) -> bool:
    """Whether an error came from printing: no file is named, and it is a kind that a full disk or device gives."""
    return error.filename is None and error.errno in _NOWHERE_TO_WRITE


def drop() -> None:
    """Let everything that is still printed go nowhere: Python writes once more when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, sys.stdout.fileno())
        finally:
            os.close(nowhere)
