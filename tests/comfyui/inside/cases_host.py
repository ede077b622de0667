"""The host's own loaders and model nodes, with real files and real networks: LoRA, embeddings, ControlNet, compile, caches."""

from __future__ import annotations

import inspect
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import cases_words
import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import folder_paths
import graphs
import safetensors.torch
import torch
import zoo
from cases_patches import _lora
from encoders import text_encoder
from graphs import check, encode, ksampler, listen, node, runs, same_words
from zoo import PROMPT, clip, empty, transformer, unet

import nodes as host_nodes


def _through(change: Any, steps: int = 2, height: int = 128, width: int = 128, scheduler: str = "normal") -> Any:
    """KSampler through `change(model)`."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(
            change(model), encode(encoder, PROMPT), encode(encoder, "blurry"), empty(height, width), steps=steps,
            scheduler=scheduler,
        )  # fmt: skip

    return sample


def case_lora_loader_with_a_file() -> None:
    """LoraLoader behind Record, as in most graphs, on MODEL and CLIP."""
    with tempfile.TemporaryDirectory() as folder:
        of_text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
        more = {f"{of_text}.lora_up.weight": torch.ones(64, 2), f"{of_text}.lora_down.weight": torch.ones(2, 64) * 0.1}
        safetensors.torch.save_file({**_lora(), **more}, str(Path(folder) / "ours.safetensors"))
        folder_paths.add_model_folder_path("loras", folder)
        folder_paths.filename_list_cache.pop("loras", None)

        def sample(model: Any, encoder: Any) -> torch.Tensor:
            changed, told = host_nodes.LoraLoader().load_lora(model, encoder, "ours.safetensors", 0.8, 0.8)
            assert changed.patches
            assert told.patcher.patches
            return ksampler(changed, encode(told, PROMPT), encode(told, ""), empty(128, 128))

        plain = check(unet("sd15"), clip("sd15"), _through(lambda model: model), PROMPT)
        found = check(unet("sd15"), clip("sd15"), sample, PROMPT)
        assert not torch.allclose(plain[0].heat_map("house"), found[0].heat_map("house"))
        check(*host_nodes.LoraLoader().load_lora(unet("sd15"), clip("sd15"), "ours.safetensors", 0.8, 0.8),
              _through(lambda model: model), PROMPT)  # fmt: skip


def case_embedding_from_a_file() -> None:
    """`embedding:name` in the text is one word, however many vectors it has."""
    with tempfile.TemporaryDirectory() as folder:
        vectors = torch.randn(3, 64, generator=torch.Generator().manual_seed(3))
        safetensors.torch.save_file({"emb_params": vectors}, str(Path(folder) / "snail.safetensors"))
        encoder = clip("sd15")
        tokenizer = encoder.tokenizer.clip_l
        before, tokenizer.embedding_directory = tokenizer.embedding_directory, [folder]
        try:
            text = "a red embedding:snail and a tree"

            def sample(model: Any, told: Any) -> torch.Tensor:
                return ksampler(model, encode(told, text), encode(told, ""), empty(128, 128))

            found = check(unet("sd15"), encoder, sample, text, [])
            _, true = graphs.truth.unet_maps(unet("sd15"), lambda m: sample(m, encoder))
            graphs.equal(found, true, encoder, text, ["tree"])
            name = next(word for word in found[0].words if "embedding" in word or "snail" in word)
            assert len(found[0].words) == 6, found[0].words
            expected = graphs.truth.at_size(true, 0, [3, 4, 5], found[0].size)
            ours = found[0].heat_map(name, found[0].size).double()
            assert float((ours - expected).abs().max() / expected.max()) < 1e-5
        finally:
            tokenizer.embedding_directory = before


@cache
def _controlnet() -> Any:
    """A real ControlNet of the UNet's shape, with cross-attention of its own."""
    with torch.inference_mode(False):
        settings = {k: v for k, v in zoo._UNET.items() if k not in ("out_channels", "transformer_depth_output")}
        network = comfy.cldm.cldm.ControlNet(
            **settings, hint_channels=3, num_head_channels=16, device=torch.device("cpu"), operations=comfy.ops.manual_cast
        )
        zoo._filled(network, 5)
        return comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))


def case_controlnet_applied() -> None:
    """ControlNetApplyAdvanced with a real network: it looks at the same text, and is not counted."""
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(6))

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        positive, negative = host_nodes.ControlNetApplyAdvanced().apply_controlnet(
            encode(encoder, PROMPT), encode(encoder, ""), _controlnet(), hint, 1.0, 0.0, 1.0
        )
        return ksampler(model, positive, negative, empty(128, 128))

    found = check(unet("sd15"), clip("sd15"), sample, PROMPT)
    without = check(unet("sd15"), clip("sd15"), _through(lambda model: model), PROMPT)
    assert not torch.allclose(found[0].heat_map("house"), without[0].heat_map("house"))
    assert len(found[0].layers) == len(without[0].layers)


