"""Transformers of Forge and its kin: the registry, and layouts that are not ComfyUI's word for word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from daam_core.capture.comfyui_families import COMFYUI_FAMILIES
from daam_core.capture.comfyui_model import ModelCall
from daam_core.capture.families import FAMILIES
from daam_core.capture.forge_families import FORGE_FAMILIES, forge_model_of, is_forge_transformer

CHECKPOINT = SimpleNamespace(**dict.fromkeys({known.engine for known in FORGE_FAMILIES.values()}, "engine"))


def built(name: str, *bases: type) -> nn.Module:
    """A model of a class of the host."""
    module, _, kind = name.rpartition(".")
    return type(kind, bases or (nn.Module,), {"__module__": module})()


def test_families_are_called_as_elsewhere() -> None:
    assert set(FORGE_FAMILIES) <= {family.name for family in FAMILIES} | set(COMFYUI_FAMILIES)


@pytest.mark.parametrize("family", FORGE_FAMILIES)
def test_a_class_of_the_host_is_known_with_its_text_encoder(family: str) -> None:
    known = FORGE_FAMILIES[family]
    model = built(f"backend.nn.{known.classes[0]}")
    found = forge_model_of(model, SimpleNamespace(**{known.engine: "engine"}))
    assert found is not None
    assert found[1].layout is known.layout
    assert forge_model_of(model, SimpleNamespace()) is None, "without the text encoder nobody knows the words"


def test_classes_of_others_are_not() -> None:
    flux = built("backend.nn.flux.IntegratedFluxTransformer2DModel")
    assert forge_model_of(built("elsewhere.flux.IntegratedFluxTransformer2DModel"), CHECKPOINT) is None
    assert forge_model_of(built("backend.nn.other.Made", type(flux)), CHECKPOINT) is None, "made from one that is read"
    assert is_forge_transformer(flux) and not is_forge_transformer(built("backend.nn.unet.IntegratedUNet2DConditionModel"))


def rows_of(family: str, model: Any, call: ModelCall) -> dict[tuple[int, int], tuple[int, int]]:
    """(first place of the picture, first key of the text) of each attention with text in it."""
    rows = FORGE_FAMILIES[family].layout(model, call).rows
    return {size: (own[0].picture, own[0].text) for size, own in rows.items() if own}


LATENT = (2, 16, 12, 20)
REFERENCE = torch.zeros(1, 16, 8, 8)


@pytest.mark.parametrize(
    ("family", "model", "call", "rows"),
    [
        # 18 columns of text padded to 32, 60 patches to 64
        ("Z-Image", SimpleNamespace(patch_size=2, pad_tokens_multiple=32), ModelCall(LATENT, 18), {(96, 96): (32, 0)}),
        ("Lumina 2", SimpleNamespace(patch_size=2, pad_tokens_multiple=None), ModelCall(LATENT, 18), {(78, 78): (18, 0)}),
        ("Flux.1", SimpleNamespace(patch_size=2), ModelCall(LATENT, 256), {(316, 316): (256, 0)}),
        ("Flux.1", SimpleNamespace(), ModelCall(LATENT, 256, {"ref_latents": (REFERENCE,)}), {(332, 332): (256, 0)}),
        ("ERNIE-Image", SimpleNamespace(patch_size=1), ModelCall((1, 128, 6, 10), 7), {(67, 67): (0, 60)}),
        (
            "Anima",
            SimpleNamespace(patch_spatial=2, patch_temporal=1, blocks=[0, 0]),
            ModelCall((1, 16, 1, 12, 20), 512, {"ref_latents": (torch.zeros(1, 16, 1, 12, 20),)}),
            {(120, 512): (0, 0)},
        ),
        ("Krea 2", SimpleNamespace(patch=2, txtlayers=12), ModelCall((1, 16, 1, 12, 20), 9), {(69, 69): (9, 0)}),
        (
            "Krea 2",
            SimpleNamespace(patch=2, txtlayers=12),
            ModelCall((1, 16, 1, 12, 20), 9, {"ref_latents": (REFERENCE,)}),
            {(85, 85): (9, 0)},
        ),
    ],
)
def test_where_text_and_picture_stand(
    family: str, model: Any, call: ModelCall, rows: dict[tuple[int, int], tuple[int, int]]
) -> None:
    assert rows_of(family, model, call) == rows
