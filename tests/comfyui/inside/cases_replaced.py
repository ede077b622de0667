"""Other packs' replacements of a UNet's cross-attention: recorded as they attend, or refused."""

from __future__ import annotations

from typing import Any

import comfy.hooks
import comfy.ldm.modules.attention as host_attention
import graphs
import torch
import truth
from cases_patches import _sample
from comfy.patcher_extension import WrappersMP
from graphs import check, encode, ksampler, listen, runs
from zoo import PROMPT, clip, empty, unet


def case_ip_adapter_like_replacement() -> None:
    """A replaced cross-attention that calls attention without telling anybody, and carries attributes of its own."""

    class Replacement:
        scale = 0.4
        seen = 0

        def __call__(self, q: Any, k: Any, v: Any, extra: Any) -> Any:
            Replacement.seen += 1
            out = host_attention.optimized_attention(q, k, v, extra["n_heads"])
            more = host_attention.optimized_attention(q, k.flip(1), v.flip(1), extra["n_heads"])
            return out + self.scale * more

    def with_adapter(model: Any) -> Any:
        changed = model.clone()
        for block in (("input", 1), ("middle", 0)):
            changed.set_model_attn2_replace(Replacement(), *block)
        return changed

    check(unet("sd15"), clip("sd15"), _sample(with_adapter), PROMPT)
    assert Replacement.seen > 0


def case_replacement_with_a_to_method() -> None:
    """ComfyUI moves replacements to the device by `to` and puts the answer in their place: ours must stay."""

    class Moving:
        def to(self, _where: Any) -> Any:
            return self

        def __call__(self, q: Any, k: Any, v: Any, extra: Any) -> Any:
            return host_attention.optimized_attention(q, k, v, extra["n_heads"])

    def with_moving(model: Any) -> Any:
        changed = model.clone()
        changed.set_model_attn2_replace(Moving(), "middle", 0)
        return changed

    check(unet("sd15"), clip("sd15"), _sample(with_moving), PROMPT)


def _replaced(attend: Any) -> Any:
    """Sampling with `attend(q, k, v, extra)` in place of the cross-attention of one layer."""

    def change(model: Any) -> Any:
        changed = model.clone()
        changed.set_model_attn2_replace(attend, "input", 1)
        return changed

    return _sample(change)


