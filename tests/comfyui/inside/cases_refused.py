"""Nodes that change what stands where: the picture is theirs, and the sentence says what was seen instead of a wrong map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.hooks
import graphs
import torch
import zoo
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from graphs import encode, ksampler, listen, refusal
from zoo import PROMPT, TEXT, clip, empty, transformer, unet

Change = Callable[[Any], Any]


def _unet(change: Change, height: int = 128, width: int = 128) -> str:
    """The sentence after sampling with SD 1.5 through `change(model)`; the picture has to be the same."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(change(model), encode(encoder, PROMPT), encode(encoder, "blurry"), empty(height, width))

    return _same(sample(unet("sd15"), clip("sd15")), sample(*listen(unet("sd15"), clip("sd15"))))


def _transformer(kind: str, change: Change, cfg: float = 1.0) -> str:
    model, channels, width, pooled = transformer(kind)
    latent = zoo.empty(96, 160, 1, channels)
    latent["samples"] = latent["samples"].unsqueeze(2) if kind == "wan" else latent["samples"]
    generator = torch.Generator().manual_seed(1)
    more = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
    text = [[torch.randn(1, TEXT, width, generator=generator), more]]

    def sample(watched: Any) -> torch.Tensor:
        return ksampler(change(watched), text, text, latent, cfg=cfg, scheduler="simple")

    return _same(sample(model), sample(listen(model, None)[0]))


def _same(plain: torch.Tensor, heard: torch.Tensor) -> str:
    assert torch.equal(plain, heard), "recording changed the picture"
    return refusal(heard)


def case_tiles_one_by_one() -> None:
    """Tiles as large as the picture's batch: the number of rows says nothing, the size does."""

    def change(model: Any) -> Any:
        changed = model.clone()

        def tiled(apply: Any, given: Any) -> Any:
            tiles = [apply(tile, given["timestep"], **given["c"]) for tile in given["input"].chunk(2, 3)]
            return torch.cat(tiles, 3)

        changed.set_model_unet_function_wrapper(tiled)
        return changed

    said = _unet(change)
    assert "cuts the picture into parts" in said, said
    assert "2 latent(s) of 16 x 8" in said, said


def _reference(x: torch.Tensor) -> torch.Tensor:
    """Another picture than the one that is sampled, of its shape."""
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(9))


def case_another_text_by_a_hook() -> None:
    """A conditioning whose hooks exchange the text in the layers, behind or before the patches of the run."""
    texts: dict[str, torch.Tensor] = {}

    def exchange(n: Any, context: Any, value: Any, extra: Any) -> Any:
        other = texts["other"].to(context).expand(context.shape[0], -1, -1)
        return n, other, other

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        texts["other"] = encode(encoder, "a blue boat on the sea")[0][0]
        hook = comfy.hooks.TransformerOptionsHook(
            {"patches": {"attn2_patch": [exchange]}}, hook_scope=comfy.hooks.EnumHookScope.HookedOnly
        )
        group = comfy.hooks.HookGroup()
        group.add(hook)
        positive = comfy.hooks.set_hooks_for_conditioning(encode(encoder, PROMPT), hooks=group)
        return ksampler(model, positive, encode(encoder, "blurry"), empty(128, 128))

    said = _same(sample(unet("sd15"), clip("sd15")), sample(*listen(unet("sd15"), clip("sd15"))))
    assert "the words at a layer are not those of the prompt" in said, said


def _twice(executor: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    executor(_reference(x), *args, **kwargs)
    return executor(x, *args, **kwargs)


def case_a_network_that_runs_on_a_reference_first() -> None:
    """Reference ControlNet and its like show the network another picture first: its attention is not the picture's."""

    def change(model: Any) -> Any:
        changed = model.clone()
        changed.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "another", _twice)
        return changed

    for said in (_unet(change), _transformer("flux", change), _transformer("qwen", change), _transformer("wan", change)):
        assert "runs the model several times for one prediction" in said, said


