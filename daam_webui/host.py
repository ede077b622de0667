"""What is asked of the host's own modules, in one place: A1111, Forge and reForge differ little."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def parser() -> Any:
    from modules import prompt_parser

    return prompt_parser


def schedule_steps(p: Any, second: bool) -> Sequence[Any]:
    """The arguments behind the prompts of the host's schedule parser: steps, steps of the second pass, old rules or not."""
    from modules import shared

    old = bool(getattr(shared.opts, "use_old_scheduling", False))
    first = _calls(p.sampler_name, p.steps)
    if not second:
        return first, None, old
    return first, _calls(getattr(p, "hr_sampler_name", None) or p.sampler_name, p.hr_second_pass_steps or p.steps), old


def _calls(sampler: str | None, steps: int) -> int:
    """How often a sampler calls the model in so many steps."""
    from modules import sd_samplers

    config = sd_samplers.find_sampler_config(sampler)
    return int(config.total_steps(steps)) if config else int(steps)


def ticked_accordion(label: str, elem_id: str) -> Any:
    """A folded part of the page that opens when its box is ticked; its value is whether it is."""
    from modules.ui_components import InputAccordion

    return InputAccordion(False, label=label, elem_id=elem_id)


def sends_size() -> bool:
    """Whether a picture that is sent to another tab takes its size along (the host's own setting)."""
    from modules import shared

    return bool(getattr(shared.opts, "send_size", True))


def pixels(image: Any) -> NDArray[np.uint8]:
    """A finished picture as uint8 `[H, W, 3]`."""
    return np.asarray(image.convert("RGB"))


def comment(p: Any, sentences: Sequence[str]) -> None:
    """Leave sentences for whichever result the host shows below the picture, where it can keep them."""
    known = getattr(p, "comments", None)
    if isinstance(known, dict):
        known.update(dict.fromkeys(sentences, 1))


def saves(p: Any) -> bool:
    """Whether this run's pictures go to disk."""
    return bool(p.save_samples()) if hasattr(p, "save_samples") else not p.do_not_save_samples


def save(image: Image.Image, p: Any, picture_file: str, suffix: str, seed: int, text: str, infotext: str | None) -> str:
    """Save an image beside a picture with the host's own saver: the picture's name and a suffix. Returns its path."""
    from modules import images, shared

    info = infotext if shared.opts.enable_pnginfo else None
    if picture_file:
        folder, name = os.path.split(os.path.splitext(picture_file)[0])
        saved = images.save_image(
            image, folder, "", seed, text, "png", info=info, p=p, forced_filename=f"{name}{suffix}", save_to_dirs=False
        )
    else:
        saved = images.save_image(image, p.outpath_samples, "", seed, text, "png", info=info, p=p, suffix=suffix)
    return str(saved[0])
