"""What the documents tell people to type is understood, and results get into docs/results.md whole."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from daam_core.cli.parser import build_parser
from daam_core.errors import BadArgument
from daam_core.studies import plots
from daam_core.studies.registry import STUDIES
from daam_core.studies.report import Part, Plot, Report, Table, Text, write_report

ROOT = Path(__file__).parents[2]


def script(name: str) -> Any:
    """A script of benchmarks/, which is no part of what is installed."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


studies = script("studies")
DOCUMENTS = [ROOT / name for name in ("README.md", "docs/scale.md", "benchmarks/README.md", "docs/results.md")]


def commands() -> list[str]:
    """Every `study NAME …` of the documents, as typed, with its options."""
    found = []
    for path in DOCUMENTS:
        text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
        text = re.sub(r"\n\s{14}(?=\S)", " ", text)  # yaml's folded lines
        found += re.findall(r"(?:daam-lens|-m daam_core) (study [a-z]+ [^`'\n]*--out [^`'\n;&|]+)", text)
    return found


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_documents_are_understood(command: str, tmp_path: Path) -> None:
    """A folder of the reader's own models, which must be there, is a folder of ours."""
    (tmp_path / "model_index.json").write_text("{}")
    arguments = shlex.split(re.sub(r"--model (/|\"\$SCRATCH)\S+", f"--model {shlex.quote(str(tmp_path))}", command))
    if arguments[1] not in STUDIES:
        pytest.skip(f"there is no study {arguments[1]} in this checkout")
    assert build_parser(arguments).parse_args(arguments).run


def test_there_are_commands_to_try() -> None:
    assert len(commands()) >= 7


def test_scripts_for_clusters_are_well_formed() -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    (slurm,) = re.findall(r"``bash\n(.*?)``", text, re.S)
    assert subprocess.run(["bash", "-n"], input=slurm, text=True, capture_output=True).stderr == ""
    (manifest,) = re.findall(r"``yaml\n(.*?)``", text, re.S)
    service, job = yaml.safe_load_all(manifest)
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    pod = job["spec"]["template"]["spec"]
    # Pods find each other by the names that the service gives them.
    assert pod["subdomain"] == service["metadata"]["name"]
    (launch,) = pod["containers"][0]["args"]
    machines = int(re.search(r"--num_machines (\d+)", launch)[1])
    assert machines == job["spec"]["completions"] == job["spec"]["parallelism"]
    gpus = pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert f"--num_processes {machines * gpus}" in launch
    assert f"{job['metadata']['name']}-0.{service['metadata']['name']}" in launch


def finished(folder: Path, number: float) -> Path:
    figure, (axes,) = plots.new_figure()
    plots.curves(axes, {"a": ([0.1], [0.5])}, "x", "y")
    parts: list[Part] = [Text("Said."), Table("Numbers", pd.DataFrame({"IoU": [number]})), Plot("curve", figure, "A curve.")]
    folder.mkdir()
    write_report(Report("Masks", parts), folder)
    run = {
        "study": "masks", "units": 4, "rows": 9, "processor_seconds_measuring": 6.0, "processes": 1, "machine": "x86_64",
        "device": "cpu", "peak_memory_mb": 900, "versions": {"torch": "2.13.0+cpu"}, "weights_sha256": "ab" * 32,
        "arguments": {
            "model": "tiny", "truth": "rendered", "style": "shaded", "limit": 7, "words": None, "threads": 1, "seeds": 1,
        },
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder


def test_results_replace_their_own_section_only(tmp_path: Path) -> None:
    document = tmp_path / "results.md"
    document.write_text("# Results\n\nBy hand.\n", encoding="utf-8")
    for number in (0.25, 0.75):
        title, body = studies.section(finished(tmp_path / str(number), number), tmp_path / "images")
        studies.put(title, body, document)
        studies.put("Other", "stays", document)
    text = document.read_text(encoding="utf-8")
    assert title == "Masks: the model inside, rendered scenes, shaded"
    assert text.startswith("# Results\n\nBy hand.\n")
    assert "0.750" in text and "0.250" not in text
    assert text.count("stays") == text.count(f"## {title}") == 1
    assert "daam-lens study masks --model tiny --limit 7 --style shaded --truth rendered" in text.replace("`", "")
    assert "1.5 s of processor time a unit" in text
    (plot,) = re.findall(r"\]\((images/[^)]*)\)", text)
    assert (tmp_path / plot).is_file()


def test_an_unfinished_study_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match=r"no run\.json"):
        studies.section(tmp_path)
