"""The arguments of a function's calls by their names, at the cost of a dictionary a call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class CallArguments:
    """Names the arguments of calls as `inspect.Signature.bind` does, defaults included.

    Binding takes some 30 microseconds. It says the same of all calls with as many arguments by position and the same names, so
    each of these kinds of call is bound once.

    Args:
        signature: of the function.

    >>> def forward(model, x, t=0, *, scale=1.0): ...
    >>> CallArguments(inspect.signature(forward)).of("model", (2,), {"scale": 0.5})
    {'model': 'model', 'x': 2, 't': 0, 'scale': 0.5}
    """

    def __init__(self, signature: inspect.Signature) -> None:
        self._signature = signature
        parameters = signature.parameters.values()
        self._plain = not any(parameter.kind in _STARRED for parameter in parameters)
        self._names = tuple(signature.parameters)
        self._defaults: dict[str, Any] = {
            parameter.name: None if parameter.default is parameter.empty else parameter.default for parameter in parameters
        }
        self._bound: set[tuple[int, tuple[str, ...]]] = set()

    def of(self, first: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments of `function(first, *args, **kwargs)`, in the order of the signature.

        Raises:
            TypeError: the function cannot be called so.
        """
        kind = len(args), tuple(kwargs)
        if kind not in self._bound:
            bound = self._signature.bind(first, *args, **kwargs)
            bound.apply_defaults()
            if self._plain:
                self._bound.add(kind)
            return bound.arguments
        return {**self._defaults, **dict(zip(self._names, (first, *args), strict=False)), **kwargs}
