"""From heat maps and settings to labelled pictures and sentences: what the gallery, the files and the API show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from daam_core.errors import DaamLensError, DetailMissing
from daam_core.maps.heatmaps import HeatMaps
from daam_core.maps.prompt_report import PromptReport, prompt_report
from daam_core.masks.methods import MASK_METHODS
from daam_core.opencv import cv2
from daam_core.prompt.prompt import Word
from daam_core.render import Background, apply_colormap, as_heat, caption_background, overlay

from .settings import Settings

MOST_DEFAULT_WORDS = 12
"""Words that are drawn where nobody named any; a long prompt would fill the gallery."""
MOST_MISSING = 8
"""Words that are not in the prompt, each with a sentence of its own."""
NO_PICTURE = "The mask method {} follows the edges of the picture, and this record holds none. Choose best or threshold."
NO_SELF_ATTENTION = (
    "The mask method {} needs the picture's self-attention, and this run has none (inpaint “only masked”, Hypertile, token "
    "merging, or a picture too large to keep it). Choose best or threshold."
)
Picture = NDArray[np.uint8]
Kind = Literal["overlay", "map", "mask"]


@dataclass(frozen=True)
class Drawn:
    """One image of one word: uint8 `[H, W, 3]`, or `[H, W]` of 0 and 255 for a mask. `caption` is what stands beside a
    concept's."""

    kind: Kind
    word: str
    pixels: Picture
    caption: str = ""

    @property
    def shows(self) -> str:
        """The word; of a concept also that it is not in the prompt, and how likely it is in the picture."""
        return self.caption or self.word


@dataclass(frozen=True)
class Drawing:
    """Everything that is shown of one picture's maps.

    Attributes:
        words: whose images these are, concepts behind the prompt's words.
        report: what each word of the prompt did; None where there are none.
        notes: sentences about what could not be shown.
    """

    drawn: list[Drawn]
    words: list[str]
    report: PromptReport | None = None
    notes: list[str] = field(default_factory=list)


def draw(maps: HeatMaps, settings: Settings) -> Drawing:
    """Draw what the settings ask for. Never raises for a word or method that does not fit: it becomes a note."""
    notes: list[str] = []
    maps = chosen_layers(maps, settings, notes)
    words = given_words(maps, chosen_words(maps, settings, notes), notes)
    drawn = _drawn(maps, words, settings, notes)
    if settings.negative and maps.negative is not None:
        other = given_words(maps.negative, chosen_words(maps.negative, Settings(), []), notes)
        drawn += [
            Drawn(d.kind, f"negative: {d.word}", d.pixels) for d in _drawn(_on(maps.negative, maps), other, settings, notes)
        ]
    told = [word for word in words if not maps.is_concept(word)]
    return Drawing(drawn, words, prompt_report(maps, told) if told else None, list(dict.fromkeys(notes)))


def chosen_words(maps: HeatMaps, settings: Settings, notes: list[str]) -> list[str]:
    """Labels of the asked words, each once; the strongest content words where none was asked for. Concepts stand behind them,
    always all: somebody asked for each."""
    if not settings.asked_words:
        if not maps.words:
            notes.append("The prompt has no words, so there are no heat maps.")
        shown, all_words = maps.default_words(MOST_DEFAULT_WORDS), maps.default_words()
        if len(shown) < len(all_words):
            notes.append(
                f"The {len(shown)} words with the most attention are shown; there are {len(all_words) - len(shown)} more. "
                "Name those that you want under “Words”."
            )
        return shown + maps.concepts
    found: list[str] = []
    missing: list[str] = []
    for asked in settings.asked_words:
        try:
            found.append(_label(maps, asked))
        except DaamLensError as error:
            missing.append(str(error))
    notes += missing[:MOST_MISSING]
    if more := missing[MOST_MISSING:]:
        notes.append(f"{len(more)} more of the words that were asked for have no maps either.")
    return list(dict.fromkeys([*(word for word in found if word not in maps.concepts), *maps.concepts]))


def given_words(maps: HeatMaps, words: Sequence[str], notes: list[str]) -> list[str]:
    """Those of the words that the model was given at all: a softmax leaves no column without attention. Each word of the text
    that it was not given is told, whether it was asked for or not."""
    if not maps.sums:
        return list(words)
    heat = torch.stack([sums.sum((1, 2)) for sums in maps.sums.values()]).sum(0)
    missing = [word.label for word in maps.prompt.words if not heat[list(word.channels)].any()]
    if missing:
        shown = ", ".join(f"“{label[:60]}”" for label in missing[:MOST_MISSING])
        more = f" and {len(missing) - MOST_MISSING} more words" if len(missing) > MOST_MISSING else ""
        notes.append(
            f"The model was never given {shown}{more}, so there are no heat maps of that: the run ended before the step at "
            "which the prompt comes to it, or the WebUI cut the text off (its setting “Pad prompt/negative prompt (v0)” does)."
        )
    return [word for word in words if maps.is_concept(word) or heat[list(maps.prompt.find(word).channels)].any()]


