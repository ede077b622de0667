"""What the script was asked for: its arguments in order, their checks, and their names in the infotext."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from daam_core.capture.buffers import StoreOptions
from daam_core.defaults import DEFAULT_OPACITY, DEFAULT_TAU
from daam_core.errors import BadArgument
from daam_core.masks.methods import MASK_METHODS
from daam_core.prompt.alignment import LONE_SURROGATES
from daam_core.prompt.concepts import TEMPLATE, Concept, concepts_of

COLORMAPS = ("ember", "lagoon", "gray")
LONGEST_TEXT = 16384
"""Characters of a text: 64 concepts of 200, each with a comma behind."""
FORMER_NAMES = {"colours": "colormap"}
"""Names of version 0.1.0 that are still taken: in arguments, infotexts and requests."""
BLOCKS = ("down", "mid", "up")
PASSES = ("first", "second", "both")
NO_PASS = (
    "A picture was made without the {} pass of hires fix, which was to be recorded (the run was stopped before it, its "
    "settings leave it out, or the first pass's picture was there already), so it has no heat maps. Choose “both” under "
    "“Hires fix pass”."
)
"""What is told where that pass was not sampled."""
INFOTEXT = "DAAM Lens"
RUNS_FIELD, NOTE_FIELD = f"{INFOTEXT} runs", f"{INFOTEXT} note"
"""Among the parameters that the host tells its page and its API's clients after a run: ids of runs; what went wrong."""


@dataclass(frozen=True)
class Settings:
    """The script's arguments; their order is that of the API's `args`.

    Attributes:
        enabled: record at all.
        words: words and phrases, separated by commas; empty is every content word of the prompt.
        overlays, maps, masks: what goes into the gallery and beside the picture, one image per word.
        opacity: of the overlays, 0..1.
        colormap: one of COLORMAPS.
        method: how masks are made, see `daam_core.masks.methods.MASK_METHODS`.
        tau: threshold as a share of the maximum, 0..1.
        negative: the negative prompt too.
        hires: which pass of hires fix is recorded, one of PASSES.
        detail: keep steps and layers apart.
        record: save a record beside the picture.
        report: what each word did, under the picture.
        layers: "down", "mid", "up", separated by commas; empty or "all" is all of them.
        concepts: words and phrases to look for that are not in the prompt, by commas or lines, up to 64.
        template: what each of them is put into before it is encoded, with `{}` in it.
        live_word: whose heat is shown over the host's preview while it samples; empty is nobody's. It says nothing about the
            picture, so no infotext tells of it.
    """

    enabled: bool = False
    words: str = ""
    overlays: bool = True
    maps: bool = False
    masks: bool = False
    opacity: float = DEFAULT_OPACITY
    colormap: str = "ember"
    method: str = "best"
    tau: float = DEFAULT_TAU
    negative: bool = False
    hires: str = "both"
    detail: bool = False
    record: bool = False
    report: bool = True
    layers: str = ""
    concepts: str = ""
    template: str = TEMPLATE
    live_word: str = ""

    @classmethod
    def from_args(cls, args: Sequence[Any]) -> Settings:
        """From the script's arguments in order; missing ones keep their defaults, and one mapping may name them instead.

        Raises:
            BadArgument: an argument of another type or outside its range.
        """
        if args and isinstance(args[0], Mapping):
            named = {FORMER_NAMES.get(str(name), str(name)): value for name, value in args[0].items()}
            if unknown := sorted(set(map(str, named)) - set(NAMES)):
                raise BadArgument(f"There is no setting {_shown(unknown[0])}; there are {', '.join(NAMES)}.")
        else:
            named = dict(zip(NAMES, args, strict=False))
        return cls(**{name: _checked(name, value) for name, value in named.items()})

    def changed(self, **values: Any) -> Settings:
        """The same with other values, checked. Raises BadArgument."""
        return replace(self, **{name: _checked(name, value) for name, value in values.items()})

    @property
    def keep(self) -> StoreOptions:
        """What the accumulator keeps apart."""
        return StoreOptions(layers=self.detail or bool(self.places), steps=self.detail, self_attention=True)

    @property
    def draws(self) -> bool:
        """Whether anything goes into the gallery."""
        return self.overlays or self.maps or self.masks

    @property
    def places(self) -> tuple[str, ...]:
        """The chosen places of the UNet; none is all of it."""
        chosen = tuple(part.strip() for part in self.layers.split(",") if part.strip())
        return () if "all" in chosen else chosen

    @property
    def asked_words(self) -> list[str]:
        """The words as typed, one by one; none is all content words."""
        return list(dict.fromkeys(" ".join(part.split()) for part in self.words.split(",") if part.strip()))

    def asked_concepts(self) -> tuple[Concept, ...]:
        """What is looked for besides the prompt's words. Raises BadArgument."""
        return concepts_of(self.concepts, self.template) if self.concepts.strip() else ()

    def infotext(self) -> dict[str, Any]:
        """`DAAM Lens…` fields for a picture's infotext: that it was on, and what is not the default."""
        shown = {INFOTEXT: "on"}
        for name in PASTED[1:]:
            value = getattr(self, name)
            if value != getattr(Settings(), name):
                shown[field_name(name)] = value
        return shown


