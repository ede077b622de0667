"""Models that are spread over several devices, each of which sees a part of their attention."""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedModel

_ADVICE = (
    "Record the same prompt and seed with the transformer on one device: load it without `parallel_config`, and without "
    "`enable_parallelism`."
)


def require_all_heads(model: Any) -> None:
    """Raises UnsupportedModel for a model whose layers attend here with a part of their heads (diffusers' tensor parallel): the
    attention looks whole then, and its sums would be those of one device."""
    tensor = getattr(getattr(model, "_parallel_config", None), "tensor_parallel_config", None)
    devices = getattr(tensor, "_tp_degree", None) or getattr(tensor, "tp_degree", None) or 1
    if devices > 1:
        raise UnsupportedModel(
            f"Tensor parallel spreads the heads of {type(model).__name__} over {devices} devices, of which this process sees "
            f"one. {_ADVICE}"
        )


def of_one_device(parallel_config: Any) -> None:
    """Raises UnsupportedModel for an attention whose tokens are spread over several devices (diffusers' context parallel).

    Args:
        parallel_config: what the attention's backend is given; None is none.
    """
    if parallel_config is not None:
        raise UnsupportedModel(f"Context parallel spreads one attention over several devices, which cannot be read. {_ADVICE}")
