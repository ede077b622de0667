"""Arguments by name: what `inspect.Signature.bind` says, of the first call of a kind and of every later one."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from daam_core.capture.call_arguments import CallArguments


def plain(model: object, x: int, t: int = 0, *, scale: float = 1.0) -> None:
    """Like the forward of a transformer."""


def starred(model: object, x: int, *more: int, **others: int) -> None:
    """One that takes anything."""


@pytest.mark.parametrize("function", [plain, starred])
@pytest.mark.parametrize(
    ("args", "kwargs"), [((1,), {}), ((1, 2), {}), ((), {"x": 3}), ((1,), {"scale": 0.5}), ((1,), {"t": 4, "scale": 2.0})]
)
def test_as_the_signature_binds(function: Any, args: tuple[int, ...], kwargs: dict[str, Any]) -> None:
    signature = inspect.signature(function)
    arguments, model = CallArguments(signature), object()
    for offset in (0, 10):
        own_args, own_kwargs = tuple(a + offset for a in args), {name: value + offset for name, value in kwargs.items()}
        bound = signature.bind(model, *own_args, **own_kwargs)
        bound.apply_defaults()
        found = arguments.of(model, own_args, own_kwargs)
        assert list(found.items()) == list(bound.arguments.items())


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 2}), ((1,), {"other": 2})])
def test_a_call_that_the_function_does_not_take(args: tuple[int, ...], kwargs: dict[str, Any]) -> None:
    arguments = CallArguments(inspect.signature(plain))
    arguments.of("model", (1, 2), {})
    for _ in range(2):
        with pytest.raises(TypeError):
            arguments.of("model", args, kwargs)
