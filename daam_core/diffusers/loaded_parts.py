"""Whether the parts of a pipeline that was loaded are whole: the libraries fill what no file holds with random numbers, or
with nothing, and go on."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from ..errors import quoted
from .model_folder import header_of, settings_in

_LETTER = "a"


def fault_of_parts(pipe: Any, name: str, folder: Path | None) -> str:
    """What a loaded pipeline lacks, as a sentence; empty where nothing is seen.

    Args:
        name: what was loaded.
        folder: where its files lie, None where that is not known.
    """
    import torch

    for part, model in getattr(pipe, "components", {}).items():
        if isinstance(model, torch.nn.Module):
            lacking = _without_weights(model) or (_random_weights(model, folder / part) if folder is not None else "")
            if lacking:
                lacking = lacking % quoted(part)
                return f"{name} has no weights for {lacking}: the file is of another model, or not whole. Copy it again."
        elif "tokenizer" in part and _knows_nothing(model):
            return f"The part {quoted(part)} of {name} has no vocabulary: it reads no letter of a text. Copy the model again."
    return ""


def _without_weights(model: Any) -> str:
    """Which tensors no file filled, where a library leaves them without numbers; "%s" stands for the part's name."""
    bare = [name for name, value in model.named_parameters() if value.is_meta]
    return f"{len(bare)} tensors of its part %s, such as {bare[0]:.80}" if bare else ""


def _random_weights(model: Any, part: Path) -> str:
    """How many numbers of a model its files do not hold, by counting: names differ between versions of a library, and tensors
    that belong together may lie in one. Nothing is said of what its pipeline made of the folder's model: several ControlNets
    have a folder each, and AnimateDiff gives a UNet of pictures its motion."""
    kind = (settings_in(part / "config.json") or {}).get("_class_name", type(model).__name__)
    if kind != type(model).__name__:
        return ""
    files = sorted(part.glob("*.safetensors"))
    quantised = getattr(getattr(model, "config", None), "quantization_config", None) is not None
    headers = [header_of(path) for path in files]
    if not files or quantised or any(header is None for header in headers):
        return ""
    tensors = {name: one for header in headers for name, one in (header or {}).items()}
    held = sum(prod(one["shape"]) for one in tensors.values())
    # Tensors that share their memory are one.
    own = sum({value.data_ptr(): value.numel() for value in model.parameters()}.values())
    return f"{own - held:,} of the {own:,} numbers of its part %s" if held < own else ""


def _knows_nothing(tokenizer: Any) -> bool:
    """Whether a tokenizer reads a letter as nothing, or as what it does not know."""
    try:
        ids = list(tokenizer(_LETTER, add_special_tokens=False).input_ids)
        return not ids or set(ids) == {getattr(tokenizer, "unk_token_id", None)}
    except Exception:  # one of somebody's own, or a processor of pictures and text, which gives a list for each text
        return False
