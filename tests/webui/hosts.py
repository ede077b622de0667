"""WebUI hosts on this machine: where they are, and one running server of each."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[2]
CACHE = Path.home() / ".cache" / "daam-lens"
FLAGS = [
    "--skip-prepare-environment",
    "--skip-torch-cuda-test",
    "--skip-python-version-check",
    "--skip-version-check",
    "--no-download-sd-model",
    "--do-not-download-clip",
    "--no-hashing",
    "--disable-nan-check",
    "--api",
    "--skip-install",
    "--disable-console-progressbars",
]
OWN_FLAGS = {
    "a1111": ["--no-half", "--precision", "full", "--use-cpu", "all"],
    "forge": ["--always-cpu", "--all-in-fp32"],
    "reforge": ["--always-cpu", "--all-in-fp32"],
    "neo": ["--cpu", "--force-fp32"],
    "classic": ["--always-cpu", "--all-in-fp32"],
}
# Flags that a host has dropped, and refuses.
DROPPED = {
    "neo": {"--no-download-sd-model", "--do-not-download-clip", "--disable-nan-check"},
    "classic": {"--do-not-download-clip"},
}
SETTINGS = {
    "live_previews_enable": False, "samples_save": True, "save_to_dirs": False, "enable_pnginfo": True,
    "auto_launch_browser": "Disable",
    "show_progress_every_n_steps": -1, "enable_console_prompts": False, "return_grid": True, "CLIP_stop_at_last_layers": 1,
    "sd_model_checkpoint": "tiny",
    "VERSION_UID": "PY313",  # Forge Neo waits for a key press where its settings are those of an older version
    # A1111 gives back an overridden setting only if it was written down before.
    "batch_cond_uncond": True, "pad_cond_uncond": False, "token_merging_ratio": 0, "s_min_uncond": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Host:
    """One installed WebUI."""

    name: str
    folder: Path
    python: Path


def find(name: str) -> tuple[Host | None, str]:
    """The host, or None and the sentence that says where it was looked for."""
    variable = f"{name.upper()}_PATH"
    folder = Path(os.environ.get(variable) or CACHE / f"webui-{name}")
    if not (folder / "launch.py").is_file():
        return (
            None,
            f"no {name}: {variable} is {'not set' if variable not in os.environ else folder}, and {folder} has no launch.py",
        )
    python = Path(os.environ.get(f"{name.upper()}_PYTHON") or folder / ".venv" / "bin" / "python")
    if not python.is_file():
        return None, f"no {name}: {python} is no interpreter (set {name.upper()}_PYTHON)"
    return Host(name, folder, python), ""


def program_folder(host: Host, data: Path) -> Path:
    """The host's own folder, or a copy of its program beside `data`: gradio 3 serves no page file from under a folder whose
    name begins with a dot, such as `~/.cache`."""
    if not any(part.startswith(".") for part in host.folder.resolve().parts):
        return host.folder
    copy = data / "program"
    copy.mkdir(parents=True)
    for entry in host.folder.iterdir():
        if entry.name in ("repositories", "models"):  # large, and never served
            (copy / entry.name).symlink_to(entry, target_is_directory=True)
        elif entry.is_dir() and not entry.name.startswith(".") and entry.name not in ("outputs", "cache"):
            shutil.copytree(entry, copy / entry.name, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        elif entry.is_file():
            shutil.copy(entry, copy)
    return copy


class Server:
    """A running WebUI with this repository as its extension; talk to it by `post` and `get`.

    Args:
        data: an empty folder for its settings, models and pictures; checkpoints lie in `data / "models/Stable-diffusion"`.
        extension: False leaves DAAM Lens out.
        flags: besides those that this host needs anyway.
    """

    def __init__(self, host: Host, data: Path, extension: bool = True, flags: Sequence[str] = FLAGS) -> None:
        self.host, self.data = host, data
        folder = program_folder(host, data)
        (data / "extensions").mkdir(parents=True, exist_ok=True)
        if extension and not (data / "extensions" / "daam-lens").exists():
            (data / "extensions" / "daam-lens").symlink_to(ROOT, target_is_directory=True)
        (data / "outputs").mkdir(exist_ok=True)
        if host.name == "neo":
            (data / "tmp").mkdir(exist_ok=True)  # its launcher makes it, and is skipped here
        if host.name in ("neo", "classic") and not (data / "output").exists():
            (data / "output").symlink_to(data / "outputs", target_is_directory=True)  # their name for it
        (data / "config.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        environment |= {"PYTHONPATH": "", "PYTHONUNBUFFERED": "1", "no_proxy": "127.0.0.1,localhost"}
        known = [flag for flag in flags if flag not in DROPPED.get(host.name, ())]
        command = [str(host.python), "launch.py", *known, *OWN_FLAGS[host.name]]
        command += ["--port", str(self.port), "--data-dir", str(data)]
        # With its data elsewhere, a host must be told that its own page files may be served.
        command += ["--gradio-allowed-path", str(folder), "--gradio-allowed-path", str(ROOT)]
        self._log = (data / "server.log").open("w", encoding="utf-8")
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=self._log, stderr=subprocess.STDOUT)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, seconds: float = 300) -> Server:
        """Until it is ready. Raises RuntimeError with the end of its log."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            # A request that comes before the host has added its routes breaks its start, so its log is asked instead.
            if "Startup time:" in self.log():
                return self
            time.sleep(0.5)
        self.stop()
        raise RuntimeError(f"{self.host.name} did not start:\n{self.log()[-4000:]}")

    def log(self) -> str:
        return (self.data / "server.log").read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self._log.close()

    def get(self, path: str, auth: str | None = None) -> Any:
        return self._open(urllib.request.Request(self.url + path), auth)

    def post(self, path: str, body: Any, auth: str | None = None) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        return self._open(request, auth)

    def raw(self, path: str, body: Any = None) -> bytes:
        """A file that the server gives."""
        data = None if body is None else json.dumps(body).encode()
        with _opened(urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})) as answer:
            return bytes(answer.read())

    def _open(self, request: urllib.request.Request, auth: str | None) -> Any:
        if auth:
            request.add_header("Authorization", f"Basic {base64.b64encode(auth.encode()).decode()}")
        with _opened(request) as answer:
            return json.loads(answer.read())

    def status(self, path: str, body: Any = None, auth: str | None = None) -> tuple[int, str]:
        """HTTP status and text of a call that may fail."""
        try:
            answer = self.get(path, auth) if body is None else self.post(path, body, auth)
            return 200, json.dumps(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode("utf-8", "replace")


def _opened(request: urllib.request.Request) -> Any:
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=240)


def picture(encoded: str) -> NDArray[np.uint8]:
    """A base64 picture of the API as uint8 `[H, W, 3]`."""
    data = base64.b64decode(encoded.split(",", 1)[-1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def encoded(picture: NDArray[np.uint8]) -> str:
    """uint8 `[H, W, 3]` or `[H, W]` as base64 PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
