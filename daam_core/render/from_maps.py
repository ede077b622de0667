"""Short ways from `HeatMaps` and a prompt report to pictures: what `HeatMaps`, the command line and the hosts call."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import BadArgument
from ..files import png_bytes
from ..prompt.search import several
from .film_sheet import film_sheet
from .overlay import Picture
from .sheets import contact_sheet, overlay
from .tables import table
from .video import video_frames
from .word_matrix import word_matrix

if TYPE_CHECKING:
    from ..maps.heatmaps import HeatMaps
    from ..maps.prompt_report import PromptReport

MOST_WORDS = 12
"""Words of a sheet where nobody chose any."""
_NOTEBOOK_WORDS = 8
_MATRIX_WORDS = 24
_NOTEBOOK_SIDE = 256
_GREY = 96


def word_overlay(maps: HeatMaps, word: str, **options: Any) -> Picture:
    """`overlay` of one word or phrase on the recorded picture, with label and colour bar (options as there); of a video its sum
    over the frames, on the frame in its middle.

    The bar is in per cent: the share of its attention that a position gives to the word, mean over heads, layers and steps.
    """
    from ..maps.statistics import mean_probability  # late: pictures alone need no torch

    chosen: dict[str, Any] = {"label": maps.caption(word), "bar": True, "unit": "%"}
    maps = maps.sum_frames()
    return overlay(_picture(maps), mean_probability(maps, [word], maps.size)[0], **chosen | options)


def word_video(maps: HeatMaps, word: str, **options: Any) -> Iterator[Picture]:
    """`video_frames` of one word or phrase on the recorded video (options as there); where none is known, on grey at the maps'
    own frames.

    Raises:
        BadArgument: the maps are of a picture.
        WordNotFound: the prompt has no such word.
    """
    if maps.num_frames == 1:
        raise BadArgument("These maps are of one picture, and a video needs those of a video: `overlay` draws a picture.")
    count = maps.num_frames if maps.video is None else len(maps.video)
    # At the native resolution: a frame is enlarged when it is drawn.
    heats = maps.heat_map(word, frames=count) / max(1, sum(maps.num_terms.values()))
    chosen: dict[str, Any] = {"unit": "%"}
    return video_frames(_film(maps), heats, maps.caption(word), **chosen | options)


def _film(maps: HeatMaps) -> Sequence[Picture]:
    """The recorded video, or as many grey frames as the maps have."""
    if maps.video is not None:
        return list(maps.video)
    return [np.full((*maps.size, 3), _GREY, np.uint8)] * maps.num_frames


def word_sheet(maps: HeatMaps, words: Sequence[str] | None = None, **options: Any) -> Picture:
    """`contact_sheet` of the words (the strongest dozen of the content words by default) under the prompt; of a video,
    `film_sheet`."""
    from ..maps.statistics import mean_probability, size_to_draw

    names = maps.default_words(MOST_WORDS) if words is None else several(words)
    if maps.num_frames > 1:
        film = _film(maps)
        strips = dict(zip(map(maps.caption, names), maps.heat_maps(names, frames=len(film)), strict=True))
        return film_sheet(film, strips, **{"title": maps.prompt.text} | options)
    maps = maps.sum_frames()
    size = size_to_draw(maps.size, len(names))
    heats = dict(zip(map(maps.caption, names), mean_probability(maps, names, size), strict=True))
    chosen: dict[str, Any] = {"title": maps.sheet_title(names), "unit": "%"}
    return contact_sheet(_picture(maps), heats, **chosen | options)


def word_matrix_table(maps: HeatMaps, words: Sequence[str] | None = None, **options: Any) -> Picture:
    """`word_matrix` of the words (two dozen of the content words by default) under the prompt."""
    names = maps.default_words(_MATRIX_WORDS) if words is None else several(words)
    return word_matrix(names, maps.word_matrix(names).numpy(), **{"title": maps.prompt.text} | options)


def report_table(report: PromptReport, title: str = "", more: Sequence[str] = (), **options: Any) -> Picture:
    """`table` of a prompt report: one row for each word, objects that may be missing, pairs and `more` named below."""
    rows = [
        (r.word, r.share, r.peak, r.spread, f"{r.closest[0]}  {r.closest[1]:.2f}" if r.closest else "-") for r in report.words
    ]
    return table(["word", "share", "peak", "spread", "overlaps most with"], rows, [*report.notes(), *more], title, **options)


def notebook_html(maps: HeatMaps) -> str:
    """What a notebook shows of maps: a small sheet of the strongest words, or a line of text where there are none.

    Nothing of the prompt is HTML; the picture is at most 256 pixels wide and high.
    """
    from ..maps.statistics import mean_probability

    about = html.escape(repr(maps))
    maps = maps.sum_frames()
    words = maps.default_words(_NOTEBOOK_WORDS)
    if not words:
        return f"<p>{about}</p>"
    scale = min(1.0, _NOTEBOOK_SIDE / max(maps.size))
    height, width = (max(1, round(side * scale)) for side in maps.size)
    ground = np.full((height, width, 3), _GREY, np.uint8)
    if maps.picture is not None:
        ground = np.asarray(Image.fromarray(maps.picture).resize((width, height), Image.Resampling.BOX))
    sheet = contact_sheet(ground, dict(zip(words, mean_probability(maps, words), strict=True)), unit="%")
    data = base64.b64encode(png_bytes(sheet)).decode("ascii")
    return f'<figure><img alt="{about}" src="data:image/png;base64,{data}"><figcaption>{about}</figcaption></figure>'


def _picture(maps: HeatMaps) -> Picture:
    if maps.picture is None:
        raise BadArgument("This recording holds no picture; give one: `maps.with_picture(picture)`.")
    return maps.picture
