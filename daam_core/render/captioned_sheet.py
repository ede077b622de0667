"""Contact sheets: many small pictures with a line of text under each."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK, _WRONG = (255, 255, 255), (40, 40, 46), (205, 30, 40)


def contact_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], right: Sequence[bool] | None = None, columns: int = 8
) -> Image.Image:
    """Pictures in rows of `columns` with captions; those whose `right` is false get a red frame."""
    width, height = pictures[0].size if pictures else (128, 128)
    gap, band = 6, 26
    rows = max(1, -(-len(pictures) // columns))
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + band + gap) + gap), _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=10)
    for k, (picture, text) in enumerate(zip(pictures, captions, strict=True)):
        x, y = gap + (k % columns) * (width + gap), gap + (k // columns) * (height + band + gap)
        sheet.paste(picture.convert("RGB"), (x, y))
        if right is not None and not right[k]:
            pen.rectangle((x - 2, y - 2, x + width + 1, y + height + 1), outline=_WRONG, width=2)
        pen.text((x, y + height + 1), _wrap(text, font, width), fill=_INK, font=font, spacing=1)
    return sheet


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """At most two lines; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) == 2:
            return "\n".join(lines) + "…"
        else:
            lines.append(word)
    return "\n".join(lines)
