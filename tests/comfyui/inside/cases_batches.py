"""Batches whose pictures have texts of their own: no picture shows another one's words."""

from __future__ import annotations

from typing import Any

import comfy_extras.nodes_post_processing  # noqa: F401 - in the order in which the host loads it and nodes_latent
import graphs
import torch
import zoo
from cases_nodes import refused, run
from graphs import encode, ksampler, listen, runs
from zoo import clip, empty, unet

TEXTS = "a red house and a tree", "a blue boat and a tree"


def _travelling(encoder: Any) -> Any:
    """As prompt travel nodes make it: a batch of encodings, beside what the first one carries."""
    made = [encode(encoder, text)[0] for text in TEXTS]
    pooled = torch.cat([more["pooled_output"] for _, more in made])
    return [[torch.cat([context for context, _ in made]), {**made[0][1], "pooled_output": pooled}]]


def case_another_text_for_each_picture_of_a_batch() -> None:
    def sample(model: Any, encoder: Any, turned: bool = False) -> torch.Tensor:
        both = _travelling(encoder), encode(encoder, "blurry")
        return ksampler(model, *(both[::-1] if turned else both), empty(64, 64, 2))

    plain, heard = sample(unet("sd15"), clip("sd15")), sample(*listen(unet("sd15"), clip("sd15")))
    assert torch.equal(plain, heard), "recording changed the picture"
    said = graphs.refusal(heard)
    assert "another text for each picture of the batch" in said and "the picture was still made" in said, said
    turned = sample(*listen(unet("sd15"), clip("sd15")), turned=True)
    assert [maps.words for maps in runs.maps_of(turned)] == [["blurry"]] * 2
    assert "another text for each picture" in graphs.refusal(
        sample(*listen(unet("sd15"), clip("sd15"), negative=True), turned=True)
    )
    alike = [[torch.cat([context] * 2), more] for context, more in encode(listen(unet("sd15"), zoo.clip("sd15"))[1], TEXTS[0])]
    once = ksampler(listen(unet("sd15"), None)[0], alike, encode(clip("sd15"), ""), empty(64, 64, 2), seed=8)
    assert len(runs.maps_of(once)) == 2


def case_pictures_of_several_prompts_in_one_batch() -> None:
    """Latent Batch of two samplers: a word that one lacks is said with the picture's number."""
    model, encoder, _ = run("TinyModel")
    heard, told = run("Record", model, encoder, detail="steps")
    how = {"cfg": 4.0, "scheduler": "sgm_uniform"}
    first, second = (ksampler(heard, encode(told, text), encode(told, ""), empty(64, 64), **how) for text in TEXTS)
    latent = graphs.node("nodes_latent", "LatentBatch")({"samples": first}, {"samples": second})[0]
    for words in ("", "house"):
        said = refused("HeatMaps", latent, None, words)
        assert "picture 2 has another one ('a blue boat and a tree')" in said and "Latent From Batch" in said, said
    maps, overlays, masks, words = run("HeatMaps", latent, None, "tree")
    assert words == ["tree"] and len(maps) == len(overlays) == len(masks) == 2
    report, _ = run("PromptReport", maps)
    one, other = report.split("picture 2\n")
    assert "house" in one and "boat" not in one and "boat" in other and "house" not in other
    assert run("Mask", maps, "", "threshold")[0].shape == (2, 64, 64)
    region = torch.ones(1, 64, 64)
    assert "house" in run("WordsInRegion", maps, region)[0].split("\n\n")[0]
    for name, more in (
        ("Mask", ("house",)), ("Overlay", (None, "house")), ("Timeline", ("house",)), ("PromptReport", ("house",)),
        ("WordsInRegion", (region, "house")), ("CompareMaps", (maps, "house")),
    ):  # fmt: skip
        assert "picture 2 has another one" in refused(name, maps, *more), name
    assert "picture 2 has another one" in refused("Mask", maps, "tree", "compete", against="house")
