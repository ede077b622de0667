"""Concepts of transformers beside a LoRA, which changes what they attend with, and of a prompt for a part of the picture."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import comfy.sd
import families
import torch
from cases_joint_concepts import Keys, Stream, _checked, built, carrying, encoded
from families_settings import Cross, Family
from graphs import listen, runs
from stream_truth import WAYS


def _with_lora(model: Any, endings: tuple[str, ...]) -> Any:
    """A clone whose layers with these endings have a LoRA of rank 2, in the common naming."""
    generator, state = torch.Generator().manual_seed(3), {}
    for name, module in model.model.diffusion_model.named_modules():
        if name.endswith(endings):
            for part, shape in (("up", (module.weight.shape[0], 2)), ("down", (2, module.weight.shape[1]))):
                state[f"diffusion_model.{name}.lora_{part}.weight"] = torch.randn(shape, generator=generator) * 0.3
    assert state, f"no layer ends with one of {endings}"
    changed = comfy.sd.load_lora_for_models(model, None, state, 1.0, 0.0)[0]
    assert len(changed.patches) == len(state) // 2, "a part of the LoRA is not known to the host"
    return changed


def _beside_a_lora(name: str, *endings: str, **changes: Any) -> Any:
    """The LoRA takes part in what the concepts attend with, as it does in what the prompt does."""
    found = built(name, **changes)
    if found is None:
        return "absent"
    family, plain = found
    concepts = encoded(family.width)

    def checked(model: Any) -> tuple[float, Any]:
        witness = (Stream if family.name in WAYS else Keys)(concepts, family, plain)
        return _checked(family, model, concepts, witness, family.maps.grid), witness.total[0]

    changed = _with_lora(plain, endings)
    (off, maps), (_, before) = checked(changed), checked(plain)
    assert float((maps - before).abs().max() / before.max()) > 1e-3, "the LoRA changed nothing"
    return off


def case_flux_beside_a_lora() -> Any:
    return _beside_a_lora("Flux", "img_attn.qkv", "txt_attn.qkv")


def case_qwen_image_beside_a_lora() -> Any:
    return _beside_a_lora("QwenImage", "attn.to_k", "attn.add_k_proj")


def case_pixart_beside_a_lora() -> Any:
    return _beside_a_lora("PixArtAlpha", "cross_attn.kv_linear")


def case_wan_beside_a_lora() -> Any:
    return _beside_a_lora("WAN21_T2V", "cross_attn.k", frames=1)


def case_ltx_beside_a_lora() -> Any:
    return _beside_a_lora("LTXV", "attn2.to_k", frames=1)


def _in_an_area(name: str, **changes: Any) -> Any:
    """The prompt is for the right half: its concepts' maps are that half's, and nothing elsewhere."""
    found = built(name, **changes)
    if found is None:
        return "absent"
    family, model = found
    concepts = encoded(family.width)
    height, width = family.maps.grid
    half = dataclasses.replace(family.maps, grid=(height, width // 2))
    half = dataclasses.replace(half, places=half.places - height * width // 2)
    witness = (Stream if family.name in WAYS else Keys)(concepts, dataclasses.replace(family, maps=half), model)
    with carrying(concepts):
        inner = families._context

        def both(known: Family, seed: int) -> Any:
            made = inner(known, seed)
            if seed == 1:
                made[0][1].update(area=(family.size[0], family.size[1] // 2, 0, family.size[1] // 2))
            return made

        with mock.patch.object(families, "_context", both):
            sample = families.sampling(family, model)
            plain = witness.watch(model, sample)
            heard = sample(listen(model, None, concepts=concepts.concepts)[0])
    assert torch.equal(plain, heard), "recording concepts changed the picture"
    (maps,) = runs.maps_of(heard)
    assert runs.RECORDINGS.note(heard) == "", runs.RECORDINGS.note(heard)
    sums = maps.sides["concepts"].sums[height, width][1 : 1 + len(concepts.concepts)].double()
    true = witness.total[0].T.unflatten(1, (height, width // 2))
    assert not sums[..., : width // 2].any()
    off = float((sums[..., width // 2 :] - true).abs().max() / true.max())
    assert off < 1e-5, f"off by {off:.1e}"
    return off


def case_flux_in_an_area() -> Any:
    return _in_an_area("Flux")


def case_pixart_in_an_area() -> Any:
    """Of a size that the host can make places of: half of a smaller one has none."""
    return _in_an_area("PixArtAlpha", size=(36, 60), maps=Cross(18 * 30, grid=(18, 30)))