def _apart(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _no_softmax_of_the_model(q: Any, k: Any, v: Any, extra: Any) -> Any:
    """Scores that are sharpened by hand, as PLADIS and DenseDiffusion change theirs."""
    q, k, v = (_apart(x, extra["n_heads"]) for x in (q, k, v))
    p = (q @ k.transpose(-1, -2) * 3 / q.shape[-1] ** 0.5).softmax(-1)
    return (p @ v).transpose(1, 2).flatten(2)


def _keys_of_its_own(q: Any, k: Any, v: Any, extra: Any) -> Any:
    """Attention to something else alone, which is told its options as ComfyUI's own is."""
    options = {"optimized_attention_override": extra["optimized_attention_override"]} if _OVERRIDE in extra else {}
    return host_attention.optimized_attention(q, k.flip(2), v, extra["n_heads"], transformer_options=options)


_OVERRIDE = "optimized_attention_override"


def case_replacements_that_attend_in_their_own_way_are_refused() -> None:
    """What a replacement computes by hand, or with other keys, is none of the attention that its queries and keys give."""
    for attend in (_no_softmax_of_the_model, _keys_of_its_own):
        sample = _replaced(attend)
        plain = sample(unet("sd15"), clip("sd15"))
        runs.RECORDINGS._kept.clear()
        before = [cell.cell_contents for cell in host_attention.optimized_attention.__closure__]
        heard = sample(*listen(unet("sd15"), clip("sd15")))
        assert torch.equal(plain, heard)
        assert "computes the cross-attention in a way of its own" in graphs.refusal(heard)
        after = [cell.cell_contents for cell in host_attention.optimized_attention.__closure__]
        assert all(map(lambda a, b: a is b, before, after)), "the host's attention was left wrapped"


def case_one_layer_that_nobody_is_shown() -> None:
    """A layer whose attention is exchanged behind the host's back would be missing in the sum, without a word."""

    def by_its_forward(model: Any) -> Any:
        layer = model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2

        def forward(x: Any, context: Any = None, value: Any = None, mask: Any = None, transformer_options: Any = None) -> Any:
            q, k, v = layer.to_q(x), layer.to_k(context), layer.to_v(context if value is None else value)
            return layer.to_out(_no_softmax_of_the_model(q, k, v, {"n_heads": layer.heads}))

        changed = model.clone()
        changed.add_object_patch("diffusion_model.middle_block.1.transformer_blocks.0.attn2.forward", forward)
        return changed

    def of_a_conditioning(model: Any, encoder: Any) -> torch.Tensor:
        replaced = {"patches_replace": {"attn2": {("input", 1): _no_softmax_of_the_model}}}
        hook = comfy.hooks.TransformerOptionsHook(replaced, hook_scope=comfy.hooks.EnumHookScope.HookedOnly)
        group = comfy.hooks.HookGroup()
        group.add(hook)
        positive = comfy.hooks.set_hooks_for_conditioning(encode(encoder, PROMPT), hooks=group)
        return ksampler(model, positive, encode(encoder, "blurry"), empty(128, 128))

    for sample in (_sample(by_its_forward), of_a_conditioning):
        plain = sample(unet("sd15"), clip("sd15"))
        runs.RECORDINGS._kept.clear()
        heard = sample(*listen(unet("sd15"), clip("sd15")))
        assert torch.equal(plain, heard)
        assert "in a way of its own, which is shown to nobody" in graphs.refusal(heard)


def case_replacements_that_call_pytorch_are_recorded_as_they_attend() -> None:
    """With a temperature and a mask of its own: the map is that of the attention it ran, in each of the host's kernels."""
    mask = torch.zeros(1, 1, 1, 77).index_fill_(3, torch.tensor([3, 4]), -2.0)

    def attend(q: Any, k: Any, v: Any, extra: Any) -> Any:
        q, k, v = (_apart(x, extra["n_heads"]) for x in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.1)
        return out.transpose(1, 2).flatten(2)

    sample = _replaced(attend)
    heard = sample(*listen(unet("sd15"), clip("sd15"), detail="layers"))
    true = _map_of_one_layer(sample, 0.1, mask.flatten().double())
    (maps,) = runs.maps_of(heard)
    expected = truth.at_size({true.shape[-2:]: true[None]}, 0, graphs.columns(clip("sd15"), PROMPT, "house"), maps.size)
    ours = maps.select(layers=[0]).heat_map("house", maps.size).double()
    assert float((ours - expected).abs().max() / expected.max()) < 2e-3, "layers that are kept apart are float16"


def _map_of_one_layer(sample: Any, scale: float, bias: torch.Tensor) -> torch.Tensor:
    """float64 `[columns, h, w]` of the first layer, from its queries and keys, the prompt's rows, all steps."""
    block = unet("sd15").model.diffusion_model.input_blocks[1][1].transformer_blocks[0]
    held: list[torch.Tensor] = []
    total: list[torch.Tensor] = []
    calls = truth.Calls(0)
    watched = unet("sd15").clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "truth", calls.wrapper)

    def key(_module: Any, _args: Any, out: torch.Tensor) -> None:
        d = out.shape[-1] // block.attn2.heads
        for row in calls.rows:
            total.append(truth.softmax(held[-1][row] * (scale * d**0.5), out[row], block.attn2.heads, bias[None]))

    handles = [
        block.attn2.to_q.register_forward_hook(lambda _m, _a, out: held.append(out.clone())),
        block.attn2.to_k.register_forward_hook(key),
    ]
    try:
        sample(watched, clip("sd15"))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(total).sum(0).T.reshape(-1, 16, 16)
