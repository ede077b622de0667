"""`trace(pipe)`: record a diffusers pipeline while it paints, without touching the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch

from ..attention.concepts import CONCEPT_RULES, ConceptRule
from ..capture.buffers import StoreOptions
from ..errors import BadArgument, UnsupportedModel, quoted
from ..prompt.concepts import concepts_of
from ..types import Relation
from ..validate import checked_switch
from .attention_trace import AttentionTrace
from .modular_calls import is_modular
from .modular_trace import ModularTrace, ModularUNetTrace
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
    relations: Relation | Sequence[Relation] = "image->text",
    concepts: str | Sequence[str] | Mapping[str, str] | None = None,
    concept_rule: ConceptRule = "prompt",
    output_space: bool = False,
) -> AttentionTrace:
    """Record a diffusers pipeline: `with trace(pipe) as recording: pipe("a red house")`, then `recording.heat_maps()`.

    The hooks only read; the picture is bit-identical to the one made without them. They come off when the block ends,
    however it ends. If recording fails, the picture is still made and `recording.failure` says why there is no map.

    Args:
        pipe: StableDiffusion or SDXL pipeline, plain, img2img, inpaint, ControlNet, PAG, modular or a panorama; AnimateDiff,
            I2VGen-XL; or a pipeline with a transformer (Flux, SD3, Qwen-Image, Z-Image, Wan, …, see `docs/models.md`), also a
            modular one. Of a video, every latent frame has its own maps; of transformers, padding behind the text is not
            recorded.
        keep: any of "layers", "steps" and "heads": keep these apart (more memory); heads are kept summed over steps, and
            the aggregation "castorini" needs them.
        negative: record the negative prompt too (`maps.negative`).
        self_attention: record the picture's attention to itself at one bounded resolution, which refines masks: of UNets, of
            transformers whose text and picture are one sequence, and of PixArt, Wan, LTX, Cosmos and Allegro.
        prompts: the text of `prompt_embeds` that somebody else made (compel, sd_embed), without weights: one for all pictures
            or one for each; UNets only. Embeddings that `pipe.encode_prompt` made inside the trace need none.
        relations: whose queries attend to whose keys, beside "image->text" (Eq. 6, which is always recorded): "text->image"
            (where a word looks: `maps.relation("text->image")`), "text->text" (which word leans on which:
            `maps.word_matrix()`), of transformers whose text and picture are one sequence; "image->image" is
            `self_attention`.
        concepts: up to 64 things to look for that are not in the prompt, such as `["sky", "a dog's tail"]`, or the text to
            encode for each, `{"sky": "a photo of the sky"}`. `maps.heat_map("sky")` is its map and
            `maps.presence("sky")` how likely it is there at all: a map lights the object that fits best, whether it is there
            or not. A word that stands in the prompt has its own map. UNets, PixArt, Sana, Wan and LTX-Video (of one frame) make
            keys of each concept's own text. Stable Diffusion 3, Flux.1, Flux.2, Qwen-Image and Z-Image read them by
            ConceptAttention: a place is shared out among the concepts asked for, so ask for all that may be in the picture; a
            single one is held against eleven everyday things. None of it was measured on trained joint models.
        concept_rule: what a concept's map is held against: "prompt" (the prompt's words), or for comparison "ovam" (its own
            text, OVAM) or "column" (the whole context, without taking part in its softmax). Joint models have none but
            ConceptAttention's, which is their "prompt".
        output_space: record what the attention gives out, too, for the aggregations "output" and "anchor" and for masks where
            there is no self-attention (see `maps.output_space`); of pictures, and of models that are not compiled.
            Where it cannot be read, `recording.output_failure` says why, and the words have their maps.

    Raises:
        UnsupportedModel: the pipeline has no UNet with cross-attention and no transformer that is read, or its model has not
            the relations or concepts, or is compiled and output space was asked for.
        BadArgument: `keep` or `relations` names something else, `prompts` are given for a transformer, or concepts are none
            that can be read.

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
        >>> with trace(pipe, concepts=["sky"]) as recording:
        ...     images = pipe("a red house", num_inference_steps=2).images
        >>> recording.heat_maps().concepts
        ['sky']
    """
    axes = _names(keep, get_args(KeptAxis), "keep is any of 'layers', 'steps' and 'heads'")
    asked = _names(relations, get_args(Relation), f"relations are any of {', '.join(get_args(Relation))}")
    negative = checked_switch(negative, "negative")
    output_space = checked_switch(output_space, "output_space")
    self_attention = checked_switch(self_attention, "self_attention")
    of_text = tuple(one for one in get_args(Relation) if one in asked and one.startswith("text"))
    own = self_attention or "image->image" in asked
    options = StoreOptions("layers" in axes, "steps" in axes, "heads" in axes, own, of_text, output_space)
    texts = None if prompts is None else _texts(prompts)
    wanted = () if concepts is None else concepts_of(concepts)
    if not isinstance(concept_rule, str) or concept_rule not in CONCEPT_RULES:
        raise BadArgument(f"There is no rule {quoted(concept_rule)} for concepts; there are {', '.join(CONCEPT_RULES)}.")
    modular = is_modular(pipe)
    if modular and wanted:
        raise UnsupportedModel(
            f"Concepts are not read from modular pipelines, and {type(pipe).__name__} is one: use the whole pipeline of that "
            "model, or record it without them."
        )
    transformers = [getattr(pipe, name, None) for name in MODELS]
    if getattr(pipe, "unet", None) is None and any(isinstance(model, torch.nn.Module) for model in transformers):
        if texts is not None:
            raise BadArgument(
                f"`prompts=` is read for UNets. For {type(pipe).__name__} call `pipe.encode_prompt` inside the trace, and give "
                "what it returns."
            )
        if modular:
            return ModularTrace(pipe, options, negative)
        return TransformerTrace(pipe, options, negative, wanted, concept_rule)
    if of_text:
        raise UnsupportedModel(
            f"{' and '.join(of_text)} cannot be recorded of {type(pipe).__name__}: a UNet attends to its text in an attention "
            "where only the picture has queries."
        )
    if modular:
        return ModularUNetTrace(pipe, options, negative, texts)
    return UNetTrace(pipe, options, negative, texts, wanted, concept_rule)


def _names(given: Any, known: Sequence[str], told: str) -> tuple[str, ...]:
    """One name, or a row of them. Raises BadArgument where one of them is not known."""
    names = _row(given)
    if names is None or (wrong := [name for name in names if not isinstance(name, str) or name not in known]):
        raise BadArgument(f"{told}, not {quoted(given if names is None else wrong[0], 60)}.")
    return names


def _texts(given: Any) -> tuple[str, ...]:
    """One text, or a row of them. Raises BadArgument for anything else."""
    texts = _row(given)
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise BadArgument(f"prompts is a text or a list of texts, not {quoted(given, 60)}.")
    return texts


def _row(given: Any) -> tuple[Any, ...] | None:
    """What was given one by one, a text as it is; None of what is neither."""
    if isinstance(given, str):
        return (given,)
    try:
        return tuple(given)
    except TypeError:
        return None
