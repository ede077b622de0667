"""One running server of each host that is on this machine, for all tests of this folder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .checkpoints import full_shape_checkpoint, ldm_checkpoint, small_files
from .hosts import CACHE, ROOT, Server, find
from .other_models import controlnet, full_shape_others, hypernetwork, model_inside, v2_checkpoint, xl_checkpoint
from .running import Live

if TYPE_CHECKING:
    from .sdnext_server import SDNextServer

# As a WebUI does with an extension's folder.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

OTHERS = (
    "sd-webui-regional-prompter",
    "multidiffusion-upscaler-for-automatic1111",
    "sd-webui-negpip",
    "ultimate-upscale-for-automatic1111",
)
HOSTS = ("a1111", "forge", "reforge", "neo", "classic")
WITNESS = Path(__file__).with_name("witness_script.py")


def others(data: Path) -> None:
    """Extensions of others that are on this machine, switched off until a test asks for them."""
    for name in OTHERS:
        if (CACHE / "webui-extensions" / name).is_dir():
            shutil.copytree(CACHE / "webui-extensions" / name, data / "extensions" / name)
    (data / "ui-config.json").write_text("{}", encoding="utf-8")  # one of them reads it before the host writes it


@pytest.fixture(scope="session", params=HOSTS)
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A WebUI with this repository as its extension, a witness beside it and two small checkpoints."""
    host, why = find(request.param)
    if host is None:
        pytest.skip(why)
    data = tmp_path_factory.mktemp(host.name)
    models = data / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    make = ldm_checkpoint if host.name == "a1111" else full_shape_checkpoint
    make(models, "tiny", 0)
    make(models, "other", 1)
    width = 64 if host.name == "a1111" else 768
    if host.name == "a1111":
        xl_checkpoint(models)
        v2_checkpoint(models)
        model_inside(data)
    else:
        full_shape_others(models, whole_depth=host.name == "classic")
        controlnet(data / "models" / "ControlNet")
    hypernetwork(data / "models" / "hypernetworks", width)
    small_files(data, width, full=host.name != "a1111")
    scripts = data / "extensions" / "witness" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(WITNESS, scripts / "witness.py")
    if host.name == "a1111":
        others(data)
    server = Server(host, data)
    try:
        yield Live(server.wait())
    finally:
        server.stop()


@pytest.fixture(scope="session")
def sdnext(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SDNextServer]:
    """A running SD.Next with small pipelines."""
    host, why = find("sdnext")
    if host is None:
        pytest.skip(why)
    from .sdnext_server import SDNextServer  # imports diffusers, which other hosts' tests need not

    running = SDNextServer(host, tmp_path_factory.mktemp("sdnext"))
    try:
        running.wait(600)
        yield running
    finally:
        running.stop()
