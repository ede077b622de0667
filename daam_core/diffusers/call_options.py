"""What a pipeline's call takes, and how a person's settings are said to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from ..errors import BadArgument
from .modular_calls import is_modular
from .settings import Settings

TRUE_GUIDANCE = 4.0
"""Guidance where a negative prompt was given, no guidance, and the pipeline's own default would ignore the negative prompt."""


def arguments_of(pipe: Any) -> dict[str, Any]:
    """The arguments of a pipeline's call, with their defaults (`Parameter.empty` where there is none).

    Where it takes any (`**kwargs`), those of the class that it extends are known, too.
    """
    if is_modular(pipe):
        return {one.name: one.default for one in pipe._blocks.inputs if one.name}
    known: dict[str, Any] = {}
    for owner in type(pipe).__mro__:
        if "__call__" not in vars(owner):
            continue
        own = inspect.signature(vars(owner)["__call__"]).parameters
        named = {name: value.default for name, value in own.items() if value.kind not in _ANY and name != "self"}
        known = {**named, **known}
        if not any(value.kind is inspect.Parameter.VAR_KEYWORD for value in own.values()):
            break
    return {**known, **getattr(pipe, "own_defaults", {})}


_ANY = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def call_options(pipe: Any, settings: Settings, on_step: Callable[[int], None] | None = None) -> dict[str, Any]:
    """The arguments that say these settings to a pipeline.

    Args:
        on_step: called with how many steps are done, where the pipeline can tell.

    Raises:
        BadArgument: something was asked for that this pipeline does not take.
    """
    known = arguments_of(pipe)
    options: dict[str, Any] = {}
    if settings.steps:
        options["num_inference_steps"] = settings.steps
    if settings.size:
        options["height"], options["width"] = settings.size
    if settings.frames:
        options["num_frames"] = settings.frames
    if settings.negative:
        options["negative_prompt"] = settings.negative
    name = _guidance(known, settings)
    if settings.guidance is not None:
        options[name] = settings.guidance
    elif settings.negative and name == "true_cfg_scale" and float(known[name] or 1) <= 1:
        options[name] = TRUE_GUIDANCE
    for option in options:
        if option not in known:
            raise BadArgument(f"{type(pipe).__name__} takes no {_MEANING[option]} in its call: leave it out.")
    if on_step is not None and "callback_on_step_end" in known:
        options["callback_on_step_end"] = _step_callback(on_step)
    # A generator on the CPU gives the same picture on every device.
    options["generator"] = torch.Generator("cpu").manual_seed(settings.seed)
    if is_modular(pipe):
        options["output"] = ["images", "videos"]
    return options


_MEANING = {
    "num_inference_steps": "number of steps",
    "num_frames": "number of frames (it makes pictures)",
    "height": "size",
    "width": "size",
    "negative_prompt": "negative prompt",
    "guidance_scale": "guidance",
    "true_cfg_scale": "guidance",
}


def _guidance(known: dict[str, Any], settings: Settings) -> str:
    """The argument that means guidance: of two, the one that goes with a negative prompt, if there is one."""
    if "true_cfg_scale" in known and (settings.negative or "guidance_scale" not in known):
        return "true_cfg_scale"
    return "guidance_scale"


def _step_callback(on_step: Callable[[int], None]) -> Callable[..., dict[str, Any]]:
    def on_step_end(_pipe: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1)
        return tensors

    return on_step_end
