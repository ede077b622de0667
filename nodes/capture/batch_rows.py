"""Which rows of a model's batch belong to which prompt, and where in the picture that prompt is at work.

ComfyUI samples with lists of conditionings under names ("positive", "negative", "middle", …), one dictionary each. A row
of the model's batch is told by the conditioning's uuid and the position of its list: an area is copied into the other
lists under the same uuid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from ...daam_core.capture.comfyui_model import CONTEXT, TextArgument
from ...daam_core.capture.concept_texts import ConceptTexts
from ...daam_core.capture.region import WHOLE, Area
from ...daam_core.errors import NothingRecorded
from ...daam_core.prompt.compose import concat_encoders, pad_or_truncate
from ...daam_core.prompt.encoders import encoder_name
from ...daam_core.prompt.prompt import Prompt
from .concept_encoding import KEY as CONCEPTS
from .context_alignment import context_prompt, is_changed, is_zeroed, of_length, placed, wordless
from .default_cond import AtWork, DefaultAreas, area_and_weight, is_default, of_pictures
from .prompt_tokens import COLUMNS, ENCODING, ENCODINGS, KEY, PromptTokens

Side = Literal["prompt", "negative"]
Cond = dict[str, Any]
_Turn = tuple[float, float]
SIDES: tuple[Side, ...] = ("prompt", "negative")
_ENCODED_IN_TURNS = (
    "the prompt is encoded once for each part of the run (a LoRA on CLIP whose strength has a schedule), and concepts are "
    "encoded once. Switch schedule_clip off in Set CLIP Hooks"
)
_ALL = 2**31
"""More than a latent has along any axis: ComfyUI cuts an area down to what is there."""


@dataclass(frozen=True)
class Row:
    """What one row group of a model's batch stands for: a side, the number of its prompt on that side, its area.

    `size` is what the model is shown of the latent: ((frames,) h, w) of the area.
    """

    side: Side
    part: int
    area: Area
    size: tuple[int, ...]


class Conds:
    """The conditionings of one run, resolved once the sampler has prepared them.

    Args:
        lists: the sampler's prepared conditionings by name.
        asked: the same as they were given to the sampler, before it added any.
        latent: its shape `[images, c, (frames,) h, w]`.
        at_work: see `DefaultAreas`.
        texts: the texts that the model is given.

    Attributes:
        prompts: of each side, the words of each of its prompts.
        concepts: what each prompt of the prompt's side carries: concepts, a sentence that says why there are none, or nothing.
        hooked: whether any of them has hooks, by which other weights are written into the model while it runs.
        changed: the sides on which a conditioning's encoding is not what its encoder gave out for its words.
        travelling: the sides on which a conditioning holds another text for each picture of the batch.
    """

    def __init__(
        self,
        lists: Mapping[str, Any],
        asked: Mapping[str, Any],
        latent: Sequence[int],
        at_work: AtWork = area_and_weight,
        texts: Sequence[TextArgument] = (CONTEXT,),
    ) -> None:
        self._texts = texts
        self.prompts: dict[Side, list[Prompt]] = {side: [] for side in SIDES}
        self.concepts: list[ConceptTexts | str | None] = []
        self.hooked = any(cond.get("hooks") is not None for conds in lists.values() for cond in conds or ())
        self.travelling: set[Side] = set()
        self.changed: set[Side] = set()
        self._rows: dict[str, dict[Any, Row]] = {}
        self._default_areas = DefaultAreas(at_work)
        areas: dict[Any, Area] = {}
        for name, conds in lists.items():
            side = _side(name)
            if side is not None and conds:
                self._rows[name] = dict(self._resolve(side, conds, _uuids(asked.get(name)), latent, areas))
        _check_frames([row for rows in self._rows.values() for row in rows.values()], latent)
        prompts = self.prompts["prompt"]
        if prompts and all(len(one.padding) == one.length > 0 for one in prompts):
            raise NothingRecorded(
                "The positive prompt was set to zero (ConditioningZeroOut), so none of its words came to the model and there "
                "is no map of them. Connect the prompt itself."
            )

    def _resolve(
        self, side: Side, conds: Sequence[Cond], own: set[Any], latent: Sequence[int], areas: dict[Any, Area]
    ) -> Iterator[tuple[Any, Row]]:
        parts: dict[int, int] = {}
        turns: dict[int, list[_Turn]] = {}
        for cond in conds:
            if (cond["uuid"] in own or not own) and _text_id(cond) not in parts:
                worded, changed = _as_encoded(cond, self._texts[0])
                prompt, turn = _prompt(worded, self._texts), _turn(cond)
                number = parts[_text_id(cond)] = self._part(side, prompt, turn, turns)
                turns.setdefault(number, []).extend([turn] if turn else [])
                self.changed |= {side} if changed else set()
                if _is_several(cond.get(self._texts[0].encoded)):
                    self.travelling.add(side)
                if number == len(self.prompts[side]):
                    self.prompts[side].append(prompt)
                if side == "prompt":
                    self.concepts.append(_ENCODED_IN_TURNS if _is_encoded_in_turns(cond) else cond.get(CONCEPTS))
        for cond in conds:
            part = parts.get(_text_id(cond))
            if part is not None:
                yield (
                    cond["uuid"],
                    Row(side, part, areas.setdefault(_area_id(cond), _area(cond, latent)), _size(cond, latent)),
                )

    def _part(self, side: Side, prompt: Prompt, turn: _Turn | None, turns: Mapping[int, Sequence[_Turn]]) -> int:
        """The number of a conditioning's prompt: a new one, or that of the same text for an earlier part of the run (a LoRA on
        CLIP whose strength has a schedule, ConditioningSetTimestepRange)."""
        if turn is not None and prompt.text and prompt != Prompt.by_index(prompt.length):
            for part, taken in turns.items():
                apart = all(turn[0] >= end or turn[1] <= start for start, end in taken)
                if taken and apart and self.prompts[side][part] == prompt:
                    return part
        return len(self.prompts[side])

    def begin(self, names: Iterable[str], lists: Mapping[str, Any], x: Tensor, timestep: Tensor) -> None:
        """A prediction begins: default prompts get what the prompts that are at work now leave over.

        Args:
            names: the lists that are predicted.
            lists: the sampler's prepared conditionings by name.
            x, timestep: see `DefaultAreas.area`.
        """
        for name in names:
            rows = self._rows.get(name, {})
            defaults = [cond["uuid"] for cond in lists[name] if is_default(cond) and cond["uuid"] in rows]
            if defaults:
                area = self._default_areas.area(lists[name], x, timestep)
                rows.update({uuid: replace(rows[uuid], area=area) for uuid in defaults})

    def rows(self, names: Mapping[int, str], indices: Sequence[int], uuids: Sequence[Any]) -> list[Row | None]:
        """What the row groups of one call are; `names` says which list stands at which position of the call."""
        return [self._rows.get(names.get(i, ""), {}).get(uuid) for i, uuid in zip(indices, uuids, strict=True)]


def _check_frames(rows: Sequence[Row], latent: Sequence[int]) -> None:
    """Raises NothingRecorded: prompts of some frames stand beside prompts of all, and maps have all frames or their sum."""
    if len(latent) == 5 and len({row.size[0] == latent[2] for row in rows if row.side == "prompt"}) > 1:
        raise NothingRecorded(
            "one prompt is for some frames of the video and another one for all of it, so their maps have no common frames. "
            "Give every prompt all frames, or each of them a part"
        )


def names_of(lists: Sequence[Any], known: Mapping[str, Any]) -> dict[int, str]:
    """Which of a call's lists is which of the sampler's; others (a guidance of another pack) are left out."""
    return {i: name for i, conds in enumerate(lists) for name, ours in known.items() if conds is not None and conds is ours}


def _side(name: str) -> Side | None:
    if name == "negative":
        return "negative"
    return None if "empty" in name or "negative" in name else "prompt"


def _uuids(conds: Any) -> set[Any]:
    return {cond.get("uuid") for cond in conds or ()}


def _is_encoded_in_turns(cond: Cond) -> bool:
    """Whether a text was encoded once for each part of the run."""
    return cond.get("clip_start_percent") is not None and cond.get("clip_end_percent") is not None


def _turn(cond: Cond) -> _Turn | None:
    """The part of the run that a conditioning is for, None where that is all of it."""
    starts = [float(cond[name]) for name in ("clip_start_percent", "start_percent") if cond.get(name) is not None]
    ends = [float(cond[name]) for name in ("clip_end_percent", "end_percent") if cond.get(name) is not None]
    return (max(starts, default=0.0), min(ends, default=1.0)) if starts or ends else None


def _as_encoded(cond: Cond, text: TextArgument) -> tuple[Cond, bool]:
    """A conditioning with the words of what it holds, and whether its numbers are others than its encoder gave out for them:
    of ConditioningAverage, only the encoding of the other text may be left."""
    encoded = cond.get(text.encoded)
    if not isinstance(encoded, Tensor) or encoded.dim() != 3 or is_zeroed(encoded):
        return cond, False
    first = encoded[:1]  # of one text for each picture of the batch; other texts are `travelling`
    if not is_changed(cond.get(ENCODING), first, cond.get(COLUMNS)):
        return cond, False
    found = ENCODINGS.find(first)
    if found is None:
        return cond, True
    columns, tokens = found
    return {**cond, KEY: tokens, COLUMNS: columns}, False


def _text_id(cond: Cond) -> int:
    """Conditionings that ComfyUI adds for an area share the text of the one they were made from."""
    text = cond.get("model_conds", {}).get("c_crossattn")
    return id(text) if text is not None else id(cond)


def _is_several(encoded: Any) -> bool:
    """Whether an encoding `[texts, columns, d]` holds different texts, which ComfyUI deals out to the pictures of the batch."""
    return isinstance(encoded, Tensor) and encoded.dim() > 2 and bool((encoded[1:] != encoded[:1]).any())


def _prompt(cond: Cond, texts: Sequence[TextArgument]) -> Prompt:
    """The words of a conditioning at the columns that the model is given, which are more than the encoder's for some."""
    main, *further = texts
    held = [(text, one) for text in further if (one := cond.get("model_conds", {}).get(text.given)) is not None]
    prompts = [_main_prompt(cond, main), *(_further_prompt(cond, text, one.cond) for text, one in held)]
    if len(prompts) == 1:
        return prompts[0]
    if any(prompt == Prompt.by_index(prompt.length) for prompt in prompts):
        return Prompt.by_index(sum(prompt.length for prompt in prompts))
    names = [next(iter(_tokens(cond, text) or text.encoders), "") for text in (main, *(text for text, _ in held))]
    whole = concat_encoders(prompts, [encoder_name(name) for name in names])
    own = {word.label.casefold() for word in next((one.words for one in prompts if one.words), ())}
    # ByT5 reads what is quoted inside a sentence of its own, whose words are not the user's.
    return replace(whole, words=tuple(word for word in whole.words if word.label.casefold() in own))


