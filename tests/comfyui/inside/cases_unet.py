"""Samplers, sizes, batches and families of UNets."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import graphs
import torch
import truth
from graphs import check, encode, ksampler, listen, node, runs, same_words
from zoo import PROMPT, clip, empty, unet

import nodes as host_nodes


def _basic(kind: str, height: int = 128, width: int = 128, images: int = 1, text: str = PROMPT, **sampling: Any) -> Any:
    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, text), encode(encoder, "blurry"), empty(height, width, images), **sampling)

    return check(unet(kind), clip(kind), sample, text)


def case_sd15() -> None:
    found = _basic("sd15")
    same_words(found[0].words, PROMPT)
    assert found[0].size == (128, 128)


def case_sd2_v_prediction() -> None:
    _basic("sd2")


def case_sdxl() -> None:
    same_words(_basic("sdxl")[0].words, PROMPT)


def case_264_by_320() -> None:
    assert _basic("sd15", 264, 320)[0].size == (264, 320)


def case_wide_sdxl() -> None:
    _basic("sdxl", 136, 232)


def case_batch_of_4() -> None:
    found = _basic("sd15", images=4)
    assert not torch.equal(found[0].heat_map("house"), found[3].heat_map("house"))


def case_one_picture_out_of_a_batch() -> None:
    """LatentFromBatch and a batch put together from two runs still find their maps."""
    model, encoder = listen(unet("sd15"), clip("sd15"))
    sampled = ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128, 3))
    whole = runs.maps_of(sampled)
    one = runs.maps_of(sampled[1:2])
    assert len(one) == 1
    assert torch.equal(one[0].heat_map("house"), whole[1].heat_map("house"))


def case_cfg_1() -> None:
    _basic("sd15", cfg=1.0)


def case_second_order_sampler() -> None:
    _basic("sd15", sampler_name="heun")


def case_ancestral_and_sde_samplers() -> None:
    for name in ("euler_ancestral", "dpmpp_2m", "ddim", "uni_pc"):
        _basic("sd15", sampler_name=name)


def case_img2img() -> None:
    latent = {"samples": torch.randn(1, 4, 16, 20, generator=torch.Generator().manual_seed(2))}

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), latent, steps=4, denoise=0.5)

    check(unet("sd15"), clip("sd15"), sample, PROMPT)


def case_inpaint_with_a_noise_mask() -> None:
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 32:96, 32:96] = 1
    latent = {"samples": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2)), "noise_mask": mask}

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), latent)

    check(unet("sd15"), clip("sd15"), sample, PROMPT)


def case_ksampler_advanced_in_two_stages() -> None:
    """Each stage's latent gives its own steps."""
    advanced = host_nodes.KSamplerAdvanced()

    def stages(model: Any, encoder: Any) -> list[torch.Tensor]:
        positive, negative = encode(encoder, PROMPT), encode(encoder, "blurry")
        first = advanced.sample(
            model, "enable", 5, 4, 7.0, "euler", "normal", positive, negative, empty(128, 128), 0, 2, "enable"
        )[0]
        second = advanced.sample(
            model, "disable", 5, 4, 7.0, "euler", "normal", positive, negative, first, 2, 10000, "disable"
        )[0]
        return [first["samples"], second["samples"]]

    plain = stages(unet("sd15"), clip("sd15"))
    heard = stages(*listen(unet("sd15"), clip("sd15")))
    assert all(torch.equal(a, b) for a, b in zip(plain, heard, strict=True))
    maps = [runs.maps_of(latent)[0] for latent in heard]
    assert [m.steps for m in maps] == [2, 2]
    assert not torch.equal(maps[0].heat_map("house"), maps[1].heat_map("house"))
    _, true = truth.unet_maps(unet("sd15"), lambda m: stages(m, clip("sd15")))
    both = sum(m.heat_map("house", m.size).double() for m in maps)
    expected = truth.at_size(true, 0, graphs.columns(clip("sd15"), PROMPT, "house"), (128, 128))
    assert float((both - expected).abs().max() / expected.max()) < 1e-5


def _custom(guider: Any, latent: Any, sampler: str = "euler") -> tuple[Any, Any]:
    noise = node("nodes_custom_sampler", "RandomNoise")(7)[0]
    sigmas = node("nodes_custom_sampler", "BasicScheduler")(unet("sd15"), "normal", 2, 1.0)[0]
    return node("nodes_custom_sampler", "SamplerCustomAdvanced")(
        noise, guider, comfy.samplers.sampler_object(sampler), sigmas, latent
    )


def case_sampler_custom_advanced_both_outputs() -> None:
    """The clean latent (`denoised_output`) finds the maps, too."""
    out: dict[str, Any] = {}

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        guider = node("nodes_custom_sampler", "CFGGuider")(model, encode(encoder, PROMPT), encode(encoder, ""), 6.0)[0]
        out["both"] = _custom(guider, empty(128, 128), "euler_ancestral")
        return out["both"][0]["samples"]

    found = check(unet("sd15"), clip("sd15"), sample, PROMPT)
    clean = runs.maps_of(out["both"][1]["samples"])
    assert torch.equal(clean[0].heat_map("house"), found[0].heat_map("house"))


