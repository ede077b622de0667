"""The line that installs an extra names what DAAM Lens was installed from."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from daam_core import packages


class Installed:
    """A distribution with this `direct_url.json`, None where it came from an index (PEP 610)."""

    def __init__(self, told: object) -> None:
        self.told = told

    def read_text(self, _name: str) -> str | None:
        return self.told if isinstance(self.told, str) else None if self.told is None else json.dumps(self.told)


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (None, 'pip install "daam-lens[study]"'),
        ("not json", 'pip install "daam-lens[study]"'),
        ({"url": "https://x.test/d.whl", "archive_info": {}}, 'pip install "daam-lens[study] @ https://x.test/d.whl"'),
        (
            {"url": "https://x.test/d", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            'pip install "daam-lens[study] @ git+https://x.test/d"',
        ),
    ],
)
def test_from_an_index_or_an_address(told: object, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "distribution", lambda _name: Installed(told))
    assert packages.install_line("study") == line


def test_from_a_folder_with_its_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    told = {"url": folder.as_uri(), "dir_info": {"editable": True}}
    monkeypatch.setattr(packages, "distribution", lambda _name: Installed(told))
    assert packages.install_line("app") == f'pip install -e "{folder}[app]"'
    (folder / "constraints.txt").touch()
    assert packages.install_line("app") == f'pip install -c "{folder / "constraints.txt"}" -e "{folder}[app]"'


def test_run_from_its_folder_without_being_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> object:
        raise PackageNotFoundError

    monkeypatch.setattr(packages, "distribution", missing)
    root = Path(__file__).resolve().parents[2]
    assert packages.install_line("demo").endswith(f'-e "{root}[demo]"')
