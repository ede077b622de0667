"""Prompts for a part of the picture, of the batch or of the run, in transformers of pictures and videos, against Eq. 6."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cases_joint_concepts as concepts
import comfy.supported_models
import families
import graphs
import torch
import truth
from comfy.patcher_extension import WrappersMP
from families_settings import Family, Joint
from graphs import listen, node, runs

import nodes as host_nodes

NAMES = ("WAN21_T2V", "QwenImage", "LTXV", "Flux", "SD3", "CosmosT2IPredict2", "Lumina2", "Chroma")
STILLS = ("Flux", "SD3", "Lumina2")
"""Families whose latents have no frames: there a batch of masks is one for each picture."""
FILMS = ("WAN21_T2V", "LTXV")
Maps = torch.Tensor
"""float64 `[columns, frames, h, w]`."""
Put = Callable[[Maps, int], Maps]


def _family(name: str, images: int = 1) -> Family | None:
    found = next(family for group in families.GROUPS.values() for family in group if family.name == name)
    return dataclasses.replace(found, images=images) if hasattr(comfy.supported_models, name) else None


def _conditioning(family: Family, seed: int, letter: str) -> Any:
    """Random numbers as the text of words `w0`, `w1`, …"""
    made = families._context(family, seed)
    words = concepts.spaced([f"{letter}{i}" for i in range(concepts.WORDS)], family.columns)
    made[0][1]["daam_lens_prompts"] = {"x": words}
    return made


class Witness:
    """Probabilities of each prompt's rows, which are known by their text, in what the model was shown of the latent.

    Attributes:
        maps: by prompt, number in the batch and shape of what was shown.
    """

    def __init__(self, family: Family, prompts: dict[str, Any]) -> None:
        self.maps: dict[tuple[str, int, tuple[int, ...]], Maps] = {}
        self._family, self._texts = family, {name: made[0][0][0] for name, made in prompts.items()}
        self._patch = family.size[0] // family.maps.grid[0]  # type: ignore[union-attr]
        self._rows: list[tuple[str, int, int]] = []
        self._shape: tuple[int, ...] = ()

    def watch(self, model: Any, sample: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        watched = model.clone()
        watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "witness", self._call)
        watched.model_options["transformer_options"]["optimized_attention_override"] = self._attention
        return sample(watched)

    def of(self, name: str, image: int, put: Put) -> Maps:
        return sum(put(maps, image) for (own, i, _), maps in self.maps.items() if (own, i) == (name, image))  # type: ignore[return-value]

    def _call(self, executor: Any, x: Any, t: Any, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
              transformer_options: Any = None, **kwargs: Any) -> Any:  # fmt: skip
        lists = transformer_options["cond_or_uncond"]
        images, self._shape = x.shape[0] // len(lists), tuple(x.shape[2:])
        self._rows = [
            (name, row % images, row)
            for row in range(x.shape[0])
            for name, text in self._texts.items()
            if lists[row // images] == 0 and torch.equal(c_crossattn[row][: text.shape[0]], text)
        ]
        try:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        finally:
            self._rows = []

    def _attention(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        where, (q, k) = self._family.maps, args[:2]
        heads = args[3] if len(args) > 3 else kwargs["heads"]
        mask = args[4] if len(args) > 4 else kwargs.get("mask")
        if kwargs.get("skip_reshape"):
            q, k = (x.transpose(1, 2).flatten(2) for x in (q, k))
        height, width = (n // self._patch for n in self._shape[-2:])
        frames = self._shape[0] if len(self._shape) == 3 else 1
        shown, whole = frames * height * width, self._family.frames * where.grid[0] * where.grid[1]  # type: ignore[union-attr]
        queries = where.places - whole + shown  # type: ignore[union-attr]
        joint = isinstance(where, Joint)
        if (q.shape[1], k.shape[1]) == (queries, queries if joint else self._family.columns):
            if k.shape[2] != q.shape[2]:  # grouped heads
                k = k.unflatten(2, (-1, q.shape[2] // heads)).repeat_interleave(q.shape[2] // k.shape[2], 2).flatten(2)
            text = where.text if isinstance(where, Joint) else 0
            first = where.picture  # type: ignore[union-attr]
            text += shown - whole if joint and text > first else 0
            for name, image, row in self._rows:
                p = truth.softmax(
                    q[row, first : first + shown], k[row], heads, None if mask is None else truth.mask_row(mask, row)
                )
                maps = p[:, text : text + self._family.columns].T.reshape(-1, frames, height, width)
                key = name, image, self._shape
                self.maps[key] = self.maps[key] + maps if key in self.maps else maps
        return func(*args, **kwargs)


def _whole(maps: Maps, _image: int) -> Maps:
    return maps


def _run(family: Family, combined: Callable[[Any, Any], Any], steps: int = 2, **asked: Any) -> tuple[Witness, torch.Tensor]:
    """Sample words w0, … and v0, … as `combined` puts them together, with Record and without: (witness, latents)."""
    model, first, second = families.build(family), _conditioning(family, 1, "w"), _conditioning(family, 4, "v")
    negative, empty = families._context(family, 2), families._empty(family, model)
    positive = combined(first, second)

    def sample(watched: Any) -> torch.Tensor:
        latent = {"samples": empty}
        return graphs.ksampler(watched, positive, negative, latent, cfg=family.cfg, scheduler="simple", steps=steps)

    witness = Witness(family, {"w": first, "v": second})
    plain, before = witness.watch(model, sample), graphs.state(model)
    heard = sample(listen(model, None, **asked)[0])
    assert torch.equal(plain, heard), f"{family.name}: recording changed the picture"
    assert graphs.state(model) == before, f"{family.name}: something was left on the model"
    return witness, heard


def _equal(family: Family, witness: Witness, heard: torch.Tensor, of_w: Put = _whole, of_v: Put = _whole) -> float:
    """Maps of every word of both prompts, frame by frame; the witness's are `put` into the whole picture."""
    worst = 0.0
    for image, maps in enumerate(runs.maps_of(heard)):
        (sums,) = maps.sums.values()
        planes = (sums if sums.dim() == 4 else sums[None]).double()
        for name, put in (("w", of_w), ("v", of_v)):
            true = witness.of(name, image, put)
            for i in range(concepts.WORDS):
                ours = planes[:, list(maps.prompt.find(f"{name}{i}").channels)].sum(1)
                worst = max(worst, float((ours - true[1 + i]).abs().max() / true[1 + i].abs().max()))
        assert worst < 1e-5, f"{family.name}, picture {image}: off by {worst:.1e}"
    return worst


