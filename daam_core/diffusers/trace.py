"""`trace(pipe)`: record a diffusers pipeline while it paints, without touching the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from ..capture.buffers import StoreOptions
from ..errors import BadArgument
from .attention_trace import AttentionTrace
from .transformer_trace import MODELS, TransformerTrace
from .unet_trace import UNetTrace

KeptAxis = Literal["layers", "steps", "heads"]


def trace(
    pipe: Any,
    *,
    keep: KeptAxis | Sequence[KeptAxis] = (),
    negative: bool = False,
    self_attention: bool = True,
    prompts: str | Sequence[str] | None = None,
) -> AttentionTrace:
    """Record a diffusers pipeline: `with trace(pipe) as recording: pipe("a red house")`, then `recording.heat_maps()`.

    The hooks only read; the picture is bit-identical to the one made without them. They come off when the block ends,
    however it ends. If recording fails, the picture is still made and `recording.failure` says why there is no map.

    Args:
        pipe: StableDiffusion or SDXL pipeline, plain, img2img, inpaint, ControlNet or PAG; or a pipeline with a transformer
            (Flux, SD3, Qwen-Image, Z-Image, Wan, …, see `docs/models.md`): there, frames of a video are summed, and
            padding behind the text is not recorded.
        keep: any of "layers", "steps" and "heads": keep these apart (more memory); heads are kept summed over steps, and
            the aggregation "castorini" needs them.
        negative: record the negative prompt too (`maps.negative`).
        self_attention: record self-attention of UNets at one bounded resolution, which refines masks.
        prompts: the text of `prompt_embeds` that somebody else made (compel, sd_embed), without weights: one for all pictures
            or one for each; UNets only. Embeddings that `pipe.encode_prompt` made inside the trace need none.

    Raises:
        UnsupportedModel: the pipeline has no UNet with cross-attention and no transformer that is read.
        BadArgument: `keep` names something else, or `prompts` are given for a transformer.

    Example:
        >>> from daam_core import load_tiny
        >>> pipe = load_tiny()
        >>> pipe.set_progress_bar_config(disable=True)
        >>> with trace(pipe, negative=True) as recording:
        ...     images = pipe(["a red house", "a green tree"], num_inference_steps=2).images
        >>> [maps.words for maps in recording]
        [['a', 'red', 'house'], ['a', 'green', 'tree']]
        >>> tuple(recording.heat_maps(1).mask("tree").shape)
        (128, 128)
    """
    axes = (keep,) if isinstance(keep, str) else tuple(keep)
    if unknown := set(axes) - {"layers", "steps", "heads"}:
        raise BadArgument(f"keep is any of 'layers', 'steps' and 'heads', not {sorted(unknown)}.")
    options = StoreOptions("layers" in axes, "steps" in axes, "heads" in axes, self_attention)
    texts = None if prompts is None else (prompts,) if isinstance(prompts, str) else tuple(prompts)
    transformers = [getattr(pipe, name, None) for name in MODELS]
    if getattr(pipe, "unet", None) is None and any(isinstance(model, torch.nn.Module) for model in transformers):
        if texts is not None:
            raise BadArgument(
                f"`prompts=` is read for UNets. For {type(pipe).__name__} call `pipe.encode_prompt` inside the trace, and give "
                "what it returns."
            )
        return TransformerTrace(pipe, options, negative)
    return UNetTrace(pipe, options, negative, texts)
