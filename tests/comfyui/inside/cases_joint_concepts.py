"""Concepts of transformers in the real host: the stream of joint models and the keys of the others, written out in float64."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import families
import graphs
import torch
import torch.nn.functional as F
import truth
from comfy.patcher_extension import WrappersMP
from families_settings import Family
from graphs import listen, runs
from stream_truth import WAYS, linear, rms

core = "daam-lens.daam_core"
prompt = importlib.import_module(f"{core}.prompt.prompt")
asked = importlib.import_module(f"{core}.prompt.concepts")
texts = importlib.import_module(f"{core}.capture.concept_texts")
CONCEPTS = {"lamp": "a lamp", "red sky": "the red sky", "tail": "a very long bushy tail"}
OWN = {"lamp": [2], "red sky": [2, 3], "tail": [5]}
"""The columns of each: not the articles, not what stands beside the label."""
LENGTH = 9
"""Columns that each concept's text is encoded to."""
WORDS = 5


def spaced(words: list[str], length: int) -> Any:
    """A start, a column a word, an end, padding."""
    tokens = tuple(prompt.Token(i, word, i) for i, word in enumerate(words, start=1))
    found = tuple(prompt.Word(token.text, token.text, (token.channel,)) for token in tokens)
    end = len(words) + 1
    return prompt.Prompt(" ".join(words), tokens, found, (0,), (end,), tuple(range(end + 1, length)), length)


def encoded(width: int, labels: tuple[str, ...] = tuple(CONCEPTS)) -> Any:
    """Concepts as an encoder might have given them out."""
    concepts = asked.concepts_of({label: CONCEPTS[label] for label in labels})
    names, written = texts.texts_to_encode(concepts)
    states = torch.randn(len(written), LENGTH, width, generator=torch.Generator().manual_seed(7)) * 2
    return texts.ConceptTexts(concepts, tuple(names), tuple(spaced(one.split(), LENGTH) for one in written), states)


@contextmanager
def carrying(concepts: Any) -> Iterator[None]:
    """The positive prompt carries concepts, and words."""
    honest = families._context

    def context(family: Family, seed: int) -> Any:
        made = honest(family, seed)
        if seed == 1:
            words = spaced([f"w{i}" for i in range(WORDS)], family.columns)
            made[0][1].update(daam_lens_concepts=concepts, daam_lens_prompts={"x": words})
        return made

    with mock.patch.object(families, "_context", context):
        yield


def built(name: str, **changes: Any) -> tuple[Family, Any] | None:
    """(the class reduced, its model); None where this ComfyUI does not have it."""
    every = [one for group in families.GROUPS.values() for one in group if one.name == name]
    if not hasattr(families.models, name):
        return None
    family = dataclasses.replace(every[0], **changes)
    model = families.build(family)
    for part, weight in model.model.diffusion_model.named_parameters():  # outputs that differ from place to place
        if weight.dim() == 2 and any(x in part for x in ("qkv", "to_v", "add_v_proj")):
            weight.data *= 4 if name == "SD3" else 3
        if name == "SD3" and part.endswith(("ln_q.weight", "ln_k.weight")):
            weight.data *= 4
    return family, model


