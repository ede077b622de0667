"""What a scheduler's `step` tells: whose it is, and the time of the step."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UnsupportedModel


def class_that_steps(scheduler: Any) -> type | None:
    """The class whose `step` runs where a scheduler's is called: another object's, where a wrapper passes it on. None where
    that cannot be told: it has none, or a function was set on the object in its place."""
    if "step" in getattr(scheduler, "__dict__", {}):
        return None
    owner = type(getattr(getattr(scheduler, "step", None), "__self__", scheduler))
    return owner if callable(getattr(owner, "step", None)) else None


def steps_are_unknown(scheduler: Any) -> UnsupportedModel:
    """The model looked twice at one time, and whether a step was between them is not known."""
    return UnsupportedModel(
        f"the model was run twice at one time, and whether a step lay between is not known: the `step` of the pipeline's "
        f"{type(scheduler).__name__} was not the one that ran, or is not its class's own. Give the pipeline its scheduler "
        "with the `step` of its class before it is called"
    )


def timestep_of(scheduler: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The timestep that a scheduler's `step` was given; None where it is given none, or under another name.

    CogVideoX's DPM solver takes its last prediction ahead of it, Karras' VE scheduler two noise levels in its place.
    """
    return _argument("timestep", scheduler, args, kwargs)


def latents_of(scheduler: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The latents that a scheduler's `step` was given; None where it is given none, or under another name."""
    return _argument("sample", scheduler, args, kwargs)


def _argument(name: str, scheduler: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if name in kwargs:
        return kwargs[name]
    position = _position_of(name, scheduler)
    return args[position] if position is not None and position < len(args) else None


@functools.lru_cache(maxsize=64)
def _position_of(name: str, scheduler: type) -> int | None:
    """Where an argument stands among those of `step` behind the scheduler itself."""
    names = list(inspect.signature(scheduler.step).parameters)  # type: ignore[attr-defined]
    return names.index(name) - 1 if name in names else None
