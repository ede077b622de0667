"""`HeatMaps`: the one noun of DAAM Lens. Which word the model attended to, for every position of one picture.

In the examples, `maps` is a recording of "a red house and a green tree" with the negative prompt "blurry star", 2 steps of the
model inside at 32 x 64 pixels (height x width), made with
`trace(pipe, keep=("layers", "steps", "heads"), negative=True, concepts=["sun"])`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from . import safetensors_file, serialization
from .comparison import Comparison, compare
from .data import Aggregation as Aggregation
from .mask_verbs import MaskVerbs
from .picture_statistics import Statistics
from .relation_verbs import RelationVerbs
from .serialization import RULES as RULES
from .verbs import Verbs


@dataclass(frozen=True, eq=False, repr=False)
class HeatMaps(MaskVerbs, RelationVerbs, Verbs):
    """The heat maps of one picture: its two sides and the picture itself. Frozen: every verb returns a new value, and works on
    both sides.

    Maps of a video have an axis of frames (`maps.num_frames` above 1): `[frames, h, w]` where those of a picture are `[h, w]`.
    `maps.select(frames=[0])` is one of them, as a picture; `maps.sum_frames()` all of them as one. Figures, reports and contact
    sheets are of their sum.

    What is asked without naming a side (`maps.heat_map`, `maps.words`, `maps.sums`, …) is the prompt's; `maps.negative` is the
    same picture for the negative prompt.

    Attributes:
        sides: "prompt", and "negative" where the negative prompt was recorded.
        size: (height, width) of the picture in pixels.
        picture: uint8 `[H, W, 3]` RGB, where the picture is known; of a video the frame in its middle.
        video: of a video, its frames, uint8 `[frames, H, W, 3]` RGB, where they are known.

    Example:
        >>> maps.words
        ['a', 'red', 'house', 'and', 'a#2', 'green', 'tree']
        >>> maps.size, maps.grid, maps.steps
        ((32, 64), (4, 8), 2)
        >>> maps
        HeatMaps('a red house and a green tree': 7 words, 64 x 32 pixels, grids 4x8 2x4 1x2, 2 steps, with negative)
    """

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held: the tensors of both sides and the picture."""
        pictures = sum(int(x.nbytes) for x in (self.picture, self.video) if x is not None)
        return pictures + sum(side.nbytes for side in self.sides.values())

    def __repr__(self) -> str:
        height, width = self.size
        grids = " ".join(f"{h}x{w}" for h, w in sorted(self.sums, reverse=True))
        both = ", with negative" if "negative" in self.sides else ""
        words = f"{self.prompt.text[:60]!r}: {len(self.words)} words"
        frames = f"{self.num_frames} frames, " if self.num_frames > 1 else ""
        return f"HeatMaps({words}, {width} x {height} pixels, {frames}grids {grids}, {self.steps} steps{both})"

    def compare(self, before: HeatMaps, words: Sequence[str] | None = None) -> Comparison:
        """What changed since another recording of the prompt at the same seed: with a LoRA and without it, say.

        Args:
            before: the recording to compare with.
            words: words of both prompts; by default the content words of this one that the other has, too.

        Returns:
            For each word how much of its heat lies elsewhere, what it gained and lost (`lines()`), where
            (`difference("house")`, float32 `[h, w]`, -1..1), and drawn (`overlay("house")`).

        Raises:
            WordNotFound: one of the prompts has no such word.
            BadArgument: the prompts share no word, or the pictures have other proportions.

        Example:
            >>> early, late = maps.select(steps=[0]), maps.select(steps=[1])
            >>> found = late.compare(early, ["house", "tree"])
            >>> [change.word for change in found.changes], 0 < found.moved < 1
            (['house', 'tree'], True)
            >>> maps.compare(maps).moved
            0.0
        """
        return compare(self, before, words)

    def overlay(self, query: str, **options: Any) -> PIL.Image.Image:
        """The heat of a word or phrase over the picture, with its name and a colour bar.

        Args:
            query: word or phrase.
            options: those of `render.overlay`: opacity, colormap, label, bar, top, theme, enlarge.

        Returns:
            A picture of Pillow, RGB; larger than the recorded picture by its caption, and enlarged where that is small.

        Raises:
            WordNotFound: the prompt has no such word.
            BadArgument: the recording holds no picture (`with_picture` gives it one), or an option outside its range.

        Example:
            >>> maps.overlay("house", opacity=0.5).mode
            'RGB'
        """
        from ..render import word_overlay  # drawing needs maps only when it is asked for, and stands above them

        return PIL.Image.fromarray(word_overlay(self, query, **options))

    def contact_sheet(self, words: Sequence[str] | None = None, **options: Any) -> PIL.Image.Image:
        """The picture and the overlays of several words on one sheet, under the prompt; of a video, strips of its frames.

        Args:
            words: the dozen strongest content words by default.
            options: those of `render.contact_sheet`: title, opacity, colormap, same_scale, columns, theme, enlarge.

        Returns:
            A picture of Pillow, RGB.

        Raises:
            WordNotFound: the prompt has no such word.
            BadArgument: the recording holds no picture, or the sheet would be larger than 8192 x 8192 pixels.

        Example:
            >>> sheet = maps.contact_sheet(["house", "tree"])
            >>> sheet.save("sheet.png")
        """
        from ..render import word_sheet

        return PIL.Image.fromarray(word_sheet(self, words, **options))

    def save_video(self, query: str, path: str | Path, fps: float = 16.0, **options: Any) -> Path:
        """Write a video with the heat of a word or phrase over it; the largest heat of all frames gets the brightest colour.

        Args:
            query: word or phrase.
            path: ends with `.mp4` (H.264, needs PyAV: `pip install "daam-lens[video]"`), `.webp` or `.gif`.
            fps: frames a second, 1 .. 60.
            options: those of `render.video_frames`: opacity, colormap, top, theme, enlarge.

        Returns:
            The path that was written: `.webp` in place of `.mp4` where PyAV is not installed.

        Raises:
            WordNotFound: the prompt has no such word.
            BadArgument: the maps are of a picture, or the video has more frames or pixels than can be written.
            CannotWrite: no such folder, no permission, disk full.

        Example:
            >>> maps.save_video("house", "house.mp4")
            Traceback (most recent call last):
            daam_core.errors.BadArgument: These maps are of one picture, and a video needs those of a video: ...
        """
        from ..render import word_video, write_video

        return write_video(word_video(self, query, **options), path, fps)

    def word_matrix_picture(self, words: Sequence[str] | None = None, **options: Any) -> PIL.Image.Image:
        """`word_matrix` drawn as a table: a row for each word that attends, a column for each that is attended to.

        Args:
            words: two dozen of the content words by default.
            options: those of `render.word_matrix`: title, theme, colormap.

        Returns:
            A picture of Pillow, RGB.

        Raises:
            DetailMissing: text->text was not recorded; the text says how to.
            WordNotFound: the prompt has no such word.
            BadArgument: no word, or more than 64.

        Example:
            >>> maps.word_matrix_picture()
            Traceback (most recent call last):
            daam_core.errors.DetailMissing: What the text attended to was not recorded. Record with ...
        """
        from ..render import word_matrix_table

        return PIL.Image.fromarray(word_matrix_table(self, words, **options))

    def statistics(self) -> Statistics:
        """Figures about the maps: share, mean probability, words of a region, the prompt report.

        Example:
            >>> maps.statistics().report().words[0].word
            'red'
        """
        return Statistics(self)

    def _repr_html_(self) -> str:
        """What Jupyter shows: a small sheet of the strongest words."""
        from ..render import notebook_html

        return notebook_html(self)

    def save(self, path: str | Path) -> Path:
        """Write one `.safetensors` record with both sides and the picture.

        Args:
            path: the file; `.safetensors` is added to a name that does not end with it.

        Returns:
            The path that was written.

        Raises:
            CannotWrite: no such folder, no permission, disk full.

        Example:
            >>> path = maps.save("house")
            >>> path.name
            'house.safetensors'
            >>> bool((HeatMaps.load(path)["house"] == maps["house"]).all())
            True
        """
        return safetensors_file.write(path, *serialization.pack(self))

    @classmethod
    def load(cls, path: str | Path) -> HeatMaps:
        """Read a record that `save` wrote, of this version or of 0.1.0. Nothing but data is read: no pickle, no code.

        Raises:
            BadRecord: one sentence for anything that is not one of ours, whole, and of a version that is known.

        Example:
            >>> HeatMaps.load("nowhere")
            Traceback (most recent call last):
            daam_core.errors.BadRecord: There is no record at nowhere.
        """
        return cls(*serialization.unpack(*safetensors_file.read(path)))
