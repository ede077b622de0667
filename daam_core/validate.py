"""What a person typed (prompts, size, model, device), looked at before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .errors import BadArgument, BadPrompt, UnsupportedModel, quoted

MOST_PASSES = 256
"""Noise levels times samples of one reading of a picture."""
IN_THE_PICTURE = "what is in the picture"
"""What the prompt says where a picture is read and none is drawn."""
LONGEST_PROMPT = 2000
"""Characters of a prompt. A text encoder reads some 75 words; ten times as much is a pasted file."""


DEVICES = ("cpu", "cuda", "mps", "xpu", "npu", "hpu", "xla", "mtia", "musa", "mlu")
"""Kinds of devices that PyTorch knows by name, its own and those of plug-ins."""
LONGEST_MODEL_NAME = 96
"""Characters of a name on the hub, by its own rule."""
_HUB_NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)


def checked_prompt(prompt: str, name: str = "prompt", wanted: str = "what to draw") -> str:
    """The prompt, which says what is `wanted`. Raises BadPrompt where it is empty, a pasted file, or no text."""
    _require_text(prompt, name)
    if not prompt.strip():
        raise BadPrompt(f'The {name} is empty; say {wanted}, for example "a red house and a green tree".')
    return _checked_text(prompt, name)


def checked_negative(prompt: str) -> str:
    """The negative prompt, which may be empty. Raises BadPrompt where it is a pasted file or no text."""
    return _checked_text(prompt, "negative prompt")


def _checked_text(prompt: str, name: str) -> str:
    _require_text(prompt, name)
    if len(prompt) > LONGEST_PROMPT:
        raise BadPrompt(
            f"The {name} has {len(prompt)} characters and a text encoder reads about 75 words; shorten it to at most "
            f"{LONGEST_PROMPT} characters."
        )
    # A byte of another encoding in a shell, half an emoji from a page: no tokenizer takes it.
    stray = next((i for i, c in enumerate(prompt) if 0xD800 <= ord(c) <= 0xDFFF), None)
    if stray is not None:
        before = prompt[max(0, stray - 20) : stray]
        raise BadPrompt(
            f"The {name} is not text after {quoted(before)}: it holds a broken character there. Type it again (as UTF-8)."
        )
    return prompt


def _require_text(prompt: object, name: str) -> None:
    if not isinstance(prompt, str):
        raise BadPrompt(f'The {name} is a text such as "a red house", not {type(prompt).__name__}.')


def checked_seed(seed: int) -> int:
    """A seed that PyTorch takes. Raises BadArgument."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**64:
        raise BadArgument(f"A seed is a whole number from 0 to {2**64 - 1}, not {quoted(seed, 30)}.")
    return seed


def checked_switch(value: bool, name: str) -> bool:
    """Whether a switch is on, of whatever is true or false; else BadArgument (an array is neither)."""
    try:
        return bool(value)
    except Exception:  # NumPy's and torch's own, and those of other libraries
        raise BadArgument(f"{name} is a switch, True or False, not {quoted(value, 40)}.") from None


def checked_device(name: str) -> str:
    """The name of a device such as "cpu" or "cuda:1". Raises BadArgument where it cannot be one."""
    kind, colon, number = name.partition(":")
    if kind not in DEVICES or (colon and not (number.isascii() and number.isdecimal() and len(number) <= 3)):
        raise BadArgument(
            f"{quoted(name)} is no device; there are {', '.join(DEVICES)}, with a number where there are several: cuda:1."
        )
    return name


def checked_model(name: str) -> str:
    """The name of a model: the one inside, a folder in diffusers' format, or a name on the hub.

    Raises:
        UnsupportedModel: it is a folder without a pipeline, a path where nothing is, or no name.
    """
    folder = Path(name).expanduser()
    try:
        here = bool(name) and folder.exists()
    except (OSError, ValueError):
        here = False
    if here and not (folder / "model_index.json").is_file():
        raise UnsupportedModel(f"{folder} is not a pipeline: it has no model_index.json. Give a folder in diffusers' format.")
    if not here and (len(name) > LONGEST_MODEL_NAME or not _HUB_NAME.fullmatch(name)):
        raise UnsupportedModel(f"There is no folder {quoted(name)}, and it is no name on the hub (OWNER/NAME) either.")
    return name


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels. Raises BadArgument where a side is no multiple of 8, with the nearest size that is one."""
    height, width = (max(8, round(side / 8) * 8) for side in size)
    if (height, width) != size:
        raise BadArgument(
            f"A picture of {size[1]} x {size[0]} pixels (width x height) cannot be made: both sides are multiples of 8. "
            f"The nearest size is {width} x {height}."
        )
    return size


def checked_levels(levels: Sequence[float], samples: int) -> tuple[float, ...]:
    """The levels from the highest on, each `samples` times. Raises BadArgument for what is no level or no number of samples."""
    values = tuple(levels)
    if not values or any(isinstance(x, bool) or not isinstance(x, (int, float)) or not 1 <= x <= 999 for x in values):
        raise BadArgument(
            f"noise takes levels from 1 (hardly any) to 999 (nothing but noise), such as 300, 100; not {quoted(values, 80)}."
        )
    if isinstance(samples, bool) or not isinstance(samples, int) or not 1 <= samples * len(values) <= MOST_PASSES:
        raise BadArgument(
            f"samples is how many noises each level is read with, with at most {MOST_PASSES} passes in all; "
            f"{quoted(samples, 20)} for {len(values)} levels is not possible."
        )
    return tuple(level for level in sorted(values, reverse=True) for _ in range(samples))