def _with(change: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda first, second: host_nodes.ConditioningCombine().combine(first, change(second)[0])[0]


def _each(names: Sequence[str], case: Callable[[Family], float], images: int = 1) -> list[float]:
    return [case(family) for name in names if (family := _family(name, images)) is not None]


def _masked(mask: torch.Tensor) -> Callable[[Any], Any]:
    return lambda conditioning: host_nodes.ConditioningSetMask().append(conditioning, mask, "default", 1.0)


def _upper_half(family: Family, masks: int = 1, flip: bool = True) -> torch.Tensor:
    """Masks in pixels: of the upper half, and by turns of the lower one."""
    height, width = family.size
    found = torch.zeros(masks, height * 8, width * 8)
    for i, mask in enumerate(found):
        mask[height * 4 if i % 2 and flip else 0 :][: height * 4] = 1
    return found


def _in_halves(maps: Maps, lower: bool) -> Maps:
    rows = torch.arange(maps.shape[-2])[:, None]
    return maps * ((rows >= maps.shape[-2] // 2) == lower)


def case_an_area_of_height_and_width() -> list[float]:
    """ConditioningSetArea says nothing of frames: of a latent that has some, the area holds them all."""

    def right_half(family: Family) -> float:
        height, width = (8 * n for n in family.size)
        area = host_nodes.ConditioningSetArea()
        witness, heard = _run(family, _with(lambda c: area.append(c, width // 2, height, width // 2, 0, 1.0)))

        def at_its_place(maps: Maps, _image: int) -> Maps:
            return torch.nn.functional.pad(maps, (maps.shape[-1], 0))

        return _equal(family, witness, heard, of_v=at_its_place)

    return _each(NAMES, right_half)


def case_a_mask_for_all() -> list[float]:
    def upper_half(family: Family) -> float:
        witness, heard = _run(family, _with(_masked(_upper_half(family))))
        return _equal(family, witness, heard, of_v=lambda maps, _: _in_halves(maps, False))

    return _each(NAMES, upper_half)


def case_a_mask_for_each_picture() -> list[float]:
    """A batch of masks: of four pictures and two masks, the third has the first again."""

    def by_turns(family: Family) -> float:
        asked = {"detail": "layers + steps", "heads": True}
        witness, heard = _run(family, _with(_masked(_upper_half(family, 2))), **asked)
        for i, maps in enumerate(runs.maps_of(heard)):
            apart = sum(maps.select(steps=[step]).heat_map("v1", maps.grid) for step in range(maps.steps))
            (whole,) = (sums[list(maps.prompt.find("v1").channels)].sum(0) for sums in maps.sums.values())
            assert not apart[_in_halves(torch.ones(maps.grid), not i % 2).bool()].any()
            torch.testing.assert_close(apart, whole, rtol=0.01, atol=0.01 * float(whole.max()))
        return _equal(family, witness, heard, of_v=lambda maps, image: _in_halves(maps, bool(image % 2)))

    return _each(STILLS, by_turns, images=4)


def case_the_rest_of_a_mask_for_each_picture() -> list[float]:
    """ConditioningSetDefaultCombine: what the masks of each picture leave over."""

    def by_turns(family: Family) -> float:
        rest, masked = node("nodes_hooks", "ConditioningSetDefaultAndCombine"), _masked(_upper_half(family, 2))
        witness, heard = _run(family, lambda first, second: rest(masked(second)[0], first)[0])
        return _equal(
            family, witness, heard, lambda maps, i: _in_halves(maps, not i % 2), lambda maps, i: _in_halves(maps, bool(i % 2))
        )

    return _each(STILLS, by_turns, images=2)


def case_a_mask_for_each_frame() -> list[float]:
    """Where all frames have the same it is one mask; where they differ there are no maps, and the sentence says why."""

    def of_frames(family: Family) -> float:
        _, heard = _run(family, _with(_masked(_upper_half(family, family.frames))))
        assert "a mask for each frame of the video" in graphs.refusal(heard)
        witness, heard = _run(family, _with(_masked(_upper_half(family, family.frames, flip=False))))
        return _equal(family, witness, heard, of_v=lambda maps, _: _in_halves(maps, False))

    return _each(FILMS, of_frames)


def case_a_prompt_for_some_frames_beside_one_for_all() -> list[float]:
    def last_frames(family: Family) -> float:
        height, width = family.size

        def change(made: Any) -> Any:
            return ([[made[0][0], {**made[0][1], "area": (family.frames - 1, height, width, 1, 0, 0)}]],)

        _, heard = _run(family, _with(change))
        assert "some frames of the video" in graphs.refusal(heard)
        return 0.0

    return _each(FILMS, last_frames)


def case_a_prompt_for_the_second_half_of_the_run() -> list[float]:
    def late(family: Family) -> float:
        ranged = host_nodes.ConditioningSetTimestepRange()
        witness, heard = _run(family, _with(lambda c: ranged.set_range(c, 0.5, 1.0)), steps=4)
        return _equal(family, witness, heard)

    return _each(NAMES, late)
