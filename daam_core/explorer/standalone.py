"""`explorer.html`: the explorer, its data and the picture in one file that opens from disk.

A page opened from disk may not import modules, so the component's files are joined into one module script. The rule:
`ORDER` lists the files so that each stands after those it imports; lines of `import {…} from "./x.js";` are left out,
and so is the word `export` before a declaration. It needs what the files keep to: no default or renamed import, and
every top-level name in all files different (tests/web holds them to it).
"""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CannotWrite
from ..files import png_bytes, write_text
from ..maps.heatmaps import HeatMaps
from .page_data import Axis, PageData, detail_data, page_data
from .selection import server_methods

ORDER = (
    "tables", "colours", "texts", "local", "dom", "png", "upscale", "page_data", "detail", "ranking", "masks", "morphology",
    "model", "choice", "refining", "saving", "chips", "mask_panel", "scrubber", "sheets", "stage", "legend", "painting",
    "toolbar", "relations", "layout", "screen", "sources", "style", "explorer", "standalone",
)  # fmt: skip
LARGEST_DETAIL = 4_000_000
"""Bytes of one axis of detail that a file carries; where there is more, the file goes without."""
LARGEST_FRAME = 768
"""Pixels of the longer side of a video's frames inside the file."""
LARGEST_FILM = 12_000_000
"""Characters of all of them; where there are more, heat moves over the frame in the middle."""
LARGEST_SIDE = 2048
"""Pixels of the picture's longer side inside the file; maps and masks keep the picture's own size."""

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.js";\n', re.M)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) )", re.M)
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:{connect}"
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>DAAM Lens explorer</title>
<style>html {{ color-scheme: light dark; background: light-dark(#f7f5f2, #16151b); }} body {{ margin: 0; }}</style>
<body></body>
<script type="application/json" id="daam-data">{data}</script>
<script type="module">
{script}
start(document);
</script>
</html>
"""


def web_folder() -> Path:
    """The component's files: in a checkout `web/explorer`, in an installed package `explorer_web`.

    Raises:
        CannotWrite: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "explorer_web", package.parent / "web" / "explorer"):
        if (folder / "explorer.js").is_file():
            return folder
    raise CannotWrite("The explorer's files (web/explorer) are missing from this installation; install DAAM Lens again.")


def script() -> str:
    """All modules as one, by the rule at the top of this file."""
    parts = [(web_folder() / f"{name}.js").read_text(encoding="utf-8") for name in ORDER]
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", part)) for part in parts)


def explorer_html(maps: HeatMaps, masks_from: str | None = None, record: str | None = None) -> str:
    """The whole file as text.

    Args:
        maps: one picture's.
        masks_from: where a server that serves this page takes a choice (JSON, POST) and gives the mask of its words before
            clean-up (8-bit grey PNG); a file on disk has none.
        record: the name of the file that holds these maps, where there is one: the page then says how to make masks from it.
    """
    page = page_data(maps)
    details = {axis: data.as_json() for axis, data in _details(maps, page).items()}
    for axis in ("steps", "layers", "frames"):
        page.header["detail"][axis] = axis in details
    film = _film_addresses(maps) if "frames" in details else []
    data = {**page.as_json(), "picture": _picture_address(maps), "film": film, "details": details, "record": record}
    if masks_from is not None:
        data["server"] = {"methods": server_methods(maps), "masks": masks_from}
    policy = _POLICY.format(connect="" if masks_from is None else "; connect-src 'self'")
    return _PAGE.format(policy=policy, data=_safe_json(data), script=script())


def write_explorer(maps: HeatMaps, path: Path, record: str | None = None) -> Path:
    """The page as a file; `record` is the name of the maps' own file. Raises CannotWrite."""
    return write_text(path, explorer_html(maps, record=record))


def _details(maps: HeatMaps, page: PageData) -> dict[Axis, PageData]:
    axes: tuple[Axis, ...] = ("steps", "layers", "frames")
    found = {axis: detail_data(maps, axis) for axis in axes if page.header["detail"][axis] and maps.words}
    return {axis: data for axis, data in found.items() if len(data.atlas) <= LARGEST_DETAIL}


def _picture_address(maps: HeatMaps) -> str | None:
    if maps.picture is None:
        return None
    picture = Image.fromarray(maps.picture)
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    # A small picture stays exact; a photograph of megapixels would make the file ten times as large for nothing.
    small = max(picture.size) <= 512
    kind, content = ("png", png_bytes(np.asarray(picture))) if small else ("jpeg", _jpeg(picture))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _film_addresses(maps: HeatMaps) -> list[str]:
    """The picture of each frame of a video's maps, none where the video is not known or takes more than `LARGEST_FILM`."""
    if maps.video is None or maps.frames is None:
        return []
    addresses: list[str] = []
    for at in maps.frames.places(len(maps.video)):
        picture = Image.fromarray(maps.video[round(at)])
        picture.thumbnail((LARGEST_FRAME, LARGEST_FRAME))
        addresses.append(f"data:image/jpeg;base64,{base64.b64encode(_jpeg(picture, 80)).decode('ascii')}")
    return addresses if sum(map(len, addresses)) <= LARGEST_FILM else []


def _jpeg(picture: Image.Image, quality: int = 92) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _safe_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever the prompt says."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A prompt may hold half a surrogate pair, which no file can: it becomes the sign for a broken character.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
