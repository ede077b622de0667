"""What happens under the pictures after a run, and when a mask is sent to "Inpaint upload"."""

from __future__ import annotations

import base64
import io
import json
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from daam_core.errors import BadArgument, DaamLensError

from . import hosts
from .drawing import chosen_layers, mask_of
from .gallery_runs import params_of, runs_of
from .recording_store import RECORDINGS, StoredRecording
from .report_html import report_html
from .settings import NOTE_FIELD

SEPARATOR = " · "
_FOUR_BYTES = 4

Sent = list[Any]
"""Picture, mask, prompt, negative prompt, width, height for "Inpaint upload", and a note; `gr.update()` leaves as it is."""


def refresh(info: str) -> list[Any]:
    """Report, row, choices and note after a run of the host, whether it was recorded or not.

    Args:
        info: the host's JSON about the pictures that stand in this page's gallery.
    """
    runs, note = runs_of(info), params_of(info).get(NOTE_FIELD, "")
    parts = [report_html(None, [note] if note else [])]
    if runs:  # for the page's script, which asks for its own runs first
        parts.append(f"<span class='daam-lens-runs' data-runs='{' '.join(run.id for run in runs)}' hidden></span>")
    for number, run in enumerate(runs, 1):
        if run.settings.report and run.words:
            title = f"picture {number}, seed {run.seed}" if len(runs) > 1 else ""
            parts.append(report_html(run.report, title=title, concepts=[run.maps.caption(name) for name in run.maps.concepts]))
    choices = [name for run in runs for name in _names(run)]
    if len(runs) > 1:
        choices = [f"{number}{SEPARATOR}{word}" for number, run in enumerate(runs, 1) for word in _names(run)]
    value = choices[_strongest(runs[0])] if choices else None
    return ["".join(parts), gr.update(visible=bool(choices)), gr.update(choices=choices, value=value), ""]


def send(choice: str | None, info: str) -> Sent:
    """The mask of a chosen word; the settings of the run make it."""
    try:
        run, word = _chosen(choice, runs_of(info))
        maps = chosen_layers(run.maps, run.settings, [])
        mask = mask_of(maps, word, run.settings.method, run.settings.tau)
    except DaamLensError as error:
        return _nothing(str(error))
    return _sent(run, Image.fromarray(mask))


def send_drawn(message: str) -> Sent:
    """A mask that was drawn in the explorer: JSON of the run's id and the mask as base64 PNG."""
    try:
        asked = json.loads(message)
        run, mask = RECORDINGS.find(str(asked["run"])), str(asked["mask"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return _nothing("The mask could not be read: it is not what the explorer sends. Load the page again.")
    if run is None:
        return _nothing("This picture was dropped for newer ones; make it again, or load its record.")
    try:
        return _sent(run, _mask_image(mask, run))
    except DaamLensError as error:
        return _nothing(f"The mask could not be read ({error}).")


def _mask_image(encoded: str, run: StoredRecording) -> Image.Image:
    """Raises BadArgument for anything but a PNG of the picture's size."""
    height, width = run.maps.size
    if len(encoded) > 2 * _FOUR_BYTES * height * width + 4096:
        raise BadArgument("it is larger than its picture")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=["PNG"])
        if image.size != (width, height):
            raise BadArgument(f"it has {image.size[0]} x {image.size[1]} pixels, the picture {width} x {height}")
        return image.convert("L")
    except BadArgument:
        raise
    except (OSError, ValueError, SyntaxError, ArithmeticError, LookupError) as error:  # what PIL raises for damaged files
        raise BadArgument("it is no PNG") from error


def _sent(run: StoredRecording, mask: Image.Image) -> Sent:
    picture = gr.update() if run.maps.picture is None else Image.fromarray(run.maps.picture)
    height, width = run.maps.size
    sides = [gr.update(value=side) if hosts.page_host().sends_size() else gr.update() for side in (width, height)]
    return [picture, mask, run.prompt or run.maps.prompt.text, run.negative_prompt, *sides, ""]


def _strongest(run: StoredRecording) -> int:
    """The number of the word that got most of the attention."""
    shares = [word.share for word in run.report.words] if run.report else [0.0]
    return shares.index(max(shares))


def _names(run: StoredRecording) -> list[str]:
    """What each word is called in a list: a concept with how likely it is in the picture."""
    return [run.maps.caption(word) for word in run.words]


def _chosen(choice: str | None, runs: list[StoredRecording]) -> tuple[StoredRecording, str]:
    if not runs or not choice:
        raise BadArgument("There is no mask to send: make a picture with DAAM Lens first.")
    if len(runs) == 1:
        return runs[0], _word(runs[0], choice)
    head, _, word = choice.partition(SEPARATOR)
    if not head.isdecimal() or not 1 <= int(head) <= len(runs):
        raise BadArgument("Choose a word of the pictures above.")
    run = runs[int(head) - 1]
    return run, _word(run, word)


def _word(run: StoredRecording, name: str) -> str:
    """The word that is called so in a list."""
    return dict(zip(_names(run), run.words, strict=True)).get(name, name)


def _nothing(why: str) -> Sent:
    return [*(gr.update() for _ in range(6)), f"<p class='daam-lens daam-lens-note'>{escape(why)}</p>"]