class Witness(truth.Calls):
    """A run without Record, whose blocks are read: what each was given, and what its attention made."""

    tolerance = 1e-5

    def __init__(self, concepts: Any) -> None:
        super().__init__()
        self.concepts = concepts
        self.total: list[torch.Tensor | float] = []
        self.late: list[torch.Tensor | float] = []
        self.step, self._time = 0, -1.0
        self.read: dict[str, Any] = {}

    def wrapper(self, executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
        self.step += float(t[0]) != self._time
        self._time = float(t[0])
        self.begin()
        return super().wrapper(executor, x, t, *args, **kwargs)

    def begin(self) -> None:
        """The model is called."""

    def add(self, image: int, place: torch.Tensor, presence: torch.Tensor) -> None:
        """One layer's `[n, concepts]` of a picture: map, and presence weighted by its variance over the places."""
        while len(self.total) <= image:
            self.total.append(0.0)
            self.late.append(0.0)
        self.total[image] = self.total[image] + place
        self.late[image] = self.late[image] + presence * self.step**8

    def compare(self, found: Any, grid: tuple[int, int]) -> float:
        """Maps and presence of every picture; gives the largest difference."""
        worst = 0.0
        for image, maps in enumerate(found):
            labels = [one.label for one in self.concepts.concepts]
            assert maps.concepts == labels, maps.concepts
            sums = maps.sides["concepts"].sums[grid][1 : 1 + len(labels)].flatten(1).T.double()
            true = self.total[image]
            assert float(true.std() / true.mean()) > 0.002, "a map that is alike everywhere proves nothing"
            worst = max(worst, float((sums - true).abs().max() / true.max()))
            late = self.late[image].T
            hottest = late.sort(descending=True).values[:, : max(1, int(0.03 * late.shape[1]))]
            for label, score in zip(labels, 1 - late.mean(1) / hottest.mean(1), strict=True):
                worst = max(worst, abs(maps.presence(label).score - float(score)))
        assert worst < self.tolerance, f"off by {worst:.1e}"
        return worst


class Stream(Witness):
    """ConceptAttention, by the formulas of `stream_truth`."""

    def __init__(self, concepts: Any, family: Family, model: Any) -> None:
        super().__init__(concepts)
        self.blocks, self.embed, self.enter = WAYS[family.name]
        self.network, self.where, self.family = model.model.diffusion_model, family.maps, family
        self.states = concepts.states.double()
        labels = [one.label for one in concepts.concepts]
        own = [(i, column) for i, label in enumerate(labels) for column in OWN[label]]
        rivals = [(i, 2) for i in range(len(labels), len(concepts.labels))]
        self.columns = {"concepts": own, "rivals": rivals}
        self.streams: dict[tuple[int, str], torch.Tensor] = {}

    def begin(self) -> None:
        self.streams.clear()

    def _tokens(self, columns: list[tuple[int, int]]) -> torch.Tensor:
        made = {text: self.embed(self.network, self.states[text]) for text in {text for text, _ in columns}}
        return torch.stack([made[text][column] for text, column in columns])

    def block(self, block: Any, given: Any, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor) -> None:
        """A block attended: k, v `[batch, heads, n, d]`, out `[batch, n, heads * d]`."""
        first = self.where.picture
        n = self.where.grid[0] * self.where.grid[1]
        for image, row in enumerate(self.rows):
            picture = [x[row, :, first : first + n].double() for x in (k, v)]
            outputs: dict[str, torch.Tensor] = {}
            for name, columns in self.columns.items():
                x = self.streams.get((image, name))
                x = self._tokens(columns) if x is None else x
                spots = [column for _, column in columns]
                (q, own_k, own_v), leave = self.enter(self.network, block, given, row, x, spots, self.shape)
                keys, values = torch.cat([own_k, picture[0]], 1), torch.cat([own_v, picture[1]], 1)
                o = (q @ keys.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ values
                o = o.transpose(0, 1).flatten(1)
                for text in {text for text, _ in columns}:
                    mine = [i for i, (other, _) in enumerate(columns) if other == text]
                    outputs[self.concepts.labels[text]] = o[mine].mean(0)
                if leave is not None:
                    self.streams[image, name] = leave(o)
            self._shares(image, out[row, first : first + n].double(), outputs)

    def _shares(self, image: int, picture: torch.Tensor, outputs: dict[str, torch.Tensor]) -> None:
        exp = {label: (picture @ o).exp() for label, o in outputs.items()}
        concepts = self.concepts.concepts
        labels = [one.label for one in concepts]
        rivals = [sum(exp[r] for r in asked.rivals_of(one)) for one in concepts]
        presence = torch.stack([exp[x] / (exp[x] + r) for x, r in zip(labels, rivals, strict=True)], 1)
        place = torch.stack([exp[x] / sum(exp[y] for y in labels) for x in labels], 1) if len(labels) > 1 else presence
        self.add(image, place, presence * ((presence - presence.mean(0)) ** 2).mean(0))

    def watch(self, model: Any, sample: Callable[[Any], Any]) -> Any:
        open_block: list[Any] = []
        watched = model.clone()
        watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "truth", self.wrapper)

        def enter(block: Any, args: Any, kwargs: Any) -> None:
            forward = inspect.signature(type(block).forward)
            named = {} if "args" in forward.parameters else dict(forward.bind(block, *args, **kwargs).arguments)
            open_block[:] = [block, {**named, **kwargs}]

        def override(func: Any, *args: Any, **kwargs: Any) -> Any:
            out = func(*args, **kwargs)
            heads = args[3] if len(args) > 3 else kwargs["heads"]
            k, v = args[1:3]
            if not kwargs.get("skip_reshape"):
                k, v = (x.flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (k, v))
            if open_block and self.rows and k.shape[2] == self.where.places:
                block, given = open_block
                open_block.clear()
                self.block(block, given, k, v, out)
            return out

        blocks = getattr(self.network, self.blocks)
        handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
        handles += [block.register_forward_hook(lambda *_: open_block.clear()) for block in blocks]
        try:
            families._run(self.family, watched, override, sample)
            return sample(model)
        finally:
            for handle in handles:
                handle.remove()


class Keys(Witness):
    """The attention to the keys of the concepts' own texts, against the prompt's words: the rule of UNets."""

    def __init__(self, concepts: Any, family: Family, model: Any) -> None:
        super().__init__(concepts)
        self.network, self.where, self.family = model.model.diffusion_model, family.maps, family
        self.ending, embed, self.keys = KEYS[family.name]
        states, labels = embed(self.network, concepts.states.double()), [one.label for one in concepts.concepts]
        self.own = [states[i, OWN[label]] for i, label in enumerate(labels)]
        rivals = [[concepts.labels.index(r, len(labels)) for r in asked.rivals_of(one)] for one in concepts.concepts]
        self.rivals = [torch.stack([states[r, 2] for r in some]) for some in rivals]

    def watch(self, model: Any, sample: Callable[[Any], Any]) -> Any:
        opened: list[Any] = []
        watched = model.clone()
        watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "truth", self.wrapper)

        def override(func: Any, *args: Any, **kwargs: Any) -> Any:
            heads = args[3] if len(args) > 3 else kwargs["heads"]
            if opened and self.rows and args[1].shape[1] == self.family.columns:
                self.layer(opened.pop(), args[0], args[1], heads)
            return func(*args, **kwargs)

        layers = [part for name, part in self.network.named_modules() if name.endswith(self.ending)]
        handles = [layer.register_forward_pre_hook(lambda one, *_: opened.append(one)) for layer in layers]
        try:
            families._run(self.family, watched, override, sample)
            return sample(model)
        finally:
            for handle in handles:
                handle.remove()

    def layer(self, attn: Any, q: torch.Tensor, k: torch.Tensor, count: int) -> None:
        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.double().unflatten(-1, (count, -1)).transpose(0, 1)

        n = self.where.grid[0] * self.where.grid[1]
        for image, row in enumerate(self.rows):
            picture = heads(q[row, self.where.picture : self.where.picture + n])
            words = heads(k[row, 1 : 1 + WORDS])
            place, there = [], []
            for own, rivals in zip(self.own, self.rivals, strict=True):
                parts = [heads(self.keys(attn, own)), words, heads(self.keys(attn, rivals))]
                e = [(picture @ x.transpose(1, 2) / picture.shape[-1] ** 0.5).exp().sum(-1) for x in parts]
                place.append((e[0] / (e[0] + e[1])).sum(0))
                of_heads = e[0] / (e[0] + e[1] + e[2])
                there.append(sum(one * ((one - one.mean()) ** 2).mean() for one in of_heads))
            self.add(image, torch.stack(place, 1), torch.stack(there, 1))


