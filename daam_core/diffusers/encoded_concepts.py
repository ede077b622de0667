"""Concepts through a pipeline's own `encode_prompt`: once a call, beside the prompt's, as that was called."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ..attention.concepts import ConceptRule
from ..capture.concept_texts import ConceptTexts, texts_to_encode
from ..capture.family import Family
from ..capture.tokenizer_hook import Tokenized, TokenizerHook, padded_to_longest
from ..errors import BadArgument, NothingRecorded, UnsupportedModel
from ..maps.relabel import by_index
from ..prompt.compose import without_padding_behind
from ..prompt.concepts import Concept
from .encoded_prompts import EncodedPrompts, Encoding
from .encodings import batches_of, dropped_of
from .unet_prompts import encoded_words

_ENCODERS = ("text_encoder", "text_encoder_2")
_CLIP = "transformers.models.clip.modeling_clip"
_CAUSAL = ((_CLIP, "CLIPTextModel"), (_CLIP, "CLIPTextModelWithProjection"))


def encode_concepts(
    pipe: Any, given: Mapping[str, Any], concepts: tuple[Concept, ...], rule: ConceptRule, tokenizers: TokenizerHook
) -> ConceptTexts:
    """Concepts and their rivals as the text encoder gives them out, in one call, where it lies now.

    Args:
        given: the arguments of the pipeline's own call of `encode_prompt`, by name: CLIP skip and LoRA scale are the same.
        tokenizers: hooks on the pipeline's tokenizers.

    Raises:
        NothingRecorded: the pipeline has let go of its text encoder.
        UnsupportedModel: its `encode_prompt` takes no list of texts, or gives out no rows for them.
        BadArgument: a concept has no token, or its words cannot be told from the columns.
    """
    name = type(pipe).__name__
    if not any(isinstance(getattr(pipe, part, None), torch.nn.Module) for part in _ENCODERS):
        raise _freed(name)
    labels, texts = texts_to_encode(concepts)
    short = rule != "ovam" and _are_causal(pipe)
    with padded_to_longest() if short else nullcontext():
        output, tokens = _encoded(pipe, given, texts, tokenizers)
    states = next(iter(output)) if isinstance(output, (tuple, list)) else output
    if not isinstance(states, Tensor) or states.dim() != 3 or len(states) != len(texts):
        raise UnsupportedModel(f"{name} encodes its prompts in a form that concepts are not read from.")
    encoding = Encoding({"prompt": texts}, [list(states)], tokens)
    prompts = tuple(encoded_words(pipe, (encoding, "prompt", i), states.shape[1]) for i in range(len(texts)))
    if any(by_index(prompt) for prompt in prompts):
        raise BadArgument(f"The words of the concepts cannot be told from the columns that {name} encodes them to.")
    found = ConceptTexts(concepts, tuple(labels), prompts, states, rule)
    found.columns()  # a concept without a token is told now
    return found


def encode_transformer_concepts(
    pipe: Any,
    given: Mapping[str, Any],
    concepts: tuple[Concept, ...],
    rule: ConceptRule,
    tokenizers: TokenizerHook,
    family: Family,
) -> ConceptTexts:
    """The same for a pipeline with a transformer of this family: its templates are in the texts' columns, their padding is not
    among the words'.

    Raises:
        NothingRecorded, UnsupportedModel, BadArgument: as `encode_concepts`.
    """
    name = type(pipe).__name__
    optional = set(getattr(pipe, "_optional_components", ()))
    for tokenizer in family.tokenizers:
        encoder = tokenizer.replace("tokenizer", "text_encoder")
        # One that never was, as in the model inside or in Stable Diffusion 3 without its T5, has no tokenizer either.
        freed = getattr(pipe, encoder, True) is None and getattr(pipe, tokenizer, None) is not None
        if freed and encoder not in optional:
            raise _freed(name)
    labels, texts = texts_to_encode(concepts)
    output, tokens = _encoded(pipe, given, texts, tokenizers)
    rows = next(iter(batches_of(output)), [])
    if len(rows) != len(texts) or any(row.dim() != 2 for row in rows):
        raise UnsupportedModel(f"{name} encodes its prompts in a form that concepts are not read from.")
    encoded = EncodedPrompts()
    encoded.add("prompt", rows, Encoding({"prompt": texts}, [rows], tokens, dropped_of(pipe)), "prompt")
    prompts = tuple(without_padding_behind(encoded.prompt(row, family, (len(row.rows),))) for row in encoded.rows)
    if any(by_index(prompt) for prompt in prompts):
        raise BadArgument(f"The words of the concepts cannot be told from the columns that {name} encodes them to.")
    states = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    found = ConceptTexts(concepts, tuple(labels), prompts, states, rule)
    found.columns()  # a concept without a token is told now
    return found


def _are_causal(pipe: Any) -> bool:
    """Whether its text encoders are CLIP's, in which no column depends on those behind it: padding takes nine tenths of the
    time that concepts take to encode, and nobody reads its columns."""
    parts = [getattr(pipe, part, None) for part in _ENCODERS]
    return all(part is None or (type(part).__module__, type(part).__name__) in _CAUSAL for part in parts) and type(
        pipe
    ).encode_prompt.__module__.startswith("diffusers.")


def _freed(name: str) -> NothingRecorded:
    return NothingRecorded(
        f"{name} has no text encoder any more, so concepts cannot be encoded. Keep the encoder until the picture is made."
    )


def _encoded(
    pipe: Any, given: Mapping[str, Any], texts: Sequence[str], tokenizers: TokenizerHook
) -> tuple[Any, Sequence[Tokenized]]:
    """What the pipeline's `encode_prompt` makes of some texts, and what its tokenizers read for it."""
    device = given.get("device") or pipe.device  # the latter searches the whole pipeline for offloading
    devices = [device] if getattr(device, "type", "cpu") == "cuda" else []
    # An encoder left in training mode draws random numbers, which are the picture's.
    with tokenizers.record() as tokens, torch.no_grad(), torch.random.fork_rng(devices):
        return pipe.encode_prompt(**_arguments(pipe, given, texts)), tokens


def require_concepts(pipe: Any) -> None:
    """Raises UnsupportedModel, in a sentence, for a pipeline whose UNet is not given the text itself."""
    name, unet = type(pipe).__name__, pipe.unet
    if not callable(getattr(type(pipe), "encode_prompt", None)):
        raise UnsupportedModel(f"{name} has no `encode_prompt`, so concepts cannot be encoded for it. Record it without them.")
    projected = getattr(getattr(unet, "config", None), "encoder_hid_dim_type", None)
    if projected not in (None, "ip_image_proj"):
        raise UnsupportedModel(
            f"The UNet of {name} changes its text before it attends to it ({projected}), so concepts are not read there. "
            "Record it without them."
        )


def _arguments(pipe: Any, given: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """The pipeline's own arguments of `encode_prompt`, for other texts and nothing but them."""
    parameters = inspect.signature(type(pipe).encode_prompt).parameters
    arguments = {name: given[name] for name in parameters if name != "self" and name in given}
    for name, value in arguments.items():
        if "embeds" in name or re.fullmatch(r"(negative_)?prompt(_\d)?", name) or "attention_mask" in name:
            arguments[name] = None
        elif name.startswith("num_") and isinstance(value, int):
            arguments[name] = 1
        elif name == "do_classifier_free_guidance":
            arguments[name] = False
    return {**arguments, "prompt": list(texts)}