def _main_prompt(cond: Cond, text: TextArgument) -> Prompt:
    encoded, held = cond.get(text.encoded), cond.get("model_conds", {}).get(text.given)
    given: Any = None if held is None else held.cond
    if not isinstance(encoded, Tensor):
        encoded = given
    tokens = _tokens(cond, text)
    if text.made_anew and isinstance(given, Tensor):
        own = next(iter((tokens or {}).values()), None)
        return Prompt.by_index(given.shape[1]) if own is None else pad_or_truncate(own, given.shape[1])
    prompt = context_prompt(tokens, encoded, cond.get(COLUMNS))
    if text.grows and isinstance(given, Tensor) and given.shape[1] >= prompt.length:
        return pad_or_truncate(prompt, given.shape[1])
    return placed(prompt, encoded, given) if isinstance(given, Tensor) else prompt


def _further_prompt(cond: Cond, text: TextArgument, given: Tensor) -> Prompt:
    columns, tokens = int(given.shape[-2]), _tokens(cond, text)
    if is_zeroed(given):
        return wordless(columns)
    return (of_length(tokens, columns) if tokens else None) or Prompt.by_index(columns)


def _tokens(cond: Cond, text: TextArgument) -> PromptTokens | None:
    """What the text's own encoder read, as far as the conditioning tells."""
    tokens: PromptTokens | None = cond.get(KEY)
    if not tokens or not text.encoders:
        return tokens
    return {name: prompt for name, prompt in tokens.items() if name in text.encoders}