def case_a_wrapper_that_comes_while_sampling() -> None:
    """The same by a wrapper that stands inside of ours."""

    def change(model: Any) -> Any:
        def late(executor: Any, *args: Any, **kwargs: Any) -> Any:
            add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "late", _twice, args[2]["model_options"], is_model_options=True)
            return executor(*args, **kwargs)

        changed = model.clone()
        changed.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "another", late)
        return changed

    said = _unet(change)
    assert "runs the model several times for one prediction" in said, said


def case_another_text_inside_the_model() -> None:
    """Attention couple exchanges the text of a layer: of other length, of the same length, or with more rows."""
    other = torch.randn(1, 77, 64, generator=torch.Generator().manual_seed(3))

    def patched(exchange: Callable[[Any, Any], tuple[Any, Any]]) -> Change:
        def change(model: Any) -> Any:
            changed = model.clone()

            def patch(n: Any, context: Any, value: Any, extra: Any) -> Any:
                n, context = exchange(n, context)
                return n, context, context

            def halved(n: Any, extra: Any) -> Any:
                return n[: len(extra["cond_or_uncond"])]

            changed.set_model_attn2_patch(patch)
            changed.set_model_attn2_output_patch(halved)
            return changed

        return change

    longer = _unet(patched(lambda n, context: (n, torch.cat([context, other.expand(len(context), -1, -1)], 1))))
    assert "154 columns at a layer, and the model was given 77" in longer, longer
    exchanged = _unet(patched(lambda n, context: (n, other.expand(len(context), -1, -1) + 0)))
    assert "the words at a layer are not those of the prompt" in exchanged, exchanged
    couple = _unet(patched(lambda n, context: (torch.cat([n, n]), torch.cat([context, context]))))
    assert "changes the batch inside the model: 4 rows" in couple, couple


def case_a_second_text_beside_the_prompt() -> Any:
    """NAG for Wan: each block attends to a text of its own after the prompt, and to both in the same form."""
    if transformer("wan") is None:
        return "absent"

    def change(model: Any) -> Any:
        changed = model.clone()
        other = torch.randn(1, TEXT, 64, generator=torch.Generator().manual_seed(3))
        for i, block in enumerate(changed.get_model_object("diffusion_model").blocks):
            own = type(block.cross_attn).forward.__get__(block.cross_attn)

            def forward(x: Any, context: Any, *args: Any, own: Any = own, **kwargs: Any) -> Any:
                return own(x, context, *args, **kwargs) - 0.1 * own(x, other, *args, **kwargs)

            changed.add_object_patch(f"diffusion_model.blocks.{i}.cross_attn.forward", forward)
        return changed

    assert "attend to a second text beside the prompt" in _transformer("wan", change)
    return None


def case_tokens_that_nobody_announced() -> Any:
    """Another node puts tokens into the stream: where they stand is not known."""

    def change(model: Any) -> Any:
        changed = model.clone()

        def more(args: Any) -> Any:
            args["img"] = torch.cat([args["img"], args["img"][:, :5]], 1)
            args["img_ids"] = torch.cat([args["img_ids"], args["img_ids"][:, :5]], 1)
            return args

        changed.set_model_patch(more, "post_input")
        return changed

    network = transformer("flux")[0].model.diffusion_model
    if "post_input" not in type(network).forward_orig.__code__.co_consts:
        return "absent"
    said = _transformer("flux", change)
    assert "an attention has 89 queries on 89 keys, and by what the model was given it would have 84 queries on 84" in said, (
        said
    )
    return None


def case_a_model_that_is_given_a_picture() -> None:
    """Stable Video Diffusion has no words."""
    import families

    (film, *_) = families.GROUPS["stable_video_diffusion"]
    model = families.build(film)
    assert "is given a picture and no text" in refusal(families.sampling(film, model)(listen(model, None)[0]))


def case_no_step_between_the_first_and_the_last() -> None:
    """Said before anything is sampled."""
    said = ""
    try:
        graphs.record.execute(unet("sd15"), None, first_step=9, last_step=3)
    except graphs.errors.BadArgument as error:
        said = str(error)
    assert "between first_step 9 and last_step 3" in said, "a recording of no step was accepted"
