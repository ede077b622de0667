"""Prompts that were cleaned before they were tokenized are found again."""

from __future__ import annotations

import pytest

from daam_core.prompt.cleaned import cleaned_text


@pytest.mark.parametrize(
    ("typed", "read", "found"),
    [
        ("it’s a “red” house", 'it\'s a "red" house', 'it\'s a "red" house'),
        ("a red &amp; green house", "user: a red & green house.", "a red & green house"),
        ("ｃａｔ (big)", "cat big", "cat big"),
        ("re\u0301d", "say r\u00e9d, please", "r\u00e9d"),
        ("", "anything", None),
        ("“”", '""', None),
        ("a cat", "a dog", None),
    ],
)
def test_a_cleaned_prompt_is_found_again(typed: str, read: str, found: str | None) -> None:
    assert cleaned_text(typed, read) == found
