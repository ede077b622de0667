"""Workflows: the same script as on a developer's machine, the promised versions, and no release while placeholders stand."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is in the extra `test`")

from .test_package import PROJECT  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return found


def commands(workflow: dict[str, Any], job: str) -> str:
    return "\n".join(step.get("run", "") for step in workflow["jobs"][job]["steps"])


def check() -> Any:
    spec = importlib.util.spec_from_file_location("release_check", ROOT / ".github" / "release_check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


READY: dict[str, Any] = {
    "project": {"version": "1.2.3", "urls": {"Repository": "https://github.com/somebody/daam-lens"}},
    "tool": {"comfy": {"PublisherId": "somebody", "DisplayName": "DAAM Lens"}},
}
CHANGES, CITATION = "# Changes\n\n## 1.2.3 (today)\n", "version: 1.2.3\n"


def test_what_is_complete_may_be_released() -> None:
    assert check().problems(READY, CHANGES, CITATION, "v1.2.3") == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda p: p["project"]["urls"].update(Repository="https://github.com/OWNER/daam-lens"), "placeholder"),
        (lambda p: p["project"]["urls"].clear(), "no project.urls.Repository"),
        (lambda p: p["tool"]["comfy"].update(PublisherId="OWNER"), "PublisherId in pyproject.toml is a placeholder"),
        (lambda p: p["tool"].clear(), "no tool.comfy.PublisherId"),
        (lambda p: p["project"].update(version="1.2.4"), "The tag is 'v1.2.3'"),
        (lambda p: p["project"].update(version="1.2.4"), "CHANGELOG.md has no section for 1.2.4"),
        (lambda p: p["project"].update(version="1.2.4"), "CITATION.cff is not of version 1.2.4"),
    ],
)
def test_what_is_not_complete_may_not(change: Any, complaint: str) -> None:
    import copy

    project = copy.deepcopy(READY)
    change(project)
    assert complaint in "\n".join(check().problems(project, CHANGES, CITATION, "v1.2.3"))


def test_this_checkout_says_what_stands_in_the_way() -> None:
    """The script itself, as the workflows call it: 1 with a reason while an OWNER stands, else 0."""
    done = subprocess.run([sys.executable, ".github/release_check.py"], capture_output=True, text=True, check=False, cwd=ROOT)
    placeholder = "OWNER" in (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.urls]")[1].split("[")[0]
    assert done.returncode == int(placeholder), done.stdout
    assert ("placeholder" in done.stdout) == placeholder


@pytest.mark.parametrize("name", ["release.yml", "comfy_registry.yml"])
def test_nothing_is_published_before_the_check(name: str) -> None:
    """Every job that publishes runs the check first, or needs a job that does."""
    jobs = read(name)["jobs"]

    def checked(job: str) -> bool:
        needs = jobs[job].get("needs", [])
        return "release_check.py" in commands({"jobs": jobs}, job) or any(
            map(checked, [needs] if isinstance(needs, str) else needs)
        )

    assert all(checked(job) for job in jobs)
    for job in jobs.values():
        assert not re.search("password|api.token", str(job), re.I), "trusted publishing keeps no password"


def test_ci_runs_the_same_script_and_all_promised_versions() -> None:
    ci = read("ci.yml")
    assert "bash .ci/run" in commands(ci, "all")
    matrix = ci["jobs"]["matrix"]["strategy"]["matrix"]
    promised = {
        c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", c)
    }
    assert set(matrix["python"]) == promised
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "windows", "macos"}
    assert {one["versions"] for one in matrix["include"]} == {"oldest", "newest"}
    assert "mkdocs build --strict" in commands(read("docs.yml"), "build")


def test_the_oldest_versions_are_those_that_pyproject_promises() -> None:
    """A bound that CI does not install is a promise that nobody keeps."""
    oldest = dict(line.split("==") for line in (ROOT / ".github" / "oldest.txt").read_text().splitlines() if "==" in line)
    bounds = dict(one.split(">=") for one in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["demo"])
    for name, bound in bounds.items():
        parts = bound.split(".")
        assert oldest[name].split(".")[: len(parts)] == parts, f"{name}: {bound} is promised, {oldest[name]} is tested"
        assert set(oldest[name].split(".")[len(parts) :]) <= {"0", "76"}, f"{name} {oldest[name]} is not the first of {bound}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_do_no_more_than_they_need(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job.get("permissions", {}).get("contents") != "write"
