"""One call of a pipeline of diffusers that a WebUI makes, and what is asked of such a host."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from daam_core.prompt.prompt import Prompt

from .fragment_prompt import Tokens
from .hosts import PageHost
from .settings import Settings


class PipelineHost(PageHost, Protocol):
    """What a session asks of a host whose pipelines it records."""

    def sampling(self) -> tuple[Any, str]:
        """Module and name of the function that samples a batch: it takes the processing object."""

    def arguments(self) -> tuple[Any, str]:
        """Module and name of the function that makes the arguments of a pipeline's call, and is called right before it."""

    def encoding(self, seen: set[Tokens]) -> AbstractContextManager[None]:
        """While the arguments are made: have the prompts encoded anew, and gather the tokens that are encoded."""

    def require_one_text(self) -> None:
        """Raises NothingRecorded where the texts that were encoded last change from step to step."""

    def trace(self, pipe: Any, settings: Settings) -> Any:
        """A trace of a pipeline, see `daam_core.diffusers.trace`."""

    def words(self, painted: PipelinePass, text: str, columns: int, negative: bool) -> Prompt:
        """The words of a text that the host encoded by itself. Raises DaamLensError where they are not known."""


@dataclass
class PipelinePass:
    """One call of a pipeline.

    Attributes:
        p: the host's processing object.
        pipe: the pipeline.
        prompts, negatives: the text of each picture.
        tokens: of every section of text that was encoded for this call.
        trace: its recording.
    """

    p: Any
    pipe: Any
    prompts: Sequence[str]
    negatives: Sequence[str]
    tokens: set[Tokens] = field(default_factory=set)
    trace: Any = None
