"""A prompt as a person typed it, looked at before anything heavy starts."""

from __future__ import annotations

from .errors import BadPrompt

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