NAMES: tuple[str, ...] = tuple(f.name for f in fields(Settings))
PASTED = tuple(name for name in NAMES if name != "live_word")
"""Settings that an infotext tells and brings back."""


def field_name(name: str) -> str:
    """A setting's name in the infotext: `DAAM Lens words`."""
    return INFOTEXT if name == "enabled" else f"{INFOTEXT} {name}"


def pasted(name: str, params: Mapping[str, Any]) -> Any:
    """A setting's value out of a pasted infotext: its own, the default where the picture had it on, None otherwise."""
    if INFOTEXT not in params:
        return None
    if name == "enabled":
        return True
    default = getattr(Settings(), name)
    former = next((old for old, new in FORMER_NAMES.items() if new == name), name)
    value = params.get(field_name(name), params.get(field_name(former), default))
    try:
        return value if isinstance(default, bool) and isinstance(value, bool) else _checked(name, _typed(default, value))
    except BadArgument:
        return default


def _typed(default: Any, value: Any) -> Any:
    if isinstance(default, bool):
        return str(value) == "True"
    if isinstance(default, float):
        try:
            return float(value)
        except ValueError:
            return default
    return str(value)


def _checked(name: str, value: Any) -> Any:
    default = getattr(Settings(), name)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise BadArgument(f"DAAM Lens: {name} is true or false, not {_shown(value)}.")
        return value
    if isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or not 0 <= value <= 1:
            raise BadArgument(f"DAAM Lens: {name} is a number from 0 to 1, not {_shown(value)}.")
        return float(value)
    if not isinstance(value, str):
        raise BadArgument(f"DAAM Lens: {name} is a text, not {_shown(value)}.")
    if len(value) > LONGEST_TEXT:
        raise BadArgument(f"DAAM Lens: {name} is a text of up to {LONGEST_TEXT} characters; this one has {len(value)}.")
    if LONE_SURROGATES.search(value):  # the host could not write its infotext, nor the picture that it stands in
        raise BadArgument(f"DAAM Lens: {name} holds a broken character. Type it again (as UTF-8).")
    known = {"colormap": COLORMAPS, "hires": PASSES, "method": tuple(MASK_METHODS)}.get(name)
    if known and value not in known:
        raise BadArgument(f"DAAM Lens: {name} is one of {', '.join(known)}, not {_shown(value)}.")
    if name == "layers" and (wrong := [p for p in value.split(",") if p.strip() not in ("", "all", *BLOCKS)]):
        raise BadArgument(f"DAAM Lens: layers are down, mid or up, or all, not {_shown(wrong[0].strip())}.")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
