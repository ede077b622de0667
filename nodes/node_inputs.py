"""The base of all nodes: what comes in is looked at before a node runs, so that a user reads a sentence and no error of Python.

ComfyUI looks at links when a graph is queued, by the types that nodes say they have. A switch of another pack says that it
gives anything, and gives nothing where none of its inputs is connected; a graph in API format may have a text where a link
belongs; and of choices older versions check none.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..daam_core.errors import BadArgument, quoted
from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.prompt.concepts import Concept

_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


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


def check_input(value: Any, expected: Expected) -> None:
    """Raises BadArgument: nothing came in where something is needed, or something of another kind."""
    name, kind = expected.name, expected.kind
    if kind in _WIDGETS:
        if expected.choices and value not in expected.choices:
            raise BadArgument(f"There is no {name} {quoted(value, 60)}; there are {', '.join(expected.choices)}.")
        return
    if value is None and expected.optional:
        return
    what = _SOURCES.get(kind, f"an output of the type {kind}")
    if value is None:
        raise BadArgument(
            f"Nothing came in at {name}: the node before gave nothing out (a switch whose inputs are all muted does so). "
            f"Connect {what}."
        )
    if not _KINDS.get(kind, _is_no_text)(value):
        raise BadArgument(
            f"{name} takes {what}, and what came in is a {type(value).__name__}"
            f"{f', {quoted(value, 60)}' if isinstance(value, (str, int, float)) else ''}. Connect {what}."
        )


def _is_latent(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("samples") is not None


def _is_maps(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) > 0 and all(isinstance(one, HeatMaps) for one in value)


def _is_concepts(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(one, Concept) for one in value)


def _is_no_text(value: Any) -> bool:
    return not isinstance(value, (str, int, float, list, dict))


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "LATENT": _is_latent,
    "IMAGE": lambda value: isinstance(value, Tensor) and value.dim() == 4,
    "MASK": lambda value: isinstance(value, Tensor) and value.dim() in (2, 3, 4),
    "DAAM_LENS_MAPS": _is_maps,
    "DAAM_LENS_CONCEPTS": _is_concepts,
}
_SOURCES: Mapping[str, str] = {
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
        return execute(cls, *args, **kwargs)

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
        )
        for one in cls.define_schema().inputs
    ]
