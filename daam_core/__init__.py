"""Which word painted where: heat maps and masks from the cross-attention of diffusion models (DAAM, ACL 2023).

    >>> import torch
    >>> from daam_core import load_tiny, trace
    >>> pipe = load_tiny()
    >>> pipe.set_progress_bar_config(disable=True)
    >>> with trace(pipe, keep="steps", negative=True) as recording:
    ...     image = pipe("a red house and a green tree", negative_prompt="star", num_inference_steps=2,
    ...                  generator=torch.Generator().manual_seed(0)).images[0]
    >>> maps = recording.heat_maps()
    >>> maps.content_words
    ['red', 'house', 'green', 'tree']
    >>> tuple(maps.mask("house").shape), tuple(maps.steps_of("house").shape), maps.negative.words
    ((128, 128), (2, 16, 16), ['star'])

Names are loaded when they are first used, so that importing the package is quick in every host. `AGGREGATIONS` are the ways
from heads, layers and steps to one map, `MASK_METHODS` those from a map to a mask.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diffusers.attention_trace import AttentionTrace as AttentionTrace
    from .diffusers.reading import read_picture as read_picture
    from .diffusers.trace import trace as trace
    from .errors import BadArgument as BadArgument
    from .errors import BadPrompt as BadPrompt
    from .errors import BadRecord as BadRecord
    from .errors import CannotWrite as CannotWrite
    from .errors import DaamLensError as DaamLensError
    from .errors import DetailMissing as DetailMissing
    from .errors import NothingRecorded as NothingRecorded
    from .errors import UnsupportedModel as UnsupportedModel
    from .errors import WordNotFound as WordNotFound
    from .maps.aggregation import AGGREGATIONS as AGGREGATIONS
    from .maps.heatmaps import HeatMaps as HeatMaps
    from .masks.methods import MASK_METHODS as MASK_METHODS
    from .prompt.prompt import Prompt as Prompt
    from .prompt.words import Word as Word
    from .tiny.load import load_tiny as load_tiny

__version__ = "0.12.0"
_HOMES = {
    "AGGREGATIONS": "maps.aggregation",
    "AttentionTrace": "diffusers.attention_trace",
    "BadArgument": "errors",
    "BadPrompt": "errors",
    "BadRecord": "errors",
    "CannotWrite": "errors",
    "DaamLensError": "errors",
    "DetailMissing": "errors",
    "HeatMaps": "maps.heatmaps",
    "MASK_METHODS": "masks.methods",
    "NothingRecorded": "errors",
    "Prompt": "prompt.prompt",
    "UnsupportedModel": "errors",
    "Word": "prompt.words",
    "WordNotFound": "errors",
    "load_tiny": "tiny.load",
    "read_picture": "diffusers.reading",
    "trace": "diffusers.trace",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
