"""What the attention gives out in the real host, against softmax(Q K^T) V of every call written out in float64."""

from __future__ import annotations

from typing import Any

import families
import graphs
import torch
import truth
from cases_joint_concepts import built
from cases_nodes import painted, refused, run
from comfy.patcher_extension import WrappersMP
from families_settings import Cross, Family, Joint
from graphs import encode, ksampler, listen, runs
from zoo import PROMPT, clip, empty, unet


class Outputs(truth.Calls):
    """Scores by grid, float64 `[images, n, columns]`, and affinity `[images, n, n]`, step j weighted by j squared."""

    tolerance = 1e-5

    def __init__(self) -> None:
        super().__init__()
        self.scores: dict[Any, Any] = {}
        self.affinity: dict[Any, Any] = {}
        self.weights: dict[Any, float] = {}
        self.step, self._time = 0, -1.0

    def wrapper(self, executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
        self.step += float(t[0]) != self._time
        self._time = float(t[0])
        return super().wrapper(executor, x, t, *args, **kwargs)

    def add(self, grid: Any, outputs: list[torch.Tensor], values: list[torch.Tensor]) -> None:
        """One layer: of each picture `[n, heads * d]` and `[columns, heads * d]`."""
        scores = torch.stack([o @ v.T for o, v in zip(outputs, values, strict=True)])
        unit = torch.stack([o / o.norm(dim=1, keepdim=True) for o in outputs])
        self.scores[grid] = self.scores.get(grid, 0) + self.step**2 * scores
        self.affinity[grid] = self.affinity.get(grid, 0) + self.step**2 * unit @ unit.transpose(1, 2)
        self.weights[grid] = self.weights.get(grid, 0) + self.step**2

    def compare(self, found: Any) -> float:
        worst = 0.0
        for image, maps in enumerate(found):
            output = maps.positive.output
            assert set(output.scores) == set(self.scores)
            for grid, true in self.scores.items():
                uneven = float(true[image].std(0).max() / true[image].abs().max())
                assert uneven > 1e-4, "places that are all alike prove nothing"
                own = output.scores[grid][1 : 1 + true.shape[2]].flatten(1).T.double()
                worst = max(worst, float((own - true[image]).abs().max() / true[image].abs().max()))
            ((grid, affinity),) = output.affinity.items()
            assert grid == max((g for g in self.affinity), key=lambda g: g[0] * g[1])
            true = self.affinity[grid][image] / self.weights[grid]
            worst = max(worst, float((affinity.double() - true).abs().max()))
        assert worst < self.tolerance, f"off by {worst:.1e}"
        return worst


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, bias: Any = None) -> torch.Tensor:
    """float64 `[n, heads * d]` of q, k, v `[n, heads * d]`."""
    q, k, v = (x.double().unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, k, v))
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    return ((scores if bias is None else scores + bias).softmax(-1) @ v).transpose(0, 1).flatten(1)