def _twice(first: Any, second: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: linear(second, F.gelu(linear(first, x), approximate="tanh"))


_PIXART = (
    ".cross_attn",
    lambda m, x: _twice(m.y_embedder.y_proj.fc1, m.y_embedder.y_proj.fc2)(x),
    lambda attn, x: linear(attn.kv_linear, x).chunk(2, -1)[0],
)
KEYS: dict[str, Any] = {
    "PixArtAlpha": _PIXART,
    "PixArtSigma": _PIXART,
    "WAN21_T2V": (
        ".cross_attn",
        lambda m, x: _twice(m.text_embedding[0], m.text_embedding[2])(x),
        lambda attn, x: rms(attn.norm_k, linear(attn.k, x)),
    ),
    "LTXV": (
        ".attn2",
        lambda m, x: _twice(m.caption_projection.linear_1, m.caption_projection.linear_2)(x),
        lambda attn, x: rms(attn.k_norm, linear(attn.to_k, x), 1e-5),
    ),
}
"""By class: (how the paths of its attention to the text end, the embedding of texts, a layer's keys)."""


def check(name: str, labels: tuple[str, ...] = tuple(CONCEPTS), **changes: Any) -> Any:
    """The same picture with and without concepts, nothing left on the model, the words' maps as without, the formulas."""
    found = built(name, **changes)
    if found is None:
        return "absent"
    family, model = found
    concepts = encoded(family.width, labels)
    witness = (Stream if family.name in WAYS else Keys)(concepts, family, model)
    return _checked(family, model, concepts, witness, family.maps.grid)


def _checked(family: Family, model: Any, concepts: Any, witness: Witness, grid: tuple[int, int]) -> float:
    with carrying(concepts):
        sample = families.sampling(family, model)
        plain = witness.watch(model, sample)
        words = runs.maps_of(sample(listen(model, None)[0]))
        before, hooks = graphs.state(model), _hooks(model)
        heard = sample(listen(model, None, concepts=concepts.concepts)[0])
    assert torch.equal(plain, heard), "recording concepts changed the picture"
    assert graphs.state(model) == before, "something was left on the model"
    assert _hooks(model) == hooks, "a hook was left on the model"
    assert runs.RECORDINGS.note(heard) == "", runs.RECORDINGS.note(heard)
    maps = runs.maps_of(heard)
    for one, other in zip(maps, words, strict=True):
        assert torch.equal(one["w1"], other["w1"])
    return witness.compare(maps, grid)


def _hooks(model: Any) -> int:
    every = list(model.model.diffusion_model.modules())
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in every)


