"""Other packs' own blocks: attention that nobody is shown is missed and said, and so are layers that are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import comfy.ldm.modules.attention as host_attention
import graphs
import torch
import zoo
from cases_overrides import _of_transformer
from cases_patches import _sample
from graphs import check, listen, runs
from zoo import PROMPT, clip, unet

Change = Callable[[Any], Any]
BLOCKS = {
    "flux": ("double_blocks.0", "single_blocks.0", "single_blocks.1"),
    "sd3": ("joint_blocks.0", "joint_blocks.1"),
    "qwen": ("transformer_blocks.0", "transformer_blocks.1"),
}


def _without_options(*paths: str) -> Change:
    """Blocks as packs of older versions of ComfyUI write theirs: the model's options go to none of their attention."""

    def change(model: Any) -> Any:
        changed = model.clone()
        for path in paths:
            block = model.get_model_object(f"diffusion_model.{path}")

            def forward(*args: Any, block: Any = block, **kwargs: Any) -> Any:
                kwargs.pop("transformer_options", None)
                return type(block).forward(block, *args, **kwargs)

            changed.add_object_patch(f"diffusion_model.{path}.forward", forward)
        return changed

    return change


def _with_a_kernel_of_their_own(*paths: str) -> Change:
    """Blocks that call PyTorch's attention (or SageAttention's), and none of the host's functions."""

    def attention(q: Any, k: Any, v: Any, heads: int, mask: Any = None, *_: Any, **options: Any) -> torch.Tensor:
        if not options.get("skip_reshape"):
            q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)

    def change(model: Any) -> Any:
        changed = model.clone()
        for path in paths:
            block = model.get_model_object(f"diffusion_model.{path}")

            def forward(*args: Any, block: Any = block, **kwargs: Any) -> Any:
                with mock.patch("comfy.ldm.flux.math.optimized_attention", attention):
                    return type(block).forward(block, *args, **kwargs)

            changed.add_object_patch(f"diffusion_model.{path}.forward", forward)
        return changed

    return change


def case_blocks_with_a_kernel_of_their_own() -> None:
    """What calls none of the host's functions is known by its block, which runs and shows nothing."""
    built = _of_transformer("flux")
    assert built is not None
    model, sample = built
    for path in BLOCKS["flux"][::2]:
        change = _with_a_kernel_of_their_own(path)
        heard = sample(change)(listen(model, None)[0])
        assert torch.equal(sample(change)(model), heard), "recording changed the picture"
        assert f"{path} of this model ran, and none of the attention" in graphs.refusal(heard), graphs.refusal(heard)


def _kernels() -> list[Any]:
    return [cell.cell_contents for cell in host_attention.optimized_attention.__closure__]


def case_blocks_that_show_their_attention_to_nobody() -> None:
    """One of the blocks, and all of them: maps would be of the others alone."""
    for kind, blocks in BLOCKS.items():
        built = _of_transformer(kind)
        if built is None:
            continue
        model, sample = built
        for paths in (blocks[:1], blocks[-1:], blocks):
            change = _without_options(*paths)
            plain, kernels = sample(change)(model), _kernels()
            sample(lambda m: m)(model)  # the host takes a clone's patches off when another one runs
            before = graphs.state(model)
            for heard in (sample(change)(listen(model, None)[0]), sample(lambda m: m)(listen(change(model), None)[0])):
                assert torch.equal(plain, heard), "recording changed the picture"
                said = graphs.refusal(heard)
                assert "in a way of its own, which is shown to nobody" in said, said
                assert "Record without that node" in said
            sample(lambda m: m)(model)
            assert graphs.state(model) == before, "something was left on the model"
            assert all(map(lambda a, b: a is b, kernels, _kernels())), "the host's attention was left wrapped"
            runs.RECORDINGS._kept.clear()


def _note(latents: torch.Tensor) -> str:
    return str(runs.RECORDINGS.note(latents))


class _Cache:
    """From the second step on, a block gives out what it is given."""

    def __init__(self) -> None:
        self.first: float | None = None

    def skips(self, sigma: float) -> bool:
        self.first = sigma if self.first is None else self.first
        return sigma < self.first