def _label(maps: HeatMaps, asked: str) -> str:
    """The label of a word of the prompt, or of a concept. Raises WordNotFound."""
    if maps.is_concept(asked):
        return maps.sides["concepts"].prompt.find(asked).label
    return maps.prompt.find(asked).label


def chosen_layers(maps: HeatMaps, settings: Settings, notes: list[str]) -> HeatMaps:
    """The maps of the chosen places of the UNet."""
    if not settings.places:
        return maps
    try:
        return maps.select(layers=list(settings.places))
    except DetailMissing:
        notes.append("The layers of this run were not kept apart, so all of them are shown.")
    except DaamLensError as error:
        notes.append(str(error))
    return maps


def mask_of(maps: HeatMaps, word: str | Word, method: str, tau: float) -> Picture:
    """uint8 `[H, W]`, 255 inside. Raises what `HeatMaps.mask` raises."""
    try:
        return maps.mask(word, method, tau=tau).numpy().astype(np.uint8) * 255
    except DetailMissing as error:  # whose text says what to do in Python
        picture = maps.picture is None and MASK_METHODS[method].edge != "none"
        raise DetailMissing((NO_PICTURE if picture else NO_SELF_ATTENTION).format(method)) from error


def map_of(maps: HeatMaps, word: str | Word, colormap: str) -> Picture:
    """The map alone at the picture's size, each word to its own maximum: uint8 `[H, W, 3]`."""
    heat = np.clip(as_heat(maps.heat_map(word, maps.size)), 0, None)
    top = float(heat.max())
    return apply_colormap(heat / top if top > 0 else heat, colormap)  # type: ignore[arg-type]


def captioned_map(maps: HeatMaps, word: str | Word, colormap: str) -> Picture:
    """`map_of`; that of a concept with a line below it that says how likely it is in the picture."""
    plain, caption = map_of(maps, word, colormap), caption_of(maps, word)
    return overlay(plain, np.zeros(plain.shape[:2], np.float32), 0, label=caption) if caption else plain


def caption_of(maps: HeatMaps, word: str | Word) -> str:
    """What has to stand beside a concept's map; nothing of a word of the prompt."""
    return maps.caption(word if isinstance(word, str) else word.label) if maps.is_concept(word) else ""


def background_for(maps: HeatMaps) -> Background:
    """The picture of maps, made ready for many overlays.

    Raises:
        DetailMissing: the picture is not known (a record may come without).
    """
    if maps.picture is None:
        raise DetailMissing("This record holds no picture to lay a map over; ask for the map alone.")
    return caption_background(maps.picture)


def overlay_of(maps: HeatMaps, word: str | Word, opacity: float, colormap: str, ground: Background | None = None) -> Picture:
    """The map over its picture, with the word and a bar in per cent of a place's attention below it, of a concept how likely it
    is in the picture: uint8 `[H, W, 3]`.

    Args:
        ground: the picture, where it serves several words.

    Raises:
        DetailMissing: the picture is not known.
    """
    below, label = ground or background_for(maps), word if isinstance(word, str) else word.label
    share = maps.heat_map(word, maps.size) / max(1, sum(maps.num_terms.values()))
    # The unit stands in the bar: beside the word, a picture of the model inside has no room for it.
    return overlay(below, share, opacity, colormap, caption_of(maps, word) or label, True, unit="%")  # type: ignore[arg-type]


def _drawn(maps: HeatMaps, words: list[str], settings: Settings, notes: list[str]) -> list[Drawn]:
    drawn: list[Drawn] = []
    ground = background_for(maps) if settings.overlays else None
    for word in words:
        try:
            told = caption_of(maps, word)
            if settings.overlays:
                pixels = overlay_of(maps, word, settings.opacity, settings.colormap, ground)
                drawn.append(Drawn("overlay", word, pixels, told))
            if settings.maps:
                drawn.append(Drawn("map", word, captioned_map(maps, word, settings.colormap), told))
            if settings.masks:
                drawn.append(Drawn("mask", word, mask_of(maps, word, settings.method, settings.tau), told))
        except DetailMissing as error:
            notes.append(str(error))
        except (DaamLensError, cv2.error) as error:
            notes.append(f"“{word}” could not be drawn: {error}")
    return drawn


def _on(maps: HeatMaps, picture: HeatMaps) -> HeatMaps:
    return replace(maps, picture=picture.picture, size=picture.size)
