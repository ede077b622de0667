"""Directions of imports between the rooms of the house, read from the source of `daam_core`, `nodes` and `daam_webui`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TREES = ("daam_core", "nodes", "daam_webui", "scripts")
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli", "app", "studies"),
    ("tiny",),
    ("diffusers",),
    ("explorer",),
    ("render",),
    ("capture",),
    ("maps",),
    ("masks",),
    ("attention", "prompt"),
    ("defaults", "files", "lru_cache", "opencv", "packages", "picture_files", "picture_input", "validate"),
    ("types", "errors"),
)
"""Rooms of `daam_core`, the highest first: each imports from its own layer and from lower ones."""
RISING = {
    ("diffusers.loading", "tiny.load"),  # `load_pipeline("tiny")`: the model inside under the name that users give
    ("diffusers.loading", "tiny.scenes"),  # … and what it draws, in a sentence
    ("diffusers.loading", "tiny.shapes"),
    ("maps.heatmaps", "render"),
    ("maps.comparison", "render"),  # `HeatMaps.overlay` and `contact_sheet`: methods, so that users need one import
}
"""Imports inside a function that go up on purpose: (from, to)."""
TINY_USERS = {"", "diffusers.loading"}
"""Modules of `daam_core` outside studies (and tiny itself) that may import the model inside."""


@dataclass(frozen=True)
class Import:
    """One import: dotted names from the repository's root; `late` where it stands inside a function, `typed` for types only."""

    source: str
    target: str
    late: bool
    typed: bool