def _area_id(cond: Cond) -> Any:
    mask = cond.get("mask")
    return (tuple(cond["area"]) if cond.get("area") is not None else None, None if mask is None else id(mask))


def _box(cond: Cond, dims: int) -> list[int] | None:
    """The area of a conditioning as ComfyUI cuts it out of a latent of so many axes: sizes, then where they begin; None where
    there is none. An area of fewer axes ((height, width, top, left) of a video) holds all frames."""
    if cond.get("area") is None:
        return None
    box = [int(n) for n in cond["area"]]
    while len(box) // 2 < dims:
        box = [_ALL, *box[: len(box) // 2], 0, *box[len(box) // 2 :]]
    return box[:dims] + box[len(box) // 2 : len(box) // 2 + dims]


def _size(cond: Cond, latent: Sequence[int]) -> tuple[int, ...]:
    """What ComfyUI cuts out of the latent for a conditioning."""
    whole = tuple(int(n) for n in latent[2:])
    box = _box(cond, len(whole))
    if box is None:
        return whole
    return tuple(min(size, n - start) for size, start, n in zip(box, box[len(whole) :], whole, strict=False))


def _area(cond: Cond, latent: Sequence[int]) -> Area:
    """Where in the picture a conditioning is at work."""
    whole, mask = latent[2:], cond.get("mask")
    box = _box(cond, len(whole))
    mask = None if mask is None else of_pictures(mask)
    if box is None:
        return WHOLE if mask is None else Area(mask=mask)
    (h, w), (top, left) = box[len(whole) - 2 : len(whole)], box[-2:]
    height, width = whole[-2:]
    return Area(top / height, left / width, min(1.0, h / height), min(1.0, w / width), mask)
