"""Reads a picture that was not made here by the model that the host has loaded, and keeps it as a recording."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
import logging
from dataclasses import dataclass
from typing import Any

from daam_core.defaults import DEFAULT_NOISE
from daam_core.errors import BadArgument, DaamLensError, NothingRecorded, UnsupportedModel
from daam_core.maps.crop import cut_back
from daam_core.picture_files import load_picture
from daam_core.picture_input import checked_picture, padded, reading_size, scaled
from daam_core.prompt.concepts import TEMPLATE, concepts_of, concepts_prompt
from daam_core.types import Image
from daam_core.validate import IN_THE_PICTURE, checked_levels, checked_prompt

from . import hosts
from .drawing import draw
from .recording_session import RecordingSession
from .recording_store import RECORDINGS, StoredRecording
from .settings import Settings

logger = logging.getLogger("daam_lens")
CELL = 64
"""Sides of a picture are padded to multiples of so many pixels: every UNet halves its latent three times at most."""
MOST_MEGAPIXELS = 4.0
NOT_HERE = (
    "SD.Next's own model is not shown pictures yet. `daam-lens read` reads a picture with any pipeline of diffusers, and its "
    "record opens in this tab."
)
ELSEWHERE = (
    "The WebUI is set to let a service on another machine paint, which would be sent the prompt and paint its own. "
    "Choose a model of this machine to read a picture."
)
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Reading:
    """What is read.

    Attributes:
        picture: uint8 `[H, W, 3]`.
        prompt: what is in it; where it is empty the concepts make one.
        concepts, template: as in `Settings`.
        noise: levels in thousandths of the training, 1..999.
        samples: noises drawn for each level.
        seed: same seed, same noise.
        megapixels: at how many million pixels the model reads; 0 is the model's own number.
        detail: keep layers and levels (steps) apart.
    """

    picture: Image
    prompt: str = ""
    concepts: str = ""
    template: str = TEMPLATE
    noise: tuple[float, ...] = DEFAULT_NOISE
    samples: int = 1
    seed: int = 0
    megapixels: float = 0.0
    detail: bool = False


def read_picture(asked: Reading, user: str = "") -> tuple[StoredRecording, list[str]]:
    """The maps of a picture, among the recordings from now on, and sentences about what could not be done.

    Args:
        user: whose run it is, see `StoredRecording`.

    Raises:
        BadArgument: no picture, or levels, samples, a seed or a size that cannot be.
        BadPrompt: there is nothing to look for.
        UnsupportedModel: the loaded checkpoint is none that reads pictures, or failed at it; or the host lets a service paint.
        NothingRecorded: its attention could not be recorded; the text says why.
    """
    if hosts.paints_with_pipelines():
        raise UnsupportedModel(NOT_HERE)
    if hosts.page_host().paints_elsewhere():
        raise UnsupportedModel(ELSEWHERE)
    picture = checked_picture(asked.picture)
    levels = checked_levels(asked.noise, asked.samples)
    if isinstance(asked.seed, bool) or not 0 <= asked.seed <= LARGEST_SEED:
        raise BadArgument(f"seed is a whole number from 0 to {LARGEST_SEED}, not {asked.seed}.")
    if not 0 <= asked.megapixels <= MOST_MEGAPIXELS:
        raise BadArgument(f"megapixels is a number from 0 (the model's own) to {MOST_MEGAPIXELS:g}, not {asked.megapixels}.")
    prompt, concepts = asked.prompt, asked.concepts
    if concepts.strip():
        concepts_of(concepts, asked.template)
        if not prompt.strip():
            prompt, concepts = concepts_prompt(concepts), ""
    text = checked_prompt(prompt, wanted=IN_THE_PICTURE)
    settings = Settings(True, concepts=concepts, template=asked.template, detail=asked.detail, overlays=False)
    session = RecordingSession(settings, hosts.current())
    try:
        return _read(picture, text, levels, asked, session, user)
    finally:
        session.close()


def _read(
    picture: Image, prompt: str, levels: tuple[float, ...], asked: Reading, session: RecordingSession, user: str
) -> tuple[StoredRecording, list[str]]:
    from .hosts.reading import pixels_of_model, show

    size = reading_size((picture.shape[0], picture.shape[1]), asked.megapixels * 1e6 or pixels_of_model())
    small = scaled(picture, size)
    whole = padded(small, CELL)
    try:
        show(whole, prompt, levels, asked.seed, session)
    except DaamLensError:
        raise
    except Exception as error:  # whatever the host's own run raises: out of memory, another extension
        logger.error("DAAM Lens: the host could not show the picture to its model", exc_info=error)
        raise UnsupportedModel(
            f"The WebUI could not show the picture to its model ({type(error).__name__}); its console says more. Make a "
            "picture with this checkpoint first, and read at fewer megapixels where memory ran out."
        ) from error
    found = next((maps for _, maps in session.heat_maps()), None)
    if found is None:
        raise NothingRecorded("The model was shown the picture, and nothing was recorded.")
    maps = dataclasses.replace(found, size=(whole.shape[0], whole.shape[1]), picture=None)
    maps = cut_back(maps, (small.shape[0], small.shape[1]), picture)
    drawing = draw(maps, session.settings)
    kept = RECORDINGS.keep(maps, session.settings, drawing.words, asked.seed, prompt, "", drawing.report, user)
    return kept, [*session.concept_failures(), *drawing.notes]


def picture_of(encoded: Any) -> Image:
    """A picture file as base64 text, or as a `data:` address. Raises BadArgument."""
    if not isinstance(encoded, str):
        raise BadArgument("image is a picture file as base64 text.")
    try:
        data = base64.b64decode(encoded.partition(",")[2] if encoded.startswith("data:") else encoded, validate=True)
    except (binascii.Error, ValueError):
        raise BadArgument("image is a picture file as base64 text, and this is no base64.") from None
    return load_picture(io.BytesIO(data))
