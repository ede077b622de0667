"""Models without a UNet: text and picture in one attention, or the picture looking at the text in its own."""

from __future__ import annotations

from typing import Any

import comfy.ldm.modules.attention as host_attention
import graphs
import torch
import truth
import zoo
from graphs import ksampler, listen, runs
from zoo import TEXT, transformer


def _context(width: int, pooled: int, seed: int, columns: int = TEXT, **more: Any) -> Any:
    generator = torch.Generator().manual_seed(seed)
    extra = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
    return [[torch.randn(1, columns, width, generator=generator), {**extra, **more}]]


def _check(
    kind: str, height: int = 96, width: int = 160, images: int = 2, columns: int = TEXT, cfg: float = 3.0, **more: Any
) -> Any:
    built = transformer(kind)
    if built is None:
        return "absent"
    model, channels, context, pooled = built
    latent = zoo.empty(height, width, images, channels)
    if kind in ("qwen", "wan"):
        latent["samples"] = latent["samples"].unsqueeze(2)

    def sample(watched: Any) -> torch.Tensor:
        positive = _context(context, pooled, 1, columns, **more)
        negative = _context(context, pooled, 2, columns, **more)
        return ksampler(watched, positive, negative, latent, cfg=cfg, scheduler="simple")

    grid = (height // 16, width // 16)
    trims = kind == "lumina2" and not hasattr(type(model.model.diffusion_model), "embed_cap")  # 0.33 pads instead
    text = int(more["attention_mask"].sum()) if trims else columns
    plain, true = truth.transformer_maps(model, sample, text, 32 if kind == "zimage" else text, grid, kind == "wan")
    before = graphs.state(model)
    heard = sample(listen(model, None)[0])
    assert torch.equal(plain, heard), "recording changed the picture"
    assert graphs.state(model) == before
    assert true, "the truth heard nothing"
    for image, latents in enumerate(heard):
        maps = runs.RECORDINGS.recorded(latents)
        ((found_grid, sums),) = maps.sums.items()
        assert found_grid == grid, (found_grid, grid)
        expected = true[grid][image]
        ours = sums[1 : 1 + expected.shape[0]].double()
        worst = float((ours - expected).abs().max() / expected.abs().max())
        assert worst < 1e-5, f"{kind}, picture {image}: off by {worst:.2e}"
        assert maps.steps == 2
    return None


def case_sd3() -> Any:
    return _check("sd3")


def case_flux() -> Any:
    return _check("flux")


def case_chroma() -> Any:
    return _check("chroma")


def case_qwen_image() -> Any:
    return _check("qwen")


def case_lumina2() -> Any:
    mask = torch.ones(1, TEXT, dtype=torch.long)
    return _check("lumina2", attention_mask=mask)


def case_lumina2_with_padding_left_out() -> Any:
    mask = torch.ones(1, TEXT, dtype=torch.long)
    mask[:, 17:] = 0
    return _check("lumina2", images=1, cfg=1.0, attention_mask=mask)


def case_z_image() -> Any:
    return _check("zimage", attention_mask=torch.ones(1, TEXT, dtype=torch.long))


def case_wan() -> Any:
    return _check("wan")


def case_text_as_long_as_the_picture() -> Any:
    """11 x 7 patches are 77 positions, as many as text columns: lengths alone cannot tell them apart."""
    return _check("sd3", 7 * 16, 11 * 16, 1, 77)


def case_a_fused_kernel_gives_its_sum_away() -> Any:
    """With PyTorch's own attention the log-sum-exp is taken from the kernel: same maps, same picture."""
    calls = graphs.importlib.import_module("daam-lens.daam_core.capture.lse_capture")
    seen = []
    honest = calls.LseCapture.of

    def spied(self: Any, call: Any) -> Any:
        lse = honest(self, call)
        seen.append(lse is not None)
        return lse

    before = host_attention.optimized_attention
    import comfy.ldm.flux.math as flux_math

    calls.LseCapture.of = spied
    flux_math.optimized_attention = host_attention.attention_pytorch
    try:
        _check("flux")
    finally:
        calls.LseCapture.of = honest
        flux_math.optimized_attention = before
    assert seen
    assert all(seen), "no log-sum-exp was seen"