def case_torch_compile_node() -> None:
    """ComfyUI's own node and a transformer: runs of one compiled model, by turns with and without Record.

    Newer nodes reuse what they compiled without looking at a run's options. This backend needs no compiler; "eager" is tried
    with a UNet, see `cases_patches`.
    """
    model, encoder, compiled = _compiled("aot_eager")
    before = torch.is_deterministic_algorithms_warn_only_enabled()
    expected = runs.maps_of(_of_flux(*listen(model, encoder)))[0].heat_map("house")
    for _ in range(2):
        runs.RECORDINGS._kept.clear()
        heard = _of_flux(*listen(compiled, encoder))
        plain = _of_flux(compiled, encoder)
        assert torch.equal(plain, heard)
        torch.testing.assert_close(runs.maps_of(heard)[0].heat_map("house"), expected, rtol=1e-3, atol=1e-4)
    assert torch.is_deterministic_algorithms_warn_only_enabled() == before
    torch._dynamo.reset()


def case_torch_compile_while_pytorch_is_deterministic() -> None:
    """Where recorded and plain runs could not be told apart, nothing is recorded: a later plain run must not fail."""
    _, encoder, compiled = _compiled("eager")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        runs.RECORDINGS._kept.clear()
        heard = _of_flux(*listen(compiled, encoder))
        assert "start ComfyUI without --deterministic" in graphs.refusal(heard)
        assert torch.equal(heard, _of_flux(compiled, encoder))
    finally:
        torch.use_deterministic_algorithms(False)
        torch._dynamo.reset()


def _compiled(backend: str) -> tuple[Any, Any, Any]:
    """(model, its text encoder, the model through ComfyUI's TorchCompileModel)."""
    torch._dynamo.reset()
    model = transformer("flux")[0]
    return model, text_encoder("flux"), node("nodes_torch_compile", "TorchCompileModel")(model, backend)[0]


def _of_flux(model: Any, told: Any) -> torch.Tensor:
    latent = empty(64, 96, 1, 16)
    return ksampler(model, encode(told, PROMPT), encode(told, ""), latent, cfg=1.0, scheduler="simple")


def case_kohya_deep_shrink() -> None:
    """PatchModelAddDownscale: in the first steps the inner layers work on a smaller grid."""
    shrink = node("nodes_model_downscale", "PatchModelAddDownscale")
    sample = _through(lambda m: shrink(m, 1, 2.0, 0.0, 0.6, True, "bicubic", "bicubic")[0], 4, 128, 192)
    grids = check(unet("sd15"), clip("sd15"), sample, PROMPT)[0].sums
    assert len(grids) > 2


def case_rescale_cfg() -> None:
    rescale = node("nodes_model_advanced", "RescaleCFG")
    check(unet("sd15"), clip("sd15"), _through(lambda m: rescale(m, 0.7)[0]), PROMPT)


def case_easy_cache() -> None:
    """Steps that a cache leaves out are no steps of the maps; those that ran are."""
    easy = node("nodes_easycache", "EasyCacheNode")
    found = check(unet("sd15"), clip("sd15"), _through(lambda m: easy(m, 3.0, 0.1, 0.95, False)[0], 6), PROMPT)[0]
    heads = sum(layer.heads for layer in found.layers)
    assert sum(found.num_terms.values()) < 6 * heads


def case_skip_layer_guidance() -> None:
    """A third look at the prompt with layers left out, for guidance, does not count."""
    skip = node("nodes_slg", "SkipLayerGuidanceDiT")
    model, encoder = transformer("flux")[0], text_encoder("flux")

    def sample(watched: Any, told: Any) -> torch.Tensor:
        changed = skip(watched, 3.0, 0.0, 1.0, "0", "0")[0]
        return ksampler(changed, encode(told, PROMPT), encode(told, ""), empty(96, 160, 1, 16), cfg=3.0, scheduler="simple")

    plain = sample(model, encoder)
    heard = sample(*listen(model, encoder))
    assert torch.equal(plain, heard)
    maps = runs.maps_of(heard)[0]
    assert sum(maps.num_terms.values()) == 2 * sum(layer.heads for layer in maps.layers)


def case_windows_over_a_video() -> None:
    """Context windows sample a video piece by piece: the frames come out as without Record, and no wrong map is given."""
    from comfy_extras.nodes_context_windows import WanContextWindowsManualNode

    more = {"freenoise": False} if "freenoise" in inspect.signature(WanContextWindowsManualNode.execute).parameters else {}
    windows = node("nodes_context_windows", "WanContextWindowsManualNode")
    model, encoder = transformer("wan")[0], text_encoder("wan")
    latent = {"samples": torch.zeros(1, 16, 6, 12, 20)}

    def sample(watched: Any, told: Any) -> torch.Tensor:
        changed = windows(watched, 13, 5, "standard_static", 1, False, "pyramid", **more)[0]
        return ksampler(changed, encode(told, PROMPT), encode(told, ""), latent, cfg=3.0, scheduler="simple")

    plain = sample(model, encoder)
    heard = sample(*listen(model, encoder))
    assert torch.equal(plain, heard)
    assert "piece by piece" in graphs.refusal(heard)