def _module(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(root: Path) -> list[Import]:
    """Every import between the modules under `root`."""
    paths = {_module(path, root): path for tree in TREES for path in sorted((root / tree).rglob("*.py"))}
    found: list[Import] = []
    for source, path in paths.items():
        package = path.relative_to(root).parent.parts
        for names, late, typed in _statements(ast.parse(path.read_text(encoding="utf-8")), package):
            for base, name in names:
                target = f"{base}.{name}" if f"{base}.{name}" in paths else base
                if target in paths:
                    found.append(Import(source, target, late, typed))
    return found


def _statements(
    node: ast.AST, package: tuple[str, ...], late: bool = False, typed: bool = False
) -> Iterator[tuple[list[tuple[str, str]], bool, bool]]:
    """(module, name) pairs of each import statement below `node`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield [(alias.name, "") for alias in child.names], late, typed
        elif isinstance(child, ast.ImportFrom):
            above = package[: len(package) - child.level + 1] if child.level else ()
            base = ".".join([*above, *([child.module] if child.module else [])])
            yield [(base, alias.name) for alias in child.names], late, typed
        inside = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        only_types = typed or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        yield from _statements(child, package, inside, only_types)


def _layer(module: str) -> int | None:
    """Number of the layer of a module of `daam_core`, 0 the highest; None for the package itself."""
    room = module.split(".")[1] if "." in module else None
    return next((number for number, rooms in enumerate(LAYERS) if room in rooms), None)


def wrong_imports(found: list[Import]) -> list[str]:
    """One sentence for each import that goes where it must not."""
    wrong = []
    for one in found:
        source, target = one.source.split("."), one.target.split(".")
        inner, other = ".".join(source[1:]), ".".join(target[1:])
        text = f"{one.source} imports {one.target}"
        if source[0] == target[0] == "daam_core":
            upper, lower = _layer(one.source), _layer(one.target)
            up = upper is not None and lower is not None and upper > lower and not one.typed
            if up and not (one.late and (inner, other) in RISING):
                wrong.append(f"{text}: upwards")
            if target[1:2] == ["tiny"] and source[1:2] not in (["tiny"], ["studies"]) and inner not in TINY_USERS:
                wrong.append(f"{text}: the model inside is loaded by diffusers.loading")
        elif source[0] == "daam_core":
            wrong.append(f"{text}: the core knows no host")
        elif {source[0], target[0]} == {"nodes", "daam_webui"}:
            wrong.append(f"{text}: hosts do not know each other")
        elif target[0] == "daam_core":
            allowed = {
                "cli": (), "app": (), "studies": (),
                "tiny": ("nodes.tiny_model",), "diffusers": ("daam_webui.hosts.sdnext",),
            }.get(other.split(".")[0])  # fmt: skip
            if allowed is not None and one.source not in allowed:
                wrong.append(f"{text}: no room for a host")
    return wrong


def circles(found: list[Import]) -> list[list[str]]:
    """Modules that import each other in a circle when they are loaded (imports inside functions close none)."""
    graph: dict[str, set[str]] = {}
    for one in found:
        if not one.typed and one.source != one.target:
            graph.setdefault(one.source, set()).add(one.target)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph.get(start, ()))
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph.get(module, ())
        return seen

    reach = {module: reached(module) for module in graph}
    groups = {frozenset({m, *(o for o in reach[m] if m in reach.get(o, ()))}) for m in graph if m in reach[m]}
    return sorted(sorted(group) for group in groups)


@pytest.fixture(scope="module")
def found() -> list[Import]:
    return imports_of(ROOT)


def test_every_room_has_a_layer() -> None:
    """A new room is given its place before anything imports it."""
    rooms = {p.stem if p.is_file() else p.name for p in (ROOT / "daam_core").iterdir() if p.suffix == ".py" or p.is_dir()}
    listed = {room for layer in LAYERS for room in layer}
    assert rooms - {"__init__", "__main__", "__pycache__", "explorer_web", "py"} <= listed


def test_imports_go_down_only(found: list[Import]) -> None:
    assert wrong_imports(found) == []


def test_no_modules_import_each_other_in_a_circle(found: list[Import]) -> None:
    """Late imports count: a circle behind a function is a circle for whoever reads the two files."""
    rising = {("daam_core." + source, "daam_core." + target) for source, target in RISING}
    counted = [one for one in found if (one.source, one.target) not in rising]
    assert circles(counted) == []


def test_loading_a_record_imports_no_hook(found: list[Import]) -> None:
    """`HeatMaps.load` is what a page or a report needs: nothing of a recording comes with it, however far one follows."""
    graph: dict[str, set[str]] = {}
    for one in found:
        if not one.typed and not one.late:
            graph.setdefault(one.source, set()).add(one.target)
    seen, waiting = set(), ["daam_core.maps.heatmaps", "daam_core.maps.serialization"]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += graph.get(module, ())
    assert not [module for module in seen if module.startswith(("daam_core.capture", "daam_core.diffusers"))]


@pytest.mark.parametrize(
    ("path", "line", "complaint"),
    [
        ("daam_core/maps/heatmaps.py", "from ..capture import recording", "upwards"),
        ("daam_core/maps/heatmaps.py", "def f():\n    from ..capture.recording import Recording", "upwards"),
        ("daam_core/masks/methods.py", "import daam_core.maps.data", "upwards"),
        ("daam_core/files.py", "from .render import overlay", "upwards"),
        ("daam_core/render/sheets.py", "from ..tiny.load import load_tiny", "model inside"),
        ("daam_core/maps/data.py", "import nodes.record", "no host"),
        ("nodes/record.py", "from ..daam_webui.script import Script", "each other"),
        ("nodes/record.py", "from ..daam_core.cli.parser import main", "no room"),
        ("daam_webui/script.py", "from ..daam_core.diffusers.trace import trace", "no room"),
        ("nodes/record.py", "from ..daam_core.tiny.load import load_tiny", "no room"),
    ],
)
def test_a_wrong_import_is_seen(tmp_path: Path, path: str, line: str, complaint: str) -> None:
    """Each direction that is forbidden, written into a small copy of the house, as modules write it."""
    named = (
        "daam_core/capture/recording.py", "daam_core/maps/data.py", "daam_core/render/__init__.py", "daam_core/tiny/load.py",
        "nodes/record.py", "daam_webui/script.py", "daam_core/cli/parser.py", "daam_core/diffusers/trace.py",
        "daam_core/maps/__init__.py", "daam_core/__init__.py", "daam_core/capture/__init__.py",
    )  # fmt: skip
    for name in named:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert wrong_imports(imports_of(tmp_path)) == []
    target = tmp_path / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(line + "\n")
    complaints = wrong_imports(imports_of(tmp_path))
    assert complaints and any(complaint in one for one in complaints), complaints


def test_a_circle_is_seen() -> None:
    pair = [Import("a", "b", False, False), Import("b", "a", False, False), Import("c", "a", False, False)]
    assert circles(pair) == [["a", "b"]]
    assert circles(pair[:1]) == []
