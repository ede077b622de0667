"""Other nodes on the same model: LoRA, ControlNet, FreeU, HyperTile, other packs' patches, torch.compile."""

from __future__ import annotations

from typing import Any

import comfy.controlnet
import comfy.ldm.modules.attention as host_attention
import comfy.sd
import graphs
import torch
import truth
import zoo
from comfy.patcher_extension import WrappersMP
from graphs import check, encode, ksampler, listen, node, runs
from zoo import PROMPT, clip, empty, unet


def _sample(change: Any = None, height: int = 128, width: int = 128, latest: bool = False) -> Any:
    """Sampling through `change(model)`, before Record or (`latest`) after it; the truth sees the same change."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        changed = model if change is None else change(model)
        return ksampler(changed, encode(encoder, PROMPT), encode(encoder, "blurry"), empty(height, width))

    return sample


def _lora() -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 on queries and keys of the UNet, in the common naming."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, module in unet("sd15").model.diffusion_model.named_modules():
        if name.endswith(("attn2.to_q", "attn2.to_k")):
            key = "diffusion_model." + name
            state[f"{key}.lora_up.weight"] = torch.randn(module.weight.shape[0], 2, generator=generator) * 0.3
            state[f"{key}.lora_down.weight"] = torch.randn(2, module.weight.shape[1], generator=generator) * 0.3
    return state


def case_lora_after_record() -> None:
    def with_lora(model: Any) -> Any:
        return comfy.sd.load_lora_for_models(model, None, _lora(), 1.0, 0.0)[0]

    found = check(unet("sd15"), clip("sd15"), _sample(with_lora), PROMPT)
    plain = check(unet("sd15"), clip("sd15"), _sample(), PROMPT)
    assert not torch.allclose(found[0].heat_map("house"), plain[0].heat_map("house"))


def case_lora_before_record() -> None:
    changed = comfy.sd.load_lora_for_models(unet("sd15"), None, _lora(), 1.0, 0.0)[0]
    check(changed, clip("sd15"), _sample(), PROMPT)


def case_lora_loader_between_record_and_the_encoder() -> None:
    """A LoRA loader clones MODEL and CLIP: both go on listening."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        changed, told = comfy.sd.load_lora_for_models(model, encoder, _lora(), 1.0, 1.0)
        return ksampler(changed, encode(told, PROMPT), encode(told, ""), empty(128, 128))

    check(unet("sd15"), clip("sd15"), sample, PROMPT)


def case_freeu() -> None:
    freeu = node("nodes_freelunch", "FreeU_V2")
    check(unet("sd15"), clip("sd15"), _sample(lambda m: freeu(m, 1.3, 1.4, 0.9, 0.2)[0]), PROMPT)


def case_hypertile() -> None:
    """HyperTile cuts self-attention into tiles, in an order of its own dice."""
    tile = node("nodes_hypertile", "HyperTile")
    check(unet("sd15"), clip("sd15"), _sample(lambda m: tile(m, 64, 2, 0, False)[0], 256, 256), PROMPT)


def case_tome() -> None:
    """Token merging: self-attention sees fewer places; cross-attention's maps are whole."""
    merge = node("nodes_tomesd", "TomePatchModel")
    check(unet("sd15"), clip("sd15"), _sample(lambda m: merge(m, 0.5)[0]), PROMPT)


def case_perturbed_attention_guidance() -> None:
    """A second look at the same prompt, with broken self-attention, is not counted."""
    guide = node("nodes_pag", "PerturbedAttentionGuidance")

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(guide(model, 3.0)[0], encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128))

    _first_look(sample)


def case_self_attention_guidance() -> None:
    guide = node("nodes_sag", "SelfAttentionGuidance")
    _first_look(_sample(lambda m: guide(m, 0.5, 2.0)[0]))


def _first_look(sample: Any) -> None:
    """The same latents, and the equation's maps of the first call of each step that holds the prompt."""
    plain, true = truth.unet_maps(unet("sd15"), lambda m: sample(m, clip("sd15")), calls=truth.FirstLook())
    heard = sample(*listen(unet("sd15"), clip("sd15")))
    assert torch.equal(plain, heard)
    found = runs.maps_of(heard)
    assert found[0].steps == 2
    graphs.equal(found, true, clip("sd15"), PROMPT, ["house", "tree"])