def _of_transformer(family: Family, model: Any, sample: Any, nth: int | None = None) -> Outputs:
    where, found, watched = family.maps, Outputs(), model.clone()
    found.nth = nth
    assert isinstance(where, (Joint, Cross))
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "truth", found.wrapper)
    of_frames = family.frames * where.grid[0] * where.grid[1]
    sizes = (where.places, where.places) if isinstance(where, Joint) else (of_frames, family.columns)

    def override(func: Any, *args: Any, **kwargs: Any) -> Any:
        heads = args[3] if len(args) > 3 else kwargs["heads"]
        mask = args[4] if len(args) > 4 else kwargs.get("mask")
        if kwargs.get("skip_reshape"):
            q, k, v = (x.transpose(1, 2).flatten(2) for x in args[:3])
        else:
            q, k, v = (x.flatten(2) for x in args[:3])
        if found.rows and (q.shape[1], k.shape[1]) == sizes:
            outputs, values = [], []
            for row in found.rows:
                bias = None if mask is None else truth.mask_row(mask, row)
                if k.shape[2] != q.shape[2]:
                    k, v = (
                        x.unflatten(2, (-1, q.shape[2] // heads)).repeat_interleave(q.shape[2] // x.shape[2], 2).flatten(2)
                        for x in (k, v)
                    )
                o = attended(q[row], k[row], v[row], heads, bias)
                outputs.append(o[where.picture : where.picture + where.grid[0] * where.grid[1]])
                text = getattr(where, "text", 0)
                values.append((o if isinstance(where, Joint) else v[row].double())[text : text + family.columns])
            found.add(where.grid, outputs, values)
        return func(*args, **kwargs)

    families._run(family, watched, override, sample)
    return found


def _of_unet(model: Any, sample: Any) -> Outputs:
    found, held, handles, watched = Outputs(), {}, [], model.clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "truth", found.wrapper)

    def grid(_module: Any, args: Any) -> None:
        held["grid"] = tuple(args[0].shape[-2:])

    def keep(name: str, heads: int = 0) -> Any:
        def on(_module: Any, _args: Any, out: torch.Tensor) -> None:
            held[name] = out.clone()
            if name == "v" and found.rows:
                outputs = [attended(held["q"][row], held["k"][row], out[row], heads) for row in found.rows]
                found.add(held["grid"], outputs, [out[row].double() for row in found.rows])

        return on

    for module in model.model.diffusion_model.modules():
        if hasattr(module, "transformer_blocks"):
            handles.append(module.register_forward_pre_hook(grid))
            for block in module.transformer_blocks:
                attn = block.attn2
                handles.append(attn.to_q.register_forward_hook(keep("q")))
                handles.append(attn.to_k.register_forward_hook(keep("k")))
                handles.append(attn.to_v.register_forward_hook(keep("v", attn.heads)))
    try:
        sample(watched)
    finally:
        for handle in handles:
            handle.remove()
    return found


def check(name: str, **changes: Any) -> Any:
    """The picture is the same, the words' maps are, nothing is left, and the outputs are those written out."""
    found = built(name, **changes)
    if found is None:
        return "absent"
    family, model = found
    sample = families.sampling(family, model)
    true = _of_transformer(family, model, sample) if isinstance(family.maps, (Joint, Cross)) else _of_unet(model, sample)
    plain, words = sample(model), sample(listen(model, None)[0])
    kept = [runs.RECORDINGS.recorded(one) for one in words]
    before = graphs.state(model)
    heard = sample(listen(model, None, output_space=True)[0])
    assert torch.equal(plain, heard), "recording the output changed the picture"
    assert graphs.state(model) == before, "something was left on the model"
    assert runs.RECORDINGS.note(heard) == "", runs.RECORDINGS.note(heard)
    maps = [runs.RECORDINGS.recorded(one) for one in heard]
    for one, other in zip(maps, kept, strict=True):
        assert other.positive.output is None
        assert all(torch.equal(one.sums[grid], other.sums[grid]) for grid in one.sums)
    return true.compare(maps)


def case_unets() -> Any:
    return [check("SD15", images=2), check("SDXL")]


def case_double_and_single_blocks() -> Any:
    return [check("Flux", images=2), check("Flux2"), check("Chroma")]


def case_other_joint_models() -> Any:
    return [check("SD3"), check("QwenImage", images=2), check("Lumina2"), check("ZImage"), check("AuraFlow")]


def case_text_in_an_attention_of_its_own() -> Any:
    return [check("PixArtAlpha", images=2), check("WAN21_T2V", frames=1), check("LTXV", frames=1)]


def case_output_of_videos_is_refused_and_words_are_not() -> None:
    family, model = built("WAN21_T2V")  # type: ignore[misc]
    sample = families.sampling(family, model)
    heard = sample(listen(model, None, output_space=True)[0])
    assert torch.equal(sample(model), heard)
    assert "of videos the output of the attention is not read" in runs.RECORDINGS.note(heard)
    assert runs.RECORDINGS.recorded(heard[0]).positive.output is None


def case_a_replaced_attention_has_no_output() -> None:
    """IP-Adapter and its like compute the attention to the text themselves, and add to it."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        changed = model.clone()

        def twice(q: Any, k: Any, v: Any, extra: Any) -> Any:
            from comfy.ldm.modules.attention import optimized_attention

            return optimized_attention(q, k, v, extra["n_heads"]) * 1.5

        changed.set_model_attn2_replace(twice, "input", 1, 0)
        return ksampler(changed, encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128))

    heard = sample(*listen(unet("sd15"), clip("sd15"), output_space=True))
    assert torch.equal(sample(unet("sd15"), clip("sd15")), heard)
    assert "another node computes the cross-attention itself" in runs.RECORDINGS.note(heard)
    assert "house" in runs.maps_of(heard)[0]
    latent = {"samples": heard}
    said = refused("HeatMaps", latent, aggregation="output")
    assert "Switch `output_space` on" in said
    assert "another node computes the cross-attention itself" in said


def case_aggregations_through_the_nodes() -> None:
    latent, image = painted(output_space=True, detail="steps")
    (maps, overlays, *_) = run("HeatMaps", latent, image, "house")
    for aggregation in ("output", "anchor"):
        (other, drawn, _, names) = run("HeatMaps", latent, image, "house", aggregation=aggregation)
        assert names == ["house"]
        assert other[0].aggregation == aggregation
        assert torch.equal(other[0]["house"], maps[0].aggregate(aggregation)["house"])
        assert drawn.shape == overlays.shape
        assert not torch.equal(drawn, overlays)
        (mask, *_) = run("Mask", other, "house", "threshold")
        assert mask.shape == (2, 128, 160)
        assert "leave layers, steps, heads" in refused("HeatMaps", latent, image, "house", aggregation=aggregation, steps="0")
    latent, image = painted()
    assert "Switch `output_space` on in the Record Attention node" in refused("HeatMaps", latent, image, aggregation="anchor")
