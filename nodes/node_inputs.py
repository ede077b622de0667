"""The base of all nodes: what comes in is looked at before a node runs, so that a user reads a sentence and no error of Python.

ComfyUI looks at links when a graph is queued, by the types that nodes say they have. A switch of another pack says that it
gives anything, and gives nothing where none of its inputs is connected; a graph in API format may have a text where a link
belongs; of choices older versions check none, and of what is linked to a field nobody checks the limits.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..daam_core.errors import BadArgument, quoted
from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.prompt.concepts import Concept


class Node(io.ComfyNode):
    """A node whose inputs are checked, see `check_input`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("execute")
        if isinstance(own, classmethod) and not hasattr(own.__func__, "__wrapped__"):  # ComfyUI copies a class to run it
            cls.execute = classmethod(_checked(own.__func__))  # type: ignore[assignment]


@dataclass(frozen=True)
class Expected:
    """One input as a node declares it: its name and type, whether it may be missing, and the choices, where it has any that do
    not change."""

    name: str
    kind: str
    optional: bool = False
    choices: tuple[str, ...] = ()
    limits: tuple[int, int] | None = None
    """The least and the greatest whole number."""


def check_input(value: Any, expected: Expected) -> None:
    """Raises BadArgument: nothing came in where something is needed, or something of another kind."""
    name, kind = expected.name, expected.kind
    if value is None and expected.optional:
        return
    if expected.choices and not (isinstance(value, str) and value in expected.choices):  # an array compares itself with each
        raise BadArgument(f"There is no {name} {quoted(value, 60)}; there are {', '.join(expected.choices)}.")
    what = _SOURCES.get(kind, f"an output of the type {kind}")
    if value is None:
        raise BadArgument(
            f"Nothing came in at {name}: the node before gave nothing out (a switch whose inputs are all muted does so). "
            f"Connect {what}."
        )
    if not _KINDS.get(kind, _is_no_text)(value):
        raise BadArgument(
            f"{name} takes {what}, and what came in is {_with_article(type(value).__name__)}"
            f"{f', {quoted(value, 60)}' if isinstance(value, (str, int, float)) else ''}. Connect {what}."
        )
    if expected.limits is not None and not expected.limits[0] <= value <= expected.limits[1]:
        least, most = expected.limits
        raise BadArgument(f"{name} is a whole number from {least} to {most}, and what came in is {quoted(value, 60)}.")


def _with_article(name: str) -> str:
    return f"{'an' if name[:1] in 'aeioAEIO' else 'a'} {name}"


def _is_latent(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("samples") is not None


def _is_maps(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) > 0 and all(isinstance(one, HeatMaps) for one in value)


def _is_concepts(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(one, Concept) for one in value)


def _is_no_text(value: Any) -> bool:
    return not isinstance(value, (str, int, float, list, dict))


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "STRING": lambda value: isinstance(value, str),
    "COMBO": lambda value: isinstance(value, str),
    "INT": _is_whole,
    "FLOAT": lambda value: isinstance(value, Real) and not isinstance(value, bool),
    "BOOLEAN": lambda value: isinstance(value, bool) or (_is_whole(value) and value in (0, 1)),
    "LATENT": _is_latent,
    "IMAGE": lambda value: isinstance(value, Tensor) and value.dim() == 4,
    "MASK": lambda value: isinstance(value, Tensor) and value.dim() in (2, 3, 4),
    "DAAM_LENS_MAPS": _is_maps,
    "DAAM_LENS_CONCEPTS": _is_concepts,
}
_SOURCES: Mapping[str, str] = {
    "STRING": "a text",
    "COMBO": "one of its names",
    "INT": "a whole number",
    "FLOAT": "a number",
    "BOOLEAN": "true or false",
    "LATENT": "the latent of a sampler",
    "IMAGE": "pictures",
    "MASK": "a mask",
    "MODEL": "a model",
    "CLIP": "a CLIP",
    "VAE": "a VAE",
    "DAAM_LENS_MAPS": "the maps of Word Heat Maps, Read Picture or Load Heat Maps",
    "DAAM_LENS_CONCEPTS": "the node Concepts",
}


def _checked(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    signature = inspect.signature(execute)
    known: list[Expected] = []

    @functools.wraps(execute)
    def checked(cls: type[io.ComfyNode], *args: Any, **kwargs: Any) -> io.NodeOutput:
        if not known:
            known.extend(_declared(cls))
        given = signature.bind_partial(cls, *args, **kwargs).arguments
        for expected in known:
            if expected.name in given:
                check_input(given[expected.name], expected)
        nothing = {one.name for one in known if one.optional and kwargs.get(one.name, ...) is None}  # as where nobody links it
        return execute(cls, *args, **{name: value for name, value in kwargs.items() if name not in nothing})

    return checked


def _declared(cls: type[io.ComfyNode]) -> list[Expected]:
    """The inputs of a node. One that looks at its choices itself has those of files, which come and go."""
    own = getattr(cls.validate_inputs, "__func__", None) is not getattr(io.ComfyNode.validate_inputs, "__func__", None)
    return [
        Expected(
            one.id,
            str(one.io_type),
            bool(getattr(one, "optional", False)),
            () if own else tuple(getattr(one, "options", None) or ()),
            (one.min, one.max) if isinstance(one, io.Int.Input) and None not in (one.min, one.max) else None,
        )
        for one in cls.define_schema().inputs
    ]
