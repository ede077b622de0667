"""What is drawn, appended behind the pictures and saved beside them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from PIL import Image

from daam_core.errors import DaamLensError, reason_of
from daam_core.files import file_names
from daam_core.maps.heatmaps import HeatMaps

from .drawing import Drawing, draw
from .finished_image import FinishedImage
from .hosts import PageHost
from .nested_runs import asked_by
from .recording_store import RECORDINGS, StoredRecording
from .settings import Settings

logger = logging.getLogger("daam_lens")


class Session(Protocol):
    """One recorded run of the host.

    Attributes:
        settings: what was asked for.
        failure: why there are no maps; empty where there are.
        finished: the pictures that the host finished.
    """

    settings: Settings
    failure: str

    @property
    def finished(self) -> Sequence[FinishedImage]: ...

    @property
    def host(self) -> PageHost: ...

    def heat_maps(self) -> Iterator[tuple[FinishedImage, HeatMaps]]:
        """The maps of every finished picture. Raises NothingRecorded where there are none."""

    def notes(self) -> list[str]:
        """What has to be said of the maps, and of what else was asked for, such as why there are no concepts."""


class GalleryResult:
    """What one run of the host showed: for the page and the API.

    Attributes:
        runs: the recorded pictures, in the order of the pictures.
        notes: sentences about what could not be done.
    """

    def __init__(self) -> None:
        self.runs: list[StoredRecording] = []
        self.notes: list[str] = []


UNTOLD = (
    "This WebUI made a picture without telling DAAM Lens of it, so there are no heat maps. "
    "DAAM Lens works in AUTOMATIC1111, Forge, reForge, Forge classic, Forge Neo and SD.Next."
)
INNER = (
    "A script works on with the pictures of this run, so no heat map was put among them: "
    "the maps are in the tab DAAM Lens, and beside the pictures where these are saved."
)
UPSCALED = (
    "The WebUI's button for hires fix gives the gallery one text for all that it puts there, so no heat map was put behind the "
    "picture: the maps are in the tab DAAM Lens, and beside the picture where it is saved."
)
NOT_GIVEN = (
    "The model was not given the negative prompt, so it has no heat maps: hosts leave it out at a CFG scale of 1, and in steps "
    "that a setting keeps from it (“Negative Guidance minimum sigma”, “Ignore negative prompt during early sampling”)."
)


def show(session: Session, p: Any, processed: Any, append: bool = True, apart: str = INNER) -> GalleryResult:
    """Draw and save what was asked for, and `append` it to the host's results; else `apart` says where it is. Never raises:
    what goes wrong becomes a note."""
    shown, user = GalleryResult(), asked_by(p)
    try:
        for finished, maps in session.heat_maps():
            drawing = draw(maps, session.settings)
            shown.notes += drawing.notes
            if append:
                _append(processed, drawing, finished)
            if finished.saved:
                shown.notes += _save(session, p, drawing, maps, finished, _infotext(processed, finished))
            prompt, negative = (str(texts[_number(processed, finished)]) for texts in (p.all_prompts, p.all_negative_prompts))
            if session.settings.negative and maps.negative is None and negative.strip():
                shown.notes.append(NOT_GIVEN)
            kept = RECORDINGS.keep(maps, session.settings, drawing.words, finished.seed, prompt, negative, drawing.report, user)
            shown.runs.append(kept)
        shown.notes += session.notes()
        if not session.finished and not session.failure:
            shown.notes.append(UNTOLD if processed.images else "No picture was finished, so there are no heat maps.")
    except DaamLensError as error:
        if not session.failure:  # one picture has none, others may have
            shown.notes += session.notes()
        shown.notes.append(str(error))
    except Exception as error:
        logger.error("DAAM Lens could not show its maps", exc_info=error)
        shown.notes.append(f"The heat maps could not be shown; the picture is as it should be. The reason: {reason_of(error)}.")
    if shown.runs and not append:
        shown.notes.append(apart)
    shown.notes = list(dict.fromkeys(shown.notes))
    return shown


def _append(processed: Any, drawing: Drawing, finished: FinishedImage) -> None:
    info = _infotext(processed, finished)
    while len(processed.infotexts) < len(processed.images):  # masks that the host appended without a text
        processed.infotexts.append(processed.info)
    # What another script shows behind all pictures (`extra_images`) has its texts behind theirs.
    for drawn in drawing.drawn:
        image = Image.fromarray(drawn.pixels).convert("RGB")  # hosts write into all three channels
        text = f"{info}, DAAM Lens shows: {_quoted(f'{drawn.kind} {drawn.shows}')}"
        image.info["parameters"] = text
        processed.infotexts.insert(len(processed.images), text)
        processed.images.append(image)


def _infotext(processed: Any, finished: FinishedImage) -> str:
    """What the host writes of a picture."""
    if finished.info:
        return str(finished.info)
    at, seed = int(processed.index_of_first_image) + _number(processed, finished), f"Seed: {finished.seed},"
    text = str(processed.infotexts[at] if at < len(processed.infotexts) else processed.info)
    # SD.Next puts what a detector found among the pictures, with a text of its own.
    return text if seed in text else next((str(other) for other in processed.infotexts if seed in str(other)), text)


def _number(processed: Any, finished: FinishedImage) -> int:
    """Which picture of the host's run it is."""
    return finished.iteration * int(processed.batch_size) + finished.image


def _quoted(word: str) -> str:
    """A value as the host's infotexts quote it."""
    return json.dumps(word, ensure_ascii=False) if any(c in word for c in ',:\n"') else word


def _save(session: Session, p: Any, drawing: Drawing, maps: HeatMaps, finished: FinishedImage, info: str) -> list[str]:
    """Write the drawn images, and the record where asked for. Returns what went wrong."""
    names = file_names([f"{drawn.kind}-{drawn.word}" for drawn in drawing.drawn])
    try:
        for drawn, name in zip(drawing.drawn, names, strict=True):
            image = Image.fromarray(drawn.pixels).convert("RGB")
            text = f"{info}, DAAM Lens shows: {_quoted(f'{drawn.kind} {drawn.shows}')}"
            saved = session.host.save(image, p, finished.file, f"-daam-{name}", finished.seed, finished.prompt, text)
            finished.file = finished.file or _picture_of(saved, f"-daam-{name}")
        if session.settings.record:
            maps.save(_record_path(p, finished))
    except Exception as error:  # the host's saver calls other extensions
        logger.error("DAAM Lens could not write its files", exc_info=error)
        return [f"The heat maps could not be written ({error}). They are in the gallery all the same."]
    return []


def _picture_of(saved: str, suffix: str) -> str:
    stem, _ = os.path.splitext(saved)
    return f"{stem.removesuffix(suffix)}.png"


def _record_path(p: Any, finished: FinishedImage) -> str:
    if finished.file:
        return f"{os.path.splitext(finished.file)[0]}-daam.safetensors"
    return os.path.join(p.outpath_samples, f"daam-{finished.seed}-{finished.iteration}-{finished.image}.safetensors")
