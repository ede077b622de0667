"""The package: what a fresh checkout installs, promises in its README, and how quickly it answers."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it along there
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEST_COMMAND = '```\npip install -c constraints.txt -e ".[test]"\npytest -n 2 --dist loadfile\n```'
DEMO_COMMAND = '```\npip install -c constraints.txt -e ".[demo]"\ndaam-lens generate "a red house and a green tree"\n```'


def pins() -> dict[str, set[str]]:
    """Name -> pinned versions (two where Python 3.10 needs an older one)."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-z0-9.-]+)==([\w.]+)( ; .+)?", line)
            assert match, f"not an exact pin: {line!r}"
            found.setdefault(match[1], set()).add(match[2])
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_both_commands_stand_in_the_readme() -> None:
    """What CI runs and what newcomers type are the same words."""
    assert TEST_COMMAND in README
    assert DEMO_COMMAND in README


def test_lines_to_type_work_in_powershell_5() -> None:
    """It knows no `&&`: one command a line."""
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        blocks = re.findall(r"^```(?:bash|sh|powershell)?\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
        assert not [block for block in blocks if "&&" in block], path.name


def test_ci_runs_the_readme_s_test_command_in_an_environment_of_its_own() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'pip install --quiet -c constraints.txt -e ".[test]"' in script
    assert re.search(r"^pytest -n 2 --dist loadfile\b", script, re.M)
    assert "-m venv" in script


def test_torch_is_pinned() -> None:
    """A bare `torch` brings gigabytes; the pin is what keeps the first command short."""
    assert pins()["torch"] == {"2.13.0"}


def test_every_package_of_the_commands_has_an_exact_pin() -> None:
    """Whatever is installed here through the extras `demo` and `test` is in constraints.txt, transitively."""
    known = pins()
    missing = set()
    for name in _needed("daam-lens", {"demo", "test"}):
        if name != "daam-lens" and name not in known:
            missing.add(name)
    assert not missing


def test_installed_versions_are_the_pinned_ones() -> None:
    """The figures and promises of the documents are of these. Whoever means other versions says so in DAAM_LENS_VERSIONS."""
    if os.environ.get("DAAM_LENS_VERSIONS") == "any":
        pytest.skip("DAAM_LENS_VERSIONS=any: other versions are meant")
    installed = {normal(d.metadata["Name"]): d.version.split("+")[0] for d in metadata.distributions()}
    known = pins()
    differing = {n: v for n, v in installed.items() if n in known and v not in known[n] and n in _needed("daam-lens", {"test"})}
    assert not differing, f"install with `-c constraints.txt`, or set DAAM_LENS_VERSIONS=any: {differing}"


def test_root_package_imports_without_a_host() -> None:
    """pytest, ComfyUI's registry and others import the folder itself; nothing of a host may be needed for that."""
    spec = importlib.util.spec_from_file_location("a_folder_of_any_name", ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    spec.loader.exec_module(module)
    assert not {name.split(".")[0] for name in set(sys.modules) - before} & {"comfy", "comfy_api", "folder_paths"}
    # A module that also has these would be taken for an old-style node pack.
    assert not hasattr(module, "NODE_CLASS_MAPPINGS")


def test_importing_the_library_is_light() -> None:
    """A host starts many packs; ours must not load torch, diffusers or OpenCV before it is used."""
    code = (
        "import sys, daam_core, daam_core.cli; print([m for m in ('torch', 'diffusers', 'cv2', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_hosts_keep_their_torch_and_opencv() -> None:
    """requirements.txt is installed into other people's environments: no torch, no second OpenCV."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {normal(re.split(r"[<>=\[ ;]", line)[0]) for line in lines if line and not line.startswith("#")}
    assert names <= {"numpy", "pillow", "safetensors"}


def test_version_is_one_and_in_the_changelog() -> None:
    daam_core = importlib.import_module("daam_core")
    assert PROJECT["version"] == daam_core.__version__
    assert f"## {daam_core.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {daam_core.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_weights_travel_with_the_package() -> None:
    """An installed (not editable) package must bring its model: every kind of file in it matches a package-data rule."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    kinds = {rule.rsplit("*", 1)[-1] for rule in data["daam_core"]}
    weights = ROOT / "daam_core" / "tiny" / "weights"
    others = {p.name for p in weights.rglob("*") if p.is_file() and p.suffix not in kinds}
    assert not others


def test_public_files_name_no_machine() -> None:
    """Nothing of the machine that built it: no home folders, no registry hosts."""
    paths = [
        ROOT / n
        for n in (
            "README.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
            "CITATION.cff",
            "mkdocs.yml",
            "pyproject.toml",
            "constraints.txt",
            ".ci/run",
        )
    ]
    folders = ("benchmarks", "docs", ".github", ".github/workflows")
    for path in [*paths, *(path for folder in folders for path in (ROOT / folder).glob("*.*"))]:
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"/root/|/home/\w|--(extra-)?index-url|--find-links", text), path


def _needed(name: str, extras: set[str]) -> set[str]:
    """Normalised names of all distributions that `name[extras]` needs here, and what these need in turn."""
    packaging = pytest.importorskip("packaging.requirements", reason="packaging is not installed")
    done: set[tuple[str, str]] = set()
    waiting = [(normal(name), extra) for extra in (extras | {""})]
    while waiting:
        one = waiting.pop()
        if one in done:
            continue
        done.add(one)
        try:
            requires = metadata.requires(one[0]) or []
        except metadata.PackageNotFoundError:
            if one[0] == "daam-lens":
                pytest.skip('daam-lens is not installed here; run: pip install -c constraints.txt -e ".[test]"')
            continue
        for text in requires:
            need = packaging.Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": one[1]}):
                waiting += [(normal(need.name), extra) for extra in ({""} | set(need.extras))]
    return {name for name, _ in done}
