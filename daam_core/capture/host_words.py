"""How a host calls what else may change its models, for sentences."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HostWords:
    """Words of one host.

    Attributes:
        another: what else may be at work.
        advice: what to do then.
    """

    another: str
    advice: str

    @property
    def at_the_beginning(self) -> str:
        """`another` as a sentence begins with it."""
        return self.another[:1].upper() + self.another[1:]


NODES = HostWords("another node", "Record without that node")
EXTENSIONS = HostWords("another extension", "Switch it off to get heat maps")
