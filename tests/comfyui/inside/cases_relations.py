"""What else joint attention tells in the real host, against the whole softmax of every call written out in float64."""

from __future__ import annotations

from math import prod
from typing import Any

import families
import graphs
import torch
import truth
from cases_nodes import refused, run
from comfy.patcher_extension import WrappersMP
from families_settings import Family, Joint
from graphs import encode, ksampler, listen, runs
from zoo import PROMPT, clip, empty, unet

BUILT = ("Flux", "SD3", "Chroma", "QwenImage", "Lumina2", "ZImage", "HunyuanVideo")
"""Double and single blocks, double blocks alone, text behind the picture, one stream, grouped heads, frames."""


def _family(name: str) -> Family | None:
    """The class of that name, without references and the like; None where this ComfyUI does not have it."""
    every = [one for group in families.GROUPS.values() for one in group if one.name == name]
    return next((one for one in every if isinstance(one.maps, Joint) and hasattr(families.models, name)), None)


def _written_out(family: Family, model: Any, sample: Any) -> tuple[list[torch.Tensor], list[int], int]:
    """(float64 `[places, places]` summed over heads, of the prompt's row in every attention of text and picture; the number of
    the step of each; heads)."""
    where, calls, found, steps, heads = family.maps, truth.Calls(), [], [], set()
    assert isinstance(where, Joint)
    times: list[float] = []
    watched = model.clone()

    def stepped(executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
        if float(t[0]) not in times:
            times.append(float(t[0]))
        return calls.wrapper(executor, x, t, *args, **kwargs)

    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "truth", stepped)

    def override(func: Any, *args: Any, **kwargs: Any) -> Any:
        q, k = args[:2]
        count = args[3] if len(args) > 3 else kwargs["heads"]
        mask = args[4] if len(args) > 4 else kwargs.get("mask")
        if kwargs.get("skip_reshape"):
            q, k = (x.transpose(1, 2).flatten(2) for x in (q, k))
        if calls.rows and q.shape[1] == k.shape[1] == where.places:
            if k.shape[2] != q.shape[2]:
                k = k.unflatten(2, (-1, q.shape[2] // count)).repeat_interleave(q.shape[2] // k.shape[2], 2).flatten(2)
            row = calls.rows[0]
            bias = None if mask is None else truth.mask_row(mask, row)
            found.append(truth.softmax(q[row], k[row], count, bias))
            steps.append(len(times))
            heads.add(int(count))
        return func(*args, **kwargs)

    families._run(family, watched, override, sample)
    return found, steps, heads.pop()


def case_every_relation_of_joint_models() -> None:
    checked = [name for name in BUILT if (family := _family(name)) is not None and not _check(family)]
    assert len(checked) >= 5, checked


def _check(family: Family) -> None:
    where = family.maps
    assert isinstance(where, Joint)
    model = families.build(family)
    for name, weight in model.model.diffusion_model.named_parameters():
        if name.endswith(("ln_q.weight", "ln_k.weight")):  # so that attention is not even
            weight.data.fill_(2.0)
    sample = families.sampling(family, model)
    plain = sample(model)
    calls, steps, heads = _written_out(family, model, sample)
    heard = sample(listen(model, None, relations="all")[0])
    assert torch.equal(plain, heard), f"{family.name}: recording changed the picture"
    maps = runs.RECORDINGS.recorded(heard[0])
    places = family.frames * prod(where.grid)
    picture = slice(where.picture, where.picture + places)
    order = where.order or tuple(range(family.columns))
    text = list(range(where.text, where.text + len(order)))
    of_first = [p for p, step in zip(calls, steps, strict=True) if step == 1][::4]
    itself = sum(p[picture, picture] for p in of_first)
    itself = itself / itself.sum(1, keepdim=True)
    (found,) = maps.self_attention.values()
    _same(found.double(), itself, f"{family.name}, picture to itself")
    spread = float(itself.std() / itself.mean())
    assert spread > 5e-3, f"{family.name}: attention that is even proves nothing ({spread:.1e})"
    total = sum(calls)
    channels = max(order) + 1
    pick = torch.zeros(len(text), channels, dtype=torch.float64)
    for key, column in enumerate(order):
        pick[key, column] = 1
    to_image = (pick.T @ total[text][:, picture]).unflatten(1, (family.frames, *where.grid)).sum(1)
    ((grid, kept),) = maps.relations.text_to_image.items()
    assert grid == where.grid
    _same(kept[1 : 1 + channels].double(), to_image, f"{family.name}, text to picture")
    to_text = pick.T @ total[text][:, text] @ pick
    own = maps.relations.text_to_text[1 : 1 + channels, 1 : 1 + channels].double()
    _same(own, to_text, f"{family.name}, text to text")
    assert float(maps.relations.num_queries[1]) == heads * len(calls) * float(pick[:, 0].sum())


def _same(found: torch.Tensor, true: torch.Tensor, what: str) -> None:
    off = float((found - true).abs().max() / true.abs().max())
    assert off < 1e-5, f"{what}: off by {off:.1e}"


def case_the_picture_to_itself_stays_small_and_helps_masks() -> None:
    """A picture of more places than are kept is kept in as many cells; masks follow it."""
    family = _family("Flux")
    assert family is not None
    model = families.build(family)
    latent = {"samples": torch.zeros(1, 16, 60, 80)}
    positive = families._context(family, 1)
    heard = ksampler(listen(model, None)[0], positive, positive, latent, cfg=1.0, scheduler="simple")
    maps = runs.RECORDINGS.recorded(heard[0])
    ((grid, kept),) = maps.self_attention.items()
    assert prod(grid) <= 576 < 30 * 40 and kept.shape == (prod(grid), prod(grid)) and kept.nbytes <= 1.4e6
    assert maps.mask(maps.words[0], "walk").shape == maps.size
    bare = ksampler(listen(model, None, self_attention=False)[0], positive, positive, latent, cfg=1.0, scheduler="simple")
    assert torch.equal(bare, heard)
    assert "self_attention" in refused("Mask", (runs.RECORDINGS.recorded(bare[0]),), "0", "walk")


def case_relations_where_the_text_asks_nothing() -> None:
    """Of a UNet and of cross-attention the words are recorded, and a sentence says that there is nothing else."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128))

    plain = sample(unet("sd15"), clip("sd15"))
    heard = sample(*listen(unet("sd15"), clip("sd15"), relations="all"))
    assert torch.equal(plain, heard)
    assert "in this model, UNetModel, only the picture has queries" in runs.RECORDINGS.note(heard)
    latent = {"samples": heard}
    assert "text->image was not recorded" in refused("HeatMaps", latent, relation="text->image")
    (maps, *_) = run("HeatMaps", latent)
    assert "text->text was not recorded" in refused("WordMatrix", maps)
    wan = _wan()
    model = families.build(wan)
    heard = families.sampling(wan, model)(listen(model, None, relations="all")[0])
    assert "only the picture has queries" in runs.RECORDINGS.note(heard)
    assert runs.RECORDINGS.recorded(heard[0]).self_attention is None


def _wan() -> Family:
    return next(one for group in families.GROUPS.values() for one in group if one.name == "WAN21_T2V")


def case_relations_through_the_nodes() -> None:
    """text->image maps go where maps go; the matrix is drawn and told in numbers."""
    family = _family("Flux")
    assert family is not None
    model = families.build(family)
    heard = families.sampling(family, model)(listen(model, None, relations="all")[0])
    recorded = runs.RECORDINGS.recorded(heard[0])
    columns = recorded.prompt.length
    runs.RECORDINGS.keep([heard], [recorded.with_prompt(_named(columns))] * len(heard))
    latent = {"samples": heard}
    (maps, overlays, *_) = run("HeatMaps", latent, words="w1, w2", relation="text->image")
    (plain, *_) = run("HeatMaps", latent, words="w1, w2")
    expected = recorded.relations.text_to_image[plain[0].grid][2]
    assert torch.allclose(maps[0].heat_map("w1"), expected, atol=1e-6) and not torch.allclose(maps[0]["w1"], plain[0]["w1"])
    assert len(overlays) == 2 * len(heard)
    (mask, *_) = run("Mask", maps, "w1", "threshold")
    assert mask.shape[0] == len(heard)
    picture, table = run("WordMatrix", plain, "w1, w2, w3")
    assert picture.shape[0] == len(heard) and picture.shape[1] > 60
    rows = table.split("\n\n")[0].split("\n")
    value = float(recorded.relations.text_to_text[2, 3] / recorded.relations.num_queries[2])
    assert rows[0].split("\t") == ["", "w1", "w2", "w3"] and rows[1].split("\t")[2] == f"{value:.2%}"


def _named(columns: int) -> Any:
    """A prompt whose word `wN` stands in column N."""
    module = graphs.importlib.import_module("daam-lens.daam_core.prompt.prompt")
    token = graphs.importlib.import_module("daam-lens.daam_core.prompt.words")
    names = [f"w{i}" for i in range(columns)]
    tokens = tuple(token.Token(i, name, i + 1) for i, name in enumerate(names))
    words = tuple(token.Word(name, name, (i + 1,)) for i, name in enumerate(names))
    return module.Prompt(" ".join(names), tokens, words, (), (), (), columns)