def case_flux() -> Any:
    return check("Flux", images=2, **_deeper())


def case_flux_schnell_of_one_concept() -> Any:
    return check("FluxSchnell", ("red sky",))


def case_flux2() -> Any:
    return check("Flux2", images=2)


def case_longcat_image() -> Any:
    return check("LongCatImage")


def case_chroma() -> Any:
    return check("Chroma", images=2, cfg=1.0)


def case_sd3() -> Any:
    return check("SD3", images=2)


def case_qwen_image() -> Any:
    return check("QwenImage", images=2)


def case_lumina2() -> Any:
    return check("Lumina2", images=2)


def case_z_image() -> Any:
    return check("ZImage", images=2)


def case_pixart() -> Any:
    return check("PixArtAlpha", images=2) and check("PixArtSigma")


def case_wan_of_one_frame() -> Any:
    return check("WAN21_T2V", frames=1)


def case_ltx_of_one_frame() -> Any:
    return check("LTXV", frames=1)


# -- where there are none -----------------------------------------------------------------------------------------------


def _refused(name: str, reason: str, change: Callable[[Any], None] | None = None, **changes: Any) -> Any:
    """No concepts, by a sentence; the words are there, and the picture is what it was."""
    found = built(name, **changes)
    if found is None:
        return "absent"
    family, model = found
    concepts = encoded(family.width)
    with carrying(concepts):
        sample = families.sampling(family, model)

        def changed(watched: Any) -> Any:
            if change is not None:
                change(watched)
            return sample(watched)

        plain = changed(model.clone())
        heard = changed(listen(model, None, concepts=concepts.concepts)[0])
    assert torch.equal(plain, heard)
    maps = runs.maps_of(heard)[0]
    assert maps.concepts == []
    assert "w1" in maps
    note = runs.RECORDINGS.note(heard)
    assert note.startswith("There are no concepts, the words were recorded: ")
    assert reason in note, note
    return None


def case_other_families_are_named() -> Any:
    return _refused(
        "AuraFlow", "of this model, MMDiT, they are not read in ComfyUI; they are of Stable Diffusion's UNets and of Flux"
    )


def case_videos_have_none() -> Any:
    return _refused("WAN21_T2V", "of videos they are not read") or _refused("LTXV", "of videos they are not read")


def _left_out(model: Any) -> None:
    """A cache: the second block gives out what it was given."""
    model.set_model_patch_replace(lambda args, _: {"img": args["img"], "txt": args["txt"]}, "dit", "double_block", 1)


def _rewritten(model: Any) -> None:
    def scaled(args: Any, extra: Any) -> Any:
        out = extra["original_block"](args)
        return {**out, "txt": out["txt"] * 1.3}

    model.set_model_patch_replace(scaled, "dit", "double_block", 0)


def case_blocks_that_are_left_out_end_concepts_and_not_words() -> Any:
    return _refused("Flux", "blocks of the model were left out", _left_out, **_deeper())


def case_text_that_changes_between_blocks_ends_concepts_and_not_words() -> Any:
    return _refused("Flux", "something changes the text between the model's blocks", _rewritten, **_deeper())


def case_attention_whose_values_are_exchanged_ends_concepts_and_not_words() -> Any:
    """What another node's patch makes of keys and values is not what the block makes of its text."""

    def change(model: Any) -> None:
        def patch(q: Any, k: Any, v: Any, pe: Any = None, attn_mask: Any = None, extra_options: Any = None) -> Any:
            return {"v": v * 2}

        model.set_model_attn1_patch(patch)

    if not hasattr(families.models, "Flux2"):
        return "absent"  # older blocks take no patches
    return _refused("Flux", "attends to keys and values that are not those of the text", change)


def _deeper() -> dict[str, Any]:
    """Two double blocks: what the first makes of the tokens is what the second reads with."""
    flux = next(one for group in families.GROUPS.values() for one in group if one.name == "Flux")
    return {"settings": {**flux.settings, "depth": 2}}
