"""Puts what `daam-lens study` wrote into docs/results.md: `python -m benchmarks.studies FOLDER…`.

A section a study and truth, with its tables and plots; what stands outside the sections is written by hand and stays.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from daam_core.cli.parser import build_parser
from daam_core.errors import BadArgument

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.md"
IMAGES = ROOT / "docs" / "images"
_PICTURE = re.compile(r"^!\[(?P<caption>.*)\]\((?P<name>[\w.-]+)\.png\)$", re.M)


def section(folder: Path, images: Path = IMAGES) -> tuple[str, str]:
    """Title and body of one study's section; its plots are copied to `images`.

    Raises:
        BadArgument: the folder holds no finished study.
    """
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        report = (folder / "report.md").read_text(encoding="utf-8")
    except OSError:
        raise BadArgument(f"{folder} holds no finished study: it has no run.json.") from None
    title = _title(run)
    body = report.split("\n", 1)[1].strip()
    stem = re.sub(r"\W+", "-", title.casefold()).strip("-")

    def placed(match: re.Match[str]) -> str:
        name = match["name"]
        if name.startswith("example"):
            return "\0"
        images.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / f"{name}.png", images / f"{stem}-{name}.png")
        return f"![{match['caption']}](images/{stem}-{name}.png)"

    body = re.sub("\0\n\n.*(\n\n|$)", "", _PICTURE.sub(placed, body))  # an example's caption goes with it
    return title, f"{body.strip()}\n\n_{_how(run)}_\n"


def put(title: str, body: str, path: Path = RESULTS) -> None:
    """Replace the section of that title between its two marks, or add it at the end."""
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    whole = f"<!-- {title} -->\n## {title}\n\n{body.rstrip()}\n<!-- end -->\n"
    mark = re.compile(rf"^<!-- {re.escape(title)} -->\n.*?^<!-- end -->\n", re.M | re.S)
    replaced, found = mark.subn(lambda _: whole, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(replaced if found else f"{text.rstrip()}\n\n{whole}", encoding="utf-8")


def _title(run: dict[str, Any]) -> str:
    asked = run["arguments"]
    truth = asked.get("truth")
    kind = {"generated": "generated pictures", "rendered": f"rendered scenes, {asked.get('style')}"}.get(truth, "a folder")
    named = {"tiny": "the model inside"}.get(asked["model"], Path(str(asked["model"])).name)
    return f"{run['study'].capitalize()}: {named}" + (f", {kind}" if truth is not None else "")


def _how(run: dict[str, Any]) -> str:
    """The command that repeats it, and what it cost."""
    asked, typed = run["arguments"], ["study", run["study"], "--out", "x"]
    usual = vars(build_parser(typed).parse_args(typed))
    skip = {"model", "device", "prompts", "threads"}
    plain = {name: value for name, value in asked.items() if name not in skip and value != usual.get(name)}
    given = "".join(
        f" --{name.replace('_', '-')}" + ("" if value is True else f" {_said(value)}") for name, value in sorted(plain.items())
    )
    versions = run["versions"]
    memory = f", {run['peak_memory_mb']} MB at most" if run["peak_memory_mb"] else ""
    return (
        f"`daam-lens study {run['study']} --model {Path(str(asked['model'])).name}{given}`: {run['units']} units, "
        f"{run['rows']} rows; {run['processor_seconds_measuring'] / max(1, run['units']):.1f} s of processor time a unit"
        f"{memory}; {run['processes']} process(es) of {asked['threads']} thread(s) on "
        f"{run['machine']}, device {run['device'] or 'none'}; PyTorch {versions['torch'].split('+')[0]}, diffusers "
        f"{versions.get('diffusers', 'none')}; weights {(run['weights_sha256'] or 'none')[:12]}."
    )


def _said(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    for folder in parser.parse_args().folders:
        title, body = section(folder)
        put(title, body)
        print(title)


if __name__ == "__main__":
    main()
