"""Reference pictures, captions of theirs and further frames stand ahead of what is sampled, behind it, or between: every map
is the equation's all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.ldm.lumina.model as lumina
import comfy.supported_models
import torch
from families import GROUPS, check_each
from families_films import hunyuan_maps
from families_settings import PICTURES, Cross, Family, Joint
from zoo import TEXT


def _latent(channels: int, *places: int) -> torch.Tensor:
    return torch.randn(1, channels, *places, generator=torch.Generator().manual_seed(4))


def _of(group: str, name: str, maps: Joint | Cross, given: dict[str, Any], **settings: Any) -> Family:
    (family,) = (one for one in GROUPS[group] if one.name == name)
    return replace(family, settings=family.settings | settings, given={**family.given, **given}, maps=maps)


def case_behind_the_picture() -> Any:
    """Flux (Kontext), Flux.2 and Qwen-Image (Edit): two references of other sizes behind the picture."""
    behind = 4 * 5 + 3 * 2
    pair = {"reference_latents": [_latent(16, 8, 10), _latent(16, 6, 4)]}
    films = {"reference_latents": [_latent(16, 1, 8, 10), _latent(16, 1, 6, 4)]}
    large = {"reference_latents": [_latent(128, 4, 5), _latent(128, 3, 2)]}
    return check_each(
        (
            _of("flux", "Flux", Joint(0, TEXT, TEXT + 60 + behind), pair),
            _of("flux2", "Flux2", Joint(0, 512, 512 + 240 + behind, (12, 20)), large),
            _of("qwen_image", "QwenImage", Joint(0, TEXT, TEXT + 60 + behind), films),
        )
    )


def case_references_of_krea2() -> Any:
    """Krea 2 takes references where it is told how to number them, and none otherwise."""
    if "krea2" not in PICTURES or not hasattr(comfy.supported_models, "Krea2"):
        return "absent"
    pair = {"reference_latents": [_latent(16, 8, 10), _latent(16, 6, 4)]}
    told = {**pair, "reference_latents_method": "index"}
    return check_each(
        (
            _of("krea2", "Krea2", Joint(0, TEXT, TEXT + 60 + 4 * 5 + 3 * 2), told),
            _of("krea2", "Krea2", Joint(0, TEXT, TEXT + 60), pair),
        )
    )


def case_glyphs_and_references_of_hunyuan() -> Any:
    """ByT5's columns stand behind the text, and ahead of it in 1.5, where the embedding of a picture is the first of all."""
    glyphs = {"conditioning_byt5small": torch.randn(1, 9, 1472, generator=torch.Generator().manual_seed(4))}
    behind = _of("hunyuan_image", "HunyuanImage21", hunyuan_maps(0, 0, 240, 9, (12, 20)), glyphs, byt5=True)
    one = {"ref_latent": _latent(16, 1, 12, 20)}
    # This host fails with a reference and two prompts in one call: it writes into one tensor for both.
    referred = replace(_of("hunyuan_video", "HunyuanVideo", hunyuan_maps(0, 60, 120), one), cfg=1.0)
    seen = {"clip_vision_output": (1, 7, 1152)}
    ahead = _of(
        "hunyuan_video_15", "HunyuanVideo15", hunyuan_maps(16, 0, 120), {**glyphs, **seen}, byt5=True,
        vision_in_dim=1152,
    )  # fmt: skip
    return check_each((behind, referred, ahead))


def case_ahead_of_the_picture() -> Any:
    """Z-Image and Lumina 2: a caption and a reference ahead of the picture, all of them padded."""
    if not hasattr(lumina.NextDiT, "embed_cap"):
        return "absent"
    one = {"reference_latents": [_latent(16, 8, 10)]}
    captioned = {**one, "reference_latents_text_embeds": [_latent(40, 48)]}
    return check_each(
        (
            _of("z_image", "ZImage", Joint(32, 32 + 32 + 32, 32 + 32 + 32 + 64), one),
            _of("z_image", "ZImage", Joint(64, 64 + 32 + 32, 64 + 32 + 32 + 64), captioned),
        )
    )


def case_ahead_of_the_film() -> Any:
    """Wan's Fun-Control puts its reference first."""
    reference = {"reference_latents": [_latent(16, 1, 12, 20)]}
    maps = Cross(60 + 3 * 60, picture=60)
    return check_each((_of("wan_image_to_video", "WAN21_FunControl2V", maps, reference, in_dim_ref_conv=16),))


def case_controls_beside_the_film() -> Any:
    """VACE: two controls attend to the text in blocks of their own, at one of three of the film's; theirs is not counted."""
    two = {"vace_frames": [_latent(32, 3, 12, 20), _latent(32, 3, 12, 20) * 2], "vace_strength": [1.0, 0.5]}
    two["vace_mask"] = [torch.ones(1, 64, 3, 12, 20)] * 2
    return check_each((_of("wan_vace", "WAN21_Vace", Cross(3 * 60), two, num_layers=3, vace_layers=1),))
