"""What a run that met no error says where it has no maps, or not all that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PIECES = (
    "Another node samples the picture or video piece by piece (context windows), so that nobody can say which part of it the "
    "attention belongs to. Record without that node."
)

CHANGED_ENCODING = (
    "Another node changed the prompt's encoding after its text was encoded (ConditioningAverage mixes another text into it, "
    "others weigh it or add noise): the words are those of its own text, and whatever was mixed in has its heat under them."
)


def nothing_recorded(num_steps: int, in_pieces: bool, predicted: bool = True, done: int = 0) -> str:
    """The sentence about a run of `num_steps` recorded steps none of whose attention was seen.

    Args:
        in_pieces: whether conditionings were predicted that are not the sampler's own.
        predicted: whether the sampler was seen to ask for a prediction.
        done: steps that it says it did.
    """
    if not predicted and not done:
        return (
            "The sampler did no step (its sigmas leave none), so the model was never asked and there is no map. Give it at "
            "least two sigmas; of a run that SplitSigmas cut, connect the part that has steps."
        )
    if in_pieces:
        return PIECES
    num_steps = num_steps if predicted else done
    if not num_steps:
        return (
            "No sampling step lies between the first and last step that Record was told to keep. Set `first_step` and "
            "`last_step` to steps that the sampler does."
        )
    return (
        f"The sampler did {num_steps} steps, but none of the model's attention to the text could be seen: another node puts "
        "its own in place of it (the samplers of ComfyUI-NAG do so), or this version of ComfyUI tells nobody of it. Record "
        "without that node, or with a newer version of ComfyUI."
    )


def no_relations(model: str) -> str:
    """The sentence about a network, by its class's name, in which the text attends to nothing."""
    return (
        "What the text attends to was not recorded, the words were: in this model, "
        f"{model}, only the picture has queries, and the text keys."
    )


def unreported_attention(block: Mapping[str, Any]) -> str:
    """The sentence about a UNet's layer, as ComfyUI tells its patches of it, whose attention to the text nobody was shown."""
    name, number = block.get("block") or ("middle", 0)
    return (
        f"another node computes the cross-attention of {name}_blocks.{number}.transformer_blocks.{block.get('block_index', 0)} "
        "in a way of its own, which is shown to nobody. Maps without it would lack a part. Record without that node"
    )


def several_passes(passes: int) -> str:
    """That maps are of several passes of the sampler, empty for one."""
    if passes < 2:
        return ""
    return (
        f"Another node ran the sampler {passes} times for this picture (iterations of AnimateDiff do so): the maps are of all "
        "these passes together, and steps are counted on from one to the next."
    )


def one_run_of(runs: int) -> str:
    """That maps are of the last of several runs of the sampler, empty for one."""
    if runs < 2:
        return ""
    return (
        f"One node ran the sampler {runs} times for this picture, one run upon another (samplers of regions and iterative "
        "upscalers do so): these maps are of the last run alone, with its words and steps."
    )


def later_run_of(runs: int, continued: bool) -> str:
    """`one_run_of`; of a sampler that went on with what another one had made, that maps are of its own steps alone."""
    if runs > 1 or not continued:
        return one_run_of(runs)
    return (
        "The sampler went on with a latent that an earlier recorded run had given out (steps split between two samplers, or "
        "a second pass): these maps are of its own steps alone. Those of the earlier run belong to that latent."
    )


def left_out_layers(layers: Sequence[int]) -> str:
    """That layers did not attend in some calls of the model, empty where as many did in each.

    Args:
        layers: of each call, how many attended to the text.
    """
    fewer = sum(n < max(layers) for n in layers)
    if not fewer:
        return ""
    return (
        f"In {fewer} of {len(layers)} calls of the model, not all of its {max(layers)} layers attended to the text: another "
        "node leaves some out, as caches do (EasyCache, TeaCache, FBCache). The maps are of those that did."
    )
