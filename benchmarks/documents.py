"""Figures and lists in the documents, written there from where they are measured or defined.

A document marks a place with `<!-- NAME -->…<!-- / -->`; `python -m benchmarks.documents` puts the present text between
them, and every benchmark does so when it has written its section of results.md. A test fails where a document lags behind.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .results_summary import mask_summary

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results.md"
WEBUI_CHECKS = ROOT / "tests" / "webui" / "checked_models.json"
DOCUMENTS = (
    "README.md",
    "docs/scale.md",
    "docs/python.md",
    "docs/models.md",
    "docs/errors.md",
    "docs/equation.md",
    "docs/castorini.md",
    "docs/results.md",
    "web/docs/DaamLensRecord.md",
    "daam_core/tiny/MODEL_CARD.md",
)
_PLACE = re.compile(r"<!-- (?P<name>[\w.-]+) -->(?P<text>.*?)<!-- / -->", re.S)
_LAYOUT = "SDXL layout, tiny channels, 128 px (host-bound)"
_SDXL_STEP = f"Cost of a step: {_LAYOUT}"
_TINY_STEP = "Cost of a step: the model inside, 128 px"
_FINISH = "From recording to picture-sized maps"


@dataclass(frozen=True)
class Figure:
    """One cell of a table of results.md.

    Attributes:
        section: its heading.
        row: cells that the row has, by column.
        column: which cell it is.
        show: from the cell's number, without its unit, to what the document says.
    """

    section: str
    row: Mapping[str, str]
    column: str
    show: Callable[[float], str]


def _more(ratio: float) -> str:
    percent = round(100 * (ratio - 1))
    return f"{percent:+d} %" if percent else "0 %"


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def _megabytes(value: float) -> str:
    return f"{value:.1g} MB" if value < 1 else f"{value:.0f} MB" if value < 1000 else f"{value / 1000:.1f} GB"


_OURS, _WORDS, _THEIRS = {"with": "DAAM Lens"}, {"with": "DAAM Lens, words only"}, {"with": "castorini/daam"}
_LARGE = {"recording": "SDXL, 1024 px"}
_SUM, _MEAN = {"with": "DAAM Lens (Eq. 6)"}, {"with": "castorini/daam (its own rule)"}
_WARM = "Colour words, a warm start of 11,880 pictures"
_ONE, _TWO = {"prompts": "one object"}, {"prompts": "two objects"}
_OVERLAP, _OWN = "colour word's IoU", "own object hotter"


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"


def _of_hundred(value: float) -> str:
    return f"{value:.0f} %"


def _hundredths(value: float) -> str:
    return f"{value:.2f}"


_CONCEPTS = {
    "tiny": "Cost of concepts: the model inside, 128 px",
    "sd15": "Cost of concepts: SD 1.5 shape, 512 px",
    "sdxl": "Cost of concepts: SDXL shape, 512 px",
    "sd3": "Cost of concepts: SD3's layout, 8 blocks of 8 heads of 64, 4096 + 333",
    "flux": "Cost of concepts: Flux's layout, 4 + 8 blocks of 4 heads of 128, 4096 + 512",
}


def _tenths(value: float) -> str:
    return f"{value:.1f} %"


FIGURES: Mapping[str, Figure] = {
    "step-sdxl": Figure(_SDXL_STEP, _OURS, "ratio", _more),
    "step-sdxl-words": Figure(_SDXL_STEP, _WORDS, "ratio", _more),
    "step-sdxl-castorini": Figure(_SDXL_STEP, _THEIRS, "ratio", _more),
    "step-tiny": Figure(_TINY_STEP, _OURS, "ratio", _more),
    "step-tiny-words": Figure(_TINY_STEP, _WORDS, "ratio", _more),
    "step-tiny-castorini": Figure(_TINY_STEP, _THEIRS, "ratio", _more),
    "step-sdxl-factor": Figure(_SDXL_STEP, _OURS, "ratio", lambda ratio: f"{ratio:.2f}"),
    "step-sdxl-words-factor": Figure(_SDXL_STEP, _WORDS, "ratio", lambda ratio: f"{ratio:.2f}"),
    **{f"concepts-{name}": Figure(section, {}, "of a step", _tenths) for name, section in _CONCEPTS.items()},
    **{f"concepts-{name}-run": Figure(section, {}, "of 20 steps, all in", _tenths) for name, section in _CONCEPTS.items()},
    "maps-time": Figure(_FINISH, _LARGE | _SUM, "median", _milliseconds),
    "maps-memory": Figure(_FINISH, _LARGE | _SUM, "peak memory", _megabytes),
    "maps-time-castorini": Figure(_FINISH, _LARGE | _MEAN, "median", _milliseconds),
    "maps-memory-castorini": Figure(_FINISH, _LARGE | _MEAN, "peak memory", _megabytes),
    "colour-one": Figure("Colour words", _ONE, _OVERLAP, _hundredths),
    "colour-two": Figure("Colour words", _TWO, _OVERLAP, _hundredths),
    "colour-own": Figure("Colour words", _TWO, _OWN, _percent),
    "warm-colour-one": Figure(_WARM, _ONE, _OVERLAP, _hundredths),
    "warm-colour-two": Figure(_WARM, _TWO, _OVERLAP, _hundredths),
    "warm-colour-own": Figure(_WARM, _TWO, _OWN, _percent),
    "warm-right-two": Figure(_WARM, _TWO, "right", _percent),
    "silhouettes": Figure("Silhouettes", {"pictures": "made by the model, right by the segmenter"}, "fail", _of_hundred),
    "kept": Figure(_FINISH, _LARGE | _SUM, "kept of the recording", _megabytes),
}
"""By the name of their places."""


def cells(results: str, figure: Figure) -> str:
    """The cell of a figure. Raises LookupError where results.md has it not, or twice."""
    sections = re.split(r"^## ", results, flags=re.M)
    body = [part for part in sections if part.split("\n", 1)[0].strip() == figure.section]
    if len(body) != 1:
        raise LookupError(f"results.md has {len(body)} sections {figure.section!r}")
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in body[0].splitlines()
        if line.startswith("|") and not set(line) <= set("|- ")
    ]
    head = rows[0]
    found = [row for row in rows[1:] if all(row[head.index(name)] == cell for name, cell in figure.row.items())]
    if len(found) != 1:
        raise LookupError(f"{figure.section!r} has {len(found)} rows with {dict(figure.row)}")
    return found[0][head.index(figure.column)]


def texts(results: str) -> dict[str, str]:
    """What stands at each place. Raises LookupError."""
    found = {name: figure.show(_number(cells(results, figure))) for name, figure in FIGURES.items()}
    return found | {
        "families": _families(),
        "comfyui-families": _comfyui_families(),
        "families-table": _families_table(),
        "refused-table": _refused_table(),
        "hosts-table": _hosts_table(),
        "errors-table": _errors_table(),
        "mask-summary": mask_summary((ROOT / "docs" / "results.md").read_text(encoding="utf-8")),
        "scale-hours": _hours(float(found["step-sdxl-factor"])),
    }


def filled(document: str, known: Mapping[str, str]) -> str:
    """A document with the present texts at its places. Raises LookupError for a place of another name."""

    def put(place: re.Match[str]) -> str:
        name = place["name"]
        if name not in known:
            raise LookupError(f"no text is known for the place {name!r}")
        block = "\n" in known[name]
        return f"<!-- {name} -->" + (f"\n\n{known[name]}\n\n" if block else known[name]) + "<!-- / -->"

    return _PLACE.sub(put, document)


def write_documents() -> list[str]:
    """Bring all documents up to date; the names of those that changed."""
    known = texts(RESULTS.read_text(encoding="utf-8"))
    changed = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = filled(before, known)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(name)
    return changed


def _comfyui_families() -> str:
    from daam_core.capture.comfyui_families import READ_IN_COMFYUI

    return READ_IN_COMFYUI


def _hosts_table() -> str:
    from daam_core.capture.comfyui_families import COMFYUI_FAMILIES
    from daam_core.capture.families import FAMILIES

    webuis = json.loads(WEBUI_CHECKS.read_text(encoding="utf-8"))
    unets = [name for name in webuis if name.startswith("Stable Diffusion") and name != "Stable Diffusion 3"]
    in_diffusers = {family.name for family in FAMILIES}
    names = sorted({*in_diffusers, *COMFYUI_FAMILIES, *(set(webuis) - set(unets))}, key=str.lower)
    lines = ["| family | diffusers | ComfyUI | WebUIs |", "| --- | --- | --- | --- |"]
    lines += [f"| {name} | yes | yes | {_checked_in(webuis, name)} |" for name in unets]
    for name in names:
        read = ["yes" if name in host else "-" for host in (in_diffusers, COMFYUI_FAMILIES)]
        lines.append(f"| {name} | {' | '.join(read)} | {_checked_in(webuis, name)} |")
    return "\n".join(lines)


def _checked_in(webuis: Mapping[str, Mapping[str, str]], family: str) -> str:
    """The WebUIs in which a family's tests passed, each with our version that they last passed with."""
    return ", ".join(f"{host} ({version})" for host, version in webuis.get(family, {}).items()) or "-"


