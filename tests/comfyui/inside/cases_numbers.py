"""What comes to a node through no widget: NaN and unknown choices of a graph in API format, nothing out of a switch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cases_nodes import NODES, painted, refused, run

FIELDS = {"STRING": "a text", "INT": "a whole number", "FLOAT": "a number", "BOOLEAN": "true or false"}
"""What is typed into a node's fields, and may be linked."""


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


def case_what_no_widget_and_no_link_gives_is_a_sentence_at_every_node() -> None:
    """A switch of another pack has the type of anything and may give nothing; a text may stand where a link belongs; older
    ComfyUIs check no choice."""
    latent, image = painted(images=1, detail="steps")
    model, clip, vae = run("TinyModel")
    maps = run("HeatMaps", latent, image, "house")[0]
    given = {"LATENT": latent, "IMAGE": image, "MASK": torch.ones(image.shape[:3]), "MODEL": model, "CLIP": clip, "VAE": vae}
    given["DAAM_LENS_MAPS"] = maps
    asked = 0
    for name, one in NODES.items():
        inputs = one.GET_SCHEMA().inputs
        values = {each.id: _value(each, given) for each in inputs if not each.optional}
        for each in inputs:
            if each.io_type == "COMBO":
                said = refused(name.removeprefix("DaamLens"), **{**values, each.id: "nope"})
                assert said.startswith(f"There is no {each.id} 'nope'"), said
                array = refused(name.removeprefix("DaamLens"), **{**values, each.id: np.zeros(2)})
                assert array.startswith((f"There is no {each.id} array", f"{each.id} takes ")), array
            elif each.io_type not in FIELDS:
                typed = refused(name.removeprefix("DaamLens"), **{**values, each.id: "a text"})
                assert typed.startswith(f"{each.id} takes ") and "is a str, 'a text'. Connect " in typed, typed
                if not each.optional:
                    nothing = refused(name.removeprefix("DaamLens"), **{**values, each.id: None})
                    assert nothing.startswith(f"Nothing came in at {each.id}: "), nothing
            else:
                said = refused(name.removeprefix("DaamLens"), **{**values, each.id: [5]})
                assert said.startswith(f"{each.id} takes {FIELDS[each.io_type]}, and what came in is a list. "), said
                if each.io_type == "INT":
                    said = refused(name.removeprefix("DaamLens"), **{**values, each.id: 10**30})
                    assert said.startswith(f"{each.id} is a whole number from {each.min} to {each.max}, "), said
                if not each.optional:
                    nothing = refused(name.removeprefix("DaamLens"), **{**values, each.id: None})
                    assert nothing.startswith(f"Nothing came in at {each.id}: "), nothing
            asked += 1
    assert asked >= 80
    assert run("Record", model, clip, live_word=None, relations=None, negative=1)[0] is not None
    assert run("Overlay", maps, None, "house")[0].shape[0] == 1, "what is optional may be nothing"


def case_a_picture_of_one_channel_is_grey() -> None:
    latent, image = painted(images=1)
    grey = image[..., :1]
    shown = run("HeatMaps", latent, grey, "house", opacity=0.0, caption=False)[1]
    assert torch.equal(shown, run("HeatMaps", latent, grey.expand(-1, -1, -1, 3), "house", opacity=0.0, caption=False)[1])


def _value(each: Any, given: dict[str, Any]) -> Any:
    if each.io_type == "STRING":
        return "house" if each.id in ("word", "words", "text") else each.default
    if each.io_type == "COMBO":
        return each.default or each.options[0]
    return given.get(each.io_type, getattr(each, "default", None))
