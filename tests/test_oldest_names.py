"""Names of PyTorch, NumPy, OpenCV and Pillow that the product uses are there in the oldest versions that it promises.

Only CI installs those (`.github/oldest.txt`). `tests/oldest_names.txt` lists the names that were found there; what is not in
it has to be looked up: in an environment of the oldest versions, `python tests/test_oldest_names.py` writes the list anew.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LISTED = Path(__file__).with_name("oldest_names.txt")
PACKAGES = ("torch", "numpy", "cv2", "PIL", "safetensors")


def used_names() -> set[str]:
    """Dotted names of those packages in `daam_core`, `nodes` and `daam_webui`: imported ones and attributes of modules."""
    found: set[str] = set()
    for tree in ("daam_core", "nodes", "daam_webui"):
        for path in sorted((ROOT / tree).rglob("*.py")):
            found |= _of(ast.parse(path.read_text(encoding="utf-8")))
    return found


def _of(tree: ast.Module) -> set[str]:
    called: dict[str, str] = {}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PACKAGES:
                    called[alias.asname or alias.name.split(".")[0]] = alias.name if alias.asname else alias.name.split(".")[0]
                    found.add(alias.name)
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                called[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                found.add(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2] == "opencv":
            called["cv2"] = "cv2"  # `from ..opencv import cv2`: the module, imported when it is used
            found.add("cv2")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            chain: list[str] = []
            one: ast.expr = node
            while isinstance(one, ast.Attribute):
                chain.append(one.attr)
                one = one.value
            if isinstance(one, ast.Name) and one.id in called:
                found.add(".".join([called[one.id], *reversed(chain)]))
    return found


def exists(name: str) -> bool:
    """Whether a dotted name can be reached here."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


def test_every_name_was_found_in_the_oldest_versions() -> None:
    listed = set(LISTED.read_text(encoding="utf-8").split())
    assert used_names() - listed == set()


def test_every_name_is_there_today() -> None:
    assert [name for name in sorted(used_names()) if not exists(name)] == []


def test_a_newer_name_is_seen() -> None:
    code = "import torch\nimport numpy as np\nfrom torch.nn import functional as F\ntorch.accelerator.x(F.gelu, np.vecdot)"
    assert {"torch.accelerator.x", "torch.nn.functional.gelu", "numpy.vecdot"} <= _of(ast.parse(code))
    assert exists("torch.nn.functional.gelu") and not exists("torch.nn.magic") and not exists("magic.x")


if __name__ == "__main__":
    names = sorted(used_names())
    missing = [name for name in names if not exists(name)]
    LISTED.write_text("\n".join(name for name in names if name not in missing) + "\n", encoding="utf-8")
    print("missing here:", ", ".join(missing) or "none")
