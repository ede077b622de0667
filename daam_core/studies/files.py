"""Files that appear whole or not at all, and reading what people wrote."""

from __future__ import annotations

from pathlib import Path

from ..errors import BadPrompt
from ..files import atomic_write, bounded_bytes

LONGEST_PROMPT = 2000
LARGEST_PROMPTS = 2**26
"""Bytes of a file of prompts."""


KEPT = "What was measured before is kept: the same command goes on."
"""What a complaint about a file of a study ends with."""


def write_whole(path: Path, content: bytes) -> Path:
    """`files.atomic_write` that not even a power cut leaves half done. Raises CannotWrite."""
    return atomic_write(path, content, durable=True, advice=KEPT)


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one a line, UTF-8 (a byte order mark is passed over).

    Raises:
        BadPrompt: no such file, another encoding, no prompt, an empty line between prompts, or a prompt that is a pasted file.
    """
    try:
        content = bounded_bytes(path, LARGEST_PROMPTS, "list of prompts")
    except OSError as error:
        raise BadPrompt(f"The prompts file {path} cannot be read: {error.strerror or error}.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadPrompt(
            f"The prompts file {path} is not UTF-8 text: line {line} holds the byte 0x{content[error.start]:02X}. "
            "Save it as UTF-8, one prompt a line."
        ) from None
    if "\0" in text:
        raise BadPrompt(f"The prompts file {path} is no text: it holds zero bytes. Save it as UTF-8, one prompt a line.")
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if not lines:
        raise BadPrompt(f"The prompts file {path} is empty; it takes one prompt a line.")
    if empty := [str(number) for number, line in enumerate(lines, 1) if not line]:
        seen = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
        raise BadPrompt(f"The prompts file {path} has empty lines ({seen}); it takes one prompt a line and nothing between.")
    if long := [number for number, line in enumerate(lines, 1) if len(line) > LONGEST_PROMPT]:
        raise BadPrompt(f"Line {long[0]} of {path} has more than {LONGEST_PROMPT} characters: that is no prompt.")
    return lines
