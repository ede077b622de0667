"""Real ComfyUIs on this machine: where they are, and two ways to run them.

`Inside` keeps one process per version in which ComfyUI is imported and named cases run; `Server` starts the program itself
and talks to it over HTTP, as a browser does.
"""

from __future__ import annotations

import ast
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).parent / "inside"
PLACES = {
    "0.3.64": ("COMFYUI_PATH", "COMFYUI_PYTHON", "ComfyUI"),
    "0.33": ("COMFYUI_NEW_PATH", "COMFYUI_NEW_PYTHON", "ComfyUI-0.33"),
}


@dataclass(frozen=True)
class Host:
    """A ComfyUI checkout and the interpreter to run it with."""

    version: str
    path: Path
    python: str


def find(version: str) -> Host | str:
    """The host, or a sentence that says where it was looked for."""
    variable, interpreter, folder = PLACES[version]
    path = Path(os.environ.get(variable) or Path.home() / ".cache" / "daam-lens" / folder)
    if not (path / "main.py").is_file():
        return f"no ComfyUI {version}: looked at ${variable} and ~/.cache/daam-lens/{folder}"
    own = path / ".venv" / "bin" / "python"
    return Host(version, path, os.environ.get(interpreter) or str(own if own.is_file() else sys.executable))


def case_names(module: str) -> list[str]:
    """The cases of a module of `inside`, read without importing it (only ComfyUI's own process can)."""
    tree = ast.parse((INSIDE / f"{module}.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("case_")]


class Inside:
    """A process with ComfyUI imported; `run` asks it for one case."""

    def __init__(self, host: Host, log: Path) -> None:
        self._log = log
        self._answers: queue.Queue[str] = queue.Queue()
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [host.python, str(INSIDE / "runner.py"), str(host.path), str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=environment,
            cwd=log.parent,
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._answer(240)  # "ready"

    def run(self, module: str, case: str, seconds: float = 600) -> Any:
        """The value a case returned; its failure is raised here with its own traceback."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"module": module, "case": case}) + "\n")
        self._process.stdin.flush()
        answer = self._answer(seconds)
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _answer(self, seconds: float) -> Any:
        line = self._answers.get(timeout=seconds)
        if not line:
            raise RuntimeError(f"ComfyUI's process ended:\n{self._log.read_text()[-3000:]}")
        return json.loads(line)


class Server:
    """ComfyUI itself, on a free port, with a base folder of its own in which our pack is the only custom node."""

    def __init__(self, host: Host, base: Path) -> None:
        for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (base / name).mkdir(parents=True, exist_ok=True)
        link = base / "custom_nodes" / "daam-lens"
        if not link.exists():
            link.symlink_to(ROOT)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.version, self.address, self.base, self._log = host.version, f"http://127.0.0.1:{port}", base, base / "server.log"
        command = [host.python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base)]
        command += ["--disable-api-nodes", "--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}"]
        self._process = subprocess.Popen(
            command,
            cwd=host.path,
            stdout=self._log.open("w"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        )
        self._wait_until_up()

    def get(self, path: str) -> Any:
        """JSON of a GET."""
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.loads(answer.read())

    def post(self, path: str, body: Any) -> Any:
        """JSON of a POST; an error's JSON is returned as it is."""
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return json.loads(error.read() or b"{}")

    def queue(self, graph: dict[str, Any], seconds: float = 240) -> dict[str, Any]:
        """Run a graph in API format; its history entry once it is done."""
        answer = self.post("/prompt", {"prompt": graph})
        assert "prompt_id" in answer, json.dumps(answer, indent=1)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            history = self.get(f"/history/{answer['prompt_id']}")
            if history:
                return dict(history[answer["prompt_id"]])
            time.sleep(0.1)
        raise TimeoutError(f"the graph did not end in {seconds} s:\n{self.log()[-2000:]}")

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _wait_until_up(self) -> None:
        end = time.monotonic() + 240
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI did not start:\n{self.log()[-3000:]}")
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.3)
        self.close()
        raise TimeoutError(f"ComfyUI did not answer:\n{self.log()[-3000:]}")
