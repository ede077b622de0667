"""What a person typed, a prompt and a size, looked at before anything heavy starts."""

from __future__ import annotations

from .errors import BadArgument, BadPrompt

LONGEST_PROMPT = 2000
"""Characters of a prompt. A text encoder reads some 75 words; ten times as much is a pasted file."""


def checked_prompt(prompt: str) -> str:
    """The prompt. Raises BadPrompt where it is empty or a pasted file."""
    if not prompt.strip():
        raise BadPrompt('The prompt is empty; say what to paint, for example "a red house and a green tree".')
    if len(prompt) > LONGEST_PROMPT:
        raise BadPrompt(
            f"The prompt has {len(prompt)} characters and a text encoder reads about 75 words; shorten it to at most "
            f"{LONGEST_PROMPT} characters."
        )
    return prompt


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels. Raises BadArgument where a side is no multiple of 8, with the nearest size that is one."""
    height, width = (max(8, round(side / 8) * 8) for side in size)
    if (height, width) != size:
        raise BadArgument(
            f"A picture of {size[1]} x {size[0]} pixels (width x height) cannot be painted: both sides are multiples of 8. "
            f"The nearest size is {width} x {height}."
        )
    return size
