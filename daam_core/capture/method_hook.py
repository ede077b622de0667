"""A callback after one method of one object, removable in any order."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


class MethodHook:
    """Calls `on_return(arguments, result)` after every call of `owner.name`; `arguments` are by name, defaults filled in.

    An exception of the method passes through untouched; an exception of `on_return` goes to `failed` and the method's result is
    returned all the same.
    """

    def __init__(
        self,
        owner: object,
        name: str,
        on_return: Callable[[dict[str, Any], Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._owner, self._name = owner, name
        self._below: Any = vars(owner).get(name)
        method: Callable[..., Any] = getattr(owner, name)
        signature = inspect.signature(method)

        @functools.wraps(method)
        def hooked(*args: Any, **kwargs: Any) -> Any:
            result = self._call_below(*args, **kwargs)
            try:
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                on_return(bound.arguments, result)
            except Exception as error:
                failed(error)
            return result

        hooked._hook = self  # type: ignore[attr-defined]
        self._hooked = hooked
        setattr(owner, name, hooked)

    def _call_below(self, *args: Any, **kwargs: Any) -> Any:
        below = self._below
        if below is None:
            below = functools.partial(getattr(type(self._owner), self._name), self._owner)
        return below(*args, **kwargs)

    def remove(self) -> None:
        """Take this hook out; others, above or below it, stay."""
        top = vars(self._owner).get(self._name)
        if top is self._hooked:
            if self._below is None:
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, self._below)
            return
        while (hook := getattr(top, "_hook", None)) is not None:
            if hook._below is self._hooked:
                hook._below = self._below
                return
            top = hook._below