def case_a_unet_s_layers_that_a_cache_leaves_out() -> None:
    def with_cache(model: Any) -> Any:
        changed, cache = model.clone(), _Cache()
        block = model.get_model_object("diffusion_model.middle_block.1")

        def forward(x: torch.Tensor, context: Any = None, transformer_options: Any = None) -> torch.Tensor:
            if cache.skips(float(transformer_options["sigmas"][0])):
                return x
            return type(block).forward(block, x, context, transformer_options)

        changed.add_object_patch("diffusion_model.middle_block.1.forward", forward)
        return changed

    check(unet("sd15"), clip("sd15"), _sample(), PROMPT)
    assert not _note(_sample()(*listen(unet("sd15"), clip("sd15"))))
    runs.RECORDINGS._kept.clear()
    sample = _sample(with_cache)
    heard = sample(*listen(unet("sd15"), clip("sd15")))
    assert torch.equal(heard, sample(unet("sd15"), clip("sd15")))
    assert "In 1 of 2 calls of the model, not all of its 7 layers attended" in _note(heard), _note(heard)
    graphs.equal(runs.maps_of(heard), graphs.truth.unet_maps(unet("sd15"), lambda m: sample(m, clip("sd15")))[1],
                 clip("sd15"), PROMPT, ["house", "tree"])  # fmt: skip


def case_a_transformer_s_blocks_that_a_cache_leaves_out() -> None:
    model, channels, width, pooled = zoo.transformer("flux")
    context = [[torch.randn(1, zoo.TEXT, width, generator=torch.Generator().manual_seed(3)),
                {"pooled_output": torch.ones(1, pooled)}]]  # fmt: skip

    def with_cache(model: Any) -> Any:
        changed, cache = model.clone(), _Cache()

        def replace(args: Any, more: Any) -> Any:
            sigma = float(args["transformer_options"]["sigmas"][0])
            return {"img": args["img"]} if cache.skips(sigma) else more["original_block"](args)

        changed.set_model_patch_replace(replace, "dit", "single_block", 1)
        return changed

    def sample(model: Any) -> torch.Tensor:
        return graphs.ksampler(model, context, context, zoo.empty(96, 160, 1, channels), cfg=1.0, steps=3, scheduler="simple")

    plain = sample(listen(model, None)[0])
    assert not _note(plain)
    heard = sample(with_cache(listen(model, None)[0]))
    assert torch.equal(heard, sample(with_cache(model)))
    assert not torch.equal(heard, plain)
    assert "In 2 of 3 calls of the model, not all of its 3 layers attended" in _note(heard), _note(heard)


def case_blocks_that_attend_to_a_second_text() -> None:
    """As NAG does, and mix what comes out: the attention to the other text is none to the prompt's words."""
    for kind, path in (("flux", "double_blocks.0"), ("qwen", "transformer_blocks.0")):
        built = _of_transformer(kind)
        if built is None:
            continue
        model, sample = built
        name = "txt" if kind == "flux" else "encoder_hidden_states"

        def change(model: Any, path: str = path, name: str = name) -> Any:
            changed = model.clone()
            block = model.get_model_object(f"diffusion_model.{path}")

            def forward(**kwargs: Any) -> Any:
                own = {key: x.clone() if isinstance(x, torch.Tensor) else x for key, x in kwargs.items()}
                first = type(block).forward(block, **own)
                second = type(block).forward(block, **{**kwargs, name: kwargs[name].flip(1)})
                return tuple(a + 0.5 * (a - b) for a, b in zip(first, second, strict=True))

            changed.add_object_patch(f"diffusion_model.{path}.forward", forward)
            return changed

        plain = sample(change)(model)
        heard = sample(change)(listen(model, None)[0])
        assert torch.equal(plain, heard)
        assert not torch.equal(plain, sample(lambda m: m)(model))
        assert "attend to a text more than once" in graphs.refusal(heard), graphs.refusal(heard)
        runs.RECORDINGS._kept.clear()
