"""The command line `daam-lens`."""

from .parser import main

__all__ = ["main"]