def _hours(recording: float) -> str:
    """The sum of docs/scale.md, whose other parts stand in its table."""
    hours = 10_000 * (6 * recording * 1.08 + 0.03 + 2 * 0.36) / (3600 * 8)
    return (
        f"10,000 x (6 x {recording:.2f} x 1.08 + 0.03 + 2 x 0.36) / (3600 x 8) = **{hours:.1f} hours** on 8 GPUs, "
        f"{8 * hours:.0f} GPU hours"
    )


def _number(cell: str) -> float:
    match = re.match(r"[-+]?\d+(\.\d+)?", cell)
    if match is None:
        raise LookupError(f"{cell!r} is no figure")
    return float(match[0])


def _families() -> str:
    from daam_core.capture.families import FAMILIES

    return ", ".join(sorted((family.name for family in FAMILIES), key=str.lower))


def _families_table() -> str:
    from daam_core.capture.families import FAMILIES

    lines = ["| family | class in diffusers | paints |", "| --- | --- | --- |"]
    for family in sorted(FAMILIES, key=lambda one: one.name.lower()):
        classes = ", ".join(f"`{name.split('.')[-1]}`" for name in family.classes)
        lines.append(f"| {family.name} | {classes} | {'videos' if family.video else 'pictures'} |")
    return "\n".join(lines)


def _refused_table() -> str:
    from daam_core.capture.refused_families import REFUSED, REFUSED_UNETS

    named = sorted(REFUSED.items()) + sorted(REFUSED_UNETS.items())
    rows = [f"| `{name.split('.')[-1]}` | {reason} |" for name, reason in named]
    return "\n".join(["| class in diffusers | why it is not read |", "| --- | --- |", *rows])


def _errors_table() -> str:
    from daam_core import errors

    found = [(name, one) for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)]
    rows = []
    for name, one in found:
        bases = ", ".join(f"`{base.__name__}`" for base in one.__bases__ if base is not errors.DaamLensError)
        text = " ".join((one.__doc__ or "").split())
        rows.append(f"| `{name}` | {bases} | {text} |")
    return "\n".join(["| error | is also a | raised for |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    print("\n".join(write_documents()) or "all documents are up to date")
    sys.exit(0)