def case_another_attention_override() -> None:
    """Another pack's override still does its work, and is called as often as before."""
    calls = []

    def with_override(model: Any) -> Any:
        changed = model.clone()

        def override(func: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return func(*args, **kwargs) * 0.9

        changed.model_options["transformer_options"]["optimized_attention_override"] = override
        return changed

    check(unet("sd15"), clip("sd15"), _sample(with_override), PROMPT)
    assert len(calls) % 2 == 0
    assert calls


def case_another_attn2_patch() -> None:
    """Another pack changes what cross-attention looks at: the maps show what the model really looked at."""

    def with_patch(model: Any) -> Any:
        changed = model.clone()

        def patch(n: Any, context: Any, value: Any, extra: Any) -> Any:
            return n, context * 1.1, value

        changed.set_model_attn2_patch(patch)
        return changed

    check(unet("sd15"), clip("sd15"), _sample(with_patch), PROMPT)


def case_model_function_wrapper() -> None:
    """A wrapper around the model that hands everything on."""

    def with_wrapper(model: Any) -> Any:
        changed = model.clone()
        changed.set_model_unet_function_wrapper(lambda apply, given: apply(given["input"], given["timestep"], **given["c"]))
        return changed

    check(unet("sd15"), clip("sd15"), _sample(with_wrapper), PROMPT)


def case_wrapper_that_names_its_arguments() -> None:
    """Another pack's wrapper around a prediction hands on by ComfyUI's own names."""

    def with_wrapper(model: Any) -> Any:
        def named(executor: Any, model: Any, conds: Any, x_in: Any, timestep: Any, model_options: Any) -> Any:
            return executor(model=model, conds=conds, x_in=x_in, timestep=timestep, model_options=model_options)

        changed = model.clone()
        changed.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "another", named)
        return changed

    check(unet("sd15"), clip("sd15"), _sample(with_wrapper), PROMPT)


def case_controlnet() -> None:
    """A ControlNet has cross-attention of its own: it is not counted."""

    class Control(comfy.controlnet.ControlBase):
        """The smallest ControlNet: adds a pattern to the middle block, through an attention call of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.randn(1, 64, 1, 1, generator=torch.Generator().manual_seed(1))

        def get_control(self, x: Any, t: Any, cond: Any, batched: Any, transformer_options: Any = None) -> Any:
            host_attention.optimized_attention(torch.rand(1, 4, 8), torch.rand(1, 4, 8), torch.rand(1, 4, 8), 2,
                                               transformer_options=transformer_options or {})  # fmt: skip
            h, w = (x.shape[-2] + 1) // 2, (x.shape[-1] + 1) // 2
            return {"middle": [self.weights.expand(x.shape[0], -1, h, w)], "output": []}

        def copy(self) -> Any:
            made = Control()
            self.copy_to(made)
            return made

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        positive = [[c, {**d, "control": Control(), "control_apply_to_uncond": True}] for c, d in encode(encoder, PROMPT)]
        return ksampler(model, positive, encode(encoder, ""), empty(128, 128))

    check(unet("sd15"), clip("sd15"), sample, PROMPT)


def case_torch_compile() -> None:
    """ComfyUI's own node, first without and then with Record: the same latents (backend "eager": no compiler is needed)."""
    compiled = node("nodes_torch_compile", "TorchCompileModel")

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        changed = compiled(model, "eager")[0]
        return ksampler(changed, encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128))

    torch._dynamo.reset()
    plain = sample(unet("sd15_level"), clip("sd15"))
    heard = sample(*listen(unet("sd15_level"), clip("sd15")))
    assert torch.equal(plain, heard)
    direct = _sample()(*listen(unet("sd15_level"), clip("sd15")))
    a, b = (runs.maps_of(x)[0].heat_map("house") for x in (heard, direct))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def case_self_attention_is_the_model_s_own() -> None:
    """What refines masks: rows are the prompt's, and each place's attention adds up to 1."""
    maps = check(unet("sd15"), clip("sd15"), _sample(), PROMPT)[0]
    ((grid, walk),) = maps.self_attention.items()
    assert grid == (16, 16)
    torch.testing.assert_close(walk.sum(1), torch.ones(256))
    true = truth.self_attention(unet("sd15"), lambda m: _sample()(m, clip("sd15")), grid, step=0)  # kept in the first of two
    torch.testing.assert_close(walk.double(), true[0], rtol=1e-5, atol=1e-8)
    off = check(unet("sd15"), clip("sd15"), _sample(), PROMPT, self_attention=False)[0]
    assert off.self_attention is None


def case_the_zoo_is_random_enough() -> None:
    """A test of the tests: words of these models differ, so a wrong column would show."""
    maps = check(unet("sd15"), clip("sd15"), _sample(), PROMPT)[0]
    a, b = maps.heat_map("house"), maps.heat_map("tree")
    assert float((a - b).abs().max() / a.max()) > 0.05
    assert zoo.TEXT > 0


def case_several_passes_of_the_sampler_for_one_picture() -> None:
    """As AnimateDiff-Evolved's iterations: the maps are of all of them, and a sentence says so."""

    def three_times(executor: Any, noise: Any, latent: Any, *args: Any, **kwargs: Any) -> Any:
        for _ in range(3):
            latent = executor(noise, latent, *args, **kwargs)
        return latent

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        repeated = model.clone()
        repeated.add_wrapper_with_key("outer_sample", "iterations", three_times)
        return ksampler(repeated, encode(encoder, PROMPT), encode(encoder, ""), empty(64, 64))

    (found,) = check(unet("sd15"), clip("sd15"), sample, PROMPT)
    assert found.steps == 6
    heard = sample(*listen(unet("sd15"), clip("sd15"), first_step=1, last_step=1))
    assert runs.maps_of(heard)[0].steps == 3, "the second step of each pass"
    assert "ran the sampler 3 times" in runs.RECORDINGS.note(heard)
    model, encoder = listen(unet("sd15"), clip("sd15"))
    once = ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), empty(64, 64))
    assert runs.RECORDINGS.note(once) == ""
