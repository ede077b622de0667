"""Silence of diffusers and transformers while they are imported and load: their hints are for programmers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries(bars: bool = False) -> Iterator[None]:
    """Inside the block neither library says anything but errors, nor (without `bars`) shows how far loading is.

    What was set before comes back after it.
    """
    import diffusers.utils.logging
    import transformers.utils.logging

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    before = [(library.is_progress_bar_enabled(), library.get_verbosity()) for library in libraries]
    for library in libraries:
        if not bars:
            library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, (shown, verbosity) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if shown:
                library.enable_progress_bar()