def case_video() -> None:
    """Wan with several frames: each has the equation's map, and all of them together that of their sum."""
    model, encoder = transformer("wan")[0], text_encoder("wan")
    frames, height, width = 3, 6, 10
    latent = {"samples": torch.zeros(1, 16, frames, 2 * height, 2 * width)}

    def sample(watched: Any, told: Any) -> torch.Tensor:
        return ksampler(watched, encode(told, PROMPT), encode(told, ""), latent, cfg=3.0, scheduler="simple")

    context = encode(encoder, PROMPT)[0][0].shape[1]
    plain, true = graphs.truth.transformer_maps(
        model, lambda watched: sample(watched, encoder), context, 0, (frames * height, width), True
    )
    heard = sample(*listen(model, encoder))
    assert torch.equal(plain, heard)
    (maps,) = runs.maps_of(heard)
    same_words(maps.words, PROMPT)
    assert set(maps.sums) == {(height, width)}
    apart = true[frames * height, width].unflatten(2, (frames, height))
    assert maps.num_frames == frames
    for frame in range(frames):
        own = {(height, width): apart[:, :, frame]}
        cases_words._same("wan", encoder, maps.select(frames=[frame]), own, 0, PROMPT, ("house", "tree"), context)
    summed = {(height, width): apart.sum(2)}
    cases_words._same("wan", encoder, maps.sum_frames(), summed, 0, PROMPT, ("house", "tree"), context)


def case_nodes_of_a_video() -> None:
    """The frames go through the nodes: a mask for each, one a word of the first for SAM 3, overlays that play, a choice."""
    model, encoder = transformer("wan")[0], text_encoder("wan")
    latent = {"samples": torch.zeros(1, 16, 3, 12, 20)}
    watched, told = listen(model, encoder)
    heard = ksampler(watched, encode(told, PROMPT), encode(told, ""), latent, cfg=3.0, scheduler="simple")
    film = torch.rand(9, 96, 160, 3, generator=torch.Generator().manual_seed(0))
    names = ("heat_maps", "drawing", "mask")
    heat_maps, drawing, mask_node = (graphs.importlib.import_module(f"daam-lens.nodes.{name}") for name in names)
    handle, _, _, words = heat_maps.HeatMapsNode.execute({"samples": heard}, film, "house\ntree").result
    (maps,) = handle
    assert words == ["house", "tree"] and maps.num_frames == 3 and maps.video.shape == (9, 96, 160, 3)
    overlays = drawing.drawn_overlays(handle, words, 0.8, "ember", False)
    assert overlays.shape == (18, 96, 160, 3)
    assert drawing.soft_masks(handle, words).shape == (18, 96, 160)
    mask, preview, first = mask_node.MaskNode.execute(handle, "house\ntree", "threshold").result
    assert mask.shape == (9, 96, 160) and preview.shape == (9, 96, 160, 3) and first.shape == (2, 96, 160)
    heat = maps.heat_map("house", maps.size, frames=9)
    assert torch.equal(first[0] > 0, heat[0] >= 0.4 * heat.max())
    only, _, _ = mask_node.MaskNode.execute(handle, "house", "threshold", frames="-1").result
    assert only.shape == (1, 96, 160)
    said = ""
    try:
        mask_node.MaskNode.execute(handle, "house", "threshold", image=film[:8])
    except graphs.errors.BadArgument as error:
        said = str(error)
    assert "8 pictures are not the frames of 1 video(s) of 3 latent frames" in said


def case_zeroed_negative() -> None:
    """ConditioningZeroOut of the prompt itself as the negative one, as Flux and SD3 graphs have it: that side has no words."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        positive = encode(encoder, PROMPT)
        return ksampler(model, positive, host_nodes.ConditioningZeroOut().zero_out(positive)[0], empty(128, 128))

    (maps,) = check(unet("sd15"), clip("sd15"), sample, PROMPT, negative=True)
    assert maps.negative.words == [] and maps.words[2] == "house"


def case_zeroed_prompt() -> None:
    """As the positive one it has no words, although it carries them along; beside another prompt that one's words are left."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        zeros = host_nodes.ConditioningZeroOut().zero_out(encode(encoder, PROMPT))[0]
        return ksampler(model, zeros, encode(encoder, ""), empty(128, 128))

    plain = sample(unet("sd15"), clip("sd15"))
    heard = sample(*listen(unet("sd15"), clip("sd15")))
    assert torch.equal(plain, heard)
    assert "The positive prompt was set to zero (ConditioningZeroOut), so none of its words" in graphs.refusal(heard)

    def both(model: Any, encoder: Any) -> torch.Tensor:
        zeros = host_nodes.ConditioningZeroOut().zero_out(encode(encoder, "a blue boat"))[0]
        (joined,) = host_nodes.ConditioningCombine().combine(encode(encoder, PROMPT), zeros)
        return ksampler(model, joined, encode(encoder, ""), empty(128, 128))

    (maps,) = runs.maps_of(both(*listen(unet("sd15"), clip("sd15"))))
    graphs.same_words(maps.words, PROMPT)
