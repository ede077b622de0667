"""What a graph in API format may say that no widget lets through: NaN passes ComfyUI's limits."""

from __future__ import annotations

from typing import Any

import torch
from cases_nodes import NODES, painted, refused, run


def case_no_number_is_a_sentence_at_every_node() -> None:
    """JSON has NaN: it is below no limit and above none."""
    latent, image = painted(images=1, detail="steps")
    model, clip, vae = run("TinyModel")
    maps = run("HeatMaps", latent, image, "house")[0]
    given = {"LATENT": latent, "IMAGE": image, "MASK": torch.ones(image.shape[:3]), "MODEL": model, "CLIP": clip, "VAE": vae}
    asked = 0
    for name, one in NODES.items():
        inputs = one.GET_SCHEMA().inputs
        for number in (each for each in inputs if each.io_type == "FLOAT"):
            values = {each.id: _value(each, {**given, "DAAM_LENS_MAPS": maps}) for each in inputs if not each.optional}
            asked += 1
            said = refused(name.removeprefix("DaamLens"), **{**values, number.id: float("nan")})
            assert "nan" in said, (name, number.id, said)
    assert asked >= 9


def _value(each: Any, given: dict[str, Any]) -> Any:
    if each.io_type == "STRING":
        return "house" if each.id in ("word", "words", "text") else each.default
    if each.io_type == "COMBO":
        return each.default or each.options[0]
    return given.get(each.io_type, getattr(each, "default", None))
