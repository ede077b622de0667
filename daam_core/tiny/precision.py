"""In which numbers the stages compute: bfloat16 where the device has it, else float32."""

from __future__ import annotations

import torch


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 for autocast where the device computes in it, else `None`."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None


def autocast(device: torch.device) -> torch.autocast:
    """Autocast to `fast_dtype`, or a context that does nothing."""
    dtype = fast_dtype(device)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