def case_basic_guider_without_negative() -> None:
    def sample(model: Any, encoder: Any) -> torch.Tensor:
        guider = node("nodes_custom_sampler", "BasicGuider")(model, encode(encoder, PROMPT))[0]
        return _custom(guider, empty(128, 128))[0]["samples"]

    check(unet("sd15"), clip("sd15"), sample, PROMPT)


def case_dual_cfg_guider() -> None:
    """Both prompts are heard; the first stands at the third place of the call, the second one in the middle."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        guider = node("nodes_custom_sampler", "DualCFGGuider")(
            model, encode(encoder, PROMPT), encode(encoder, "a blue boat"), encode(encoder, "blurry"), 6.0, 4.0, "regular"
        )[0]
        return _custom(guider, empty(128, 128))[0]["samples"]

    found = check(unet("sd15"), clip("sd15"), sample, PROMPT, index=2)
    assert "boat" in found[0].words
    _, middle = truth.unet_maps(unet("sd15"), lambda m: sample(m, clip("sd15")), index=1)
    graphs.equal(found, middle, clip("sd15"), "a blue boat", ["boat"])


def case_perp_neg_guider() -> None:
    def sample(model: Any, encoder: Any) -> torch.Tensor:
        guider = node("nodes_perpneg", "PerpNegGuider")(
            model, encode(encoder, PROMPT), encode(encoder, "blurry"), encode(encoder, ""), 6.0, 1.0
        )[0]
        return _custom(guider, empty(128, 128))[0]["samples"]

    check(unet("sd15"), clip("sd15"), sample, PROMPT)


def case_negative_prompt() -> None:
    """The negative prompt's words on request, from the negative rows."""
    text = "blurry boat"

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, text), empty(128, 128))

    found = check(unet("sd15"), clip("sd15"), sample, PROMPT, negative=True)
    same_words(found[0].negative.words, text)
    _, true = truth.unet_maps(unet("sd15"), lambda m: sample(m, clip("sd15")), index=1)
    graphs.equal([found[0].negative], true, clip("sd15"), text, ["boat"])


def case_hires_fix_with_two_samplers() -> None:
    """One Record, two samplers: each latent gives its own run."""
    upscale = host_nodes.LatentUpscale()

    def sample(model: Any, encoder: Any) -> list[torch.Tensor]:
        positive, negative = encode(encoder, PROMPT), encode(encoder, "")
        small = ksampler(model, positive, negative, empty(64, 96))
        large = upscale.upscale({"samples": small}, "nearest-exact", 192, 128, "disabled")[0]
        return [small, ksampler(model, positive, negative, large, denoise=0.6)]

    plain = sample(unet("sd15"), clip("sd15"))
    heard = sample(*listen(unet("sd15"), clip("sd15")))
    assert all(torch.equal(a, b) for a, b in zip(plain, heard, strict=True))
    assert [runs.maps_of(latent)[0].size for latent in heard] == [(64, 96), (128, 192)]


def case_first_and_last_step() -> None:
    """Only the steps that were asked for: two of four, both included."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128), steps=4)

    whole = sample(*listen(unet("sd15"), clip("sd15"), detail="steps"))
    expected = runs.maps_of(whole)[0].select(steps=[1, 2]).heat_map("house")
    part = sample(*listen(unet("sd15"), clip("sd15"), first_step=1, last_step=2))
    assert torch.equal(whole, part)
    maps = runs.maps_of(part)[0]
    assert maps.steps == 2
    torch.testing.assert_close(maps.heat_map("house"), expected, rtol=2e-3, atol=1e-3)


def case_detail_of_layers_steps_and_heads() -> None:
    """What was kept apart adds up to the whole."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128))

    found = check(unet("sd15"), clip("sd15"), sample, PROMPT, detail="layers + steps", heads=True)[0]
    whole = found.heat_map("house", (128, 128))
    for parts in (
        [found.select(steps=[i]) for i in range(found.steps)],
        [found.select(layers=[i]) for i in range(len(found.layers))],
    ):
        added = sum(part.heat_map("house", (128, 128)) for part in parts)
        torch.testing.assert_close(added, whole, rtol=5e-3, atol=5e-3 * float(whole.max()))
    assert {layer.block for layer in found.layers} == {"down", "mid", "up"}


def case_two_records_in_one_graph() -> None:
    """A chain of two is one recording; two beside each other do not disturb each other."""
    model, encoder = listen(*listen(unet("sd15"), clip("sd15"), negative=True))
    first = ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128))
    other, other_clip = listen(unet("sdxl"), clip("sdxl"))
    second = ksampler(other, encode(other_clip, "a blue boat"), encode(other_clip, ""), empty(128, 128))
    assert runs.maps_of(first)[0].negative is None  # the last Record says what is kept
    same_words(runs.maps_of(first)[0].words, PROMPT)
    same_words(runs.maps_of(second)[0].words, "a blue boat")
    assert len(model.get_wrappers("outer_sample", "daam_lens")) == 1
