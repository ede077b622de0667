"""A running SD.Next with this repository as its extension, and small pipelines of every kind that is tried there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daam_core import HeatMaps

from .hosts import ROOT, Host, Server, picture
from .pipeline_folders import flux, lora, sd15, sdxl

FLAGS = ("--skip-all", "--api", "--use-cpu", "all", "--no-half")
SETTINGS = {
    "sd_model_checkpoint": "Diffusers/tiny", "sd_vae": "None", "cuda_dtype": "FP32", "diffusers_offload_mode": "none",
    "samples_format": "png",  # its pictures of the API, too: as JPEG, two might differ and look alike
    "samples_save": True, "grid_save": False, "save_to_dirs": False, "show_progress_every_n_steps": 0,
    "sdnq_dequantize_compile": False,  # asks for triton
    "diffusers_pipeline": "From the folder",  # no kind of the host's own, whose loaders fetch shared parts of models
}  # fmt: skip


BESIDE = [Path(__file__).with_name(name) for name in ("detection_script.py", "control_script.py")]
CONTROL_LIST = "control_extensions = ["


def listed_for_control(host: Host, data: Path) -> Path:
    """The host's program with DAAM Lens on its list of scripts for the tab Control, as docs/webui.md tells a user to write it;
    the host's own files stay as they are."""
    # gradio 3 serves no page file from under a folder whose name begins with a dot: the program is copied, not linked.
    program = data / "program"
    shutil.copytree(host.folder, program, ignore=shutil.ignore_patterns(".*", "venv", "__pycache__"))
    installer = program / "installer.py"
    text = installer.read_text(encoding="utf-8")
    assert text.count(CONTROL_LIST) == 1, "the list is not where the documentation says"
    installer.write_text(text.replace(CONTROL_LIST, f"{CONTROL_LIST}\n    'DAAM Lens',"), encoding="utf-8")
    return program


class SDNextServer(Server):
    """Talk to it by `post`, `get` and `make`; models lie in `data / "models/Diffusers"`.

    Args:
        control: whether DAAM Lens is on the list of scripts that the tab Control shows.
        kinds: the pipelines that are there; "tiny" is loaded first.
    """

    def __init__(
        self, host: Host, data: Path, control: bool = False, kinds: Sequence[str] = ("tiny", "tiny-xl", "tiny-flow")
    ) -> None:
        self.host, self.data = host, data
        folder = listed_for_control(host, data) if control else host.folder
        models = data / "models" / "Diffusers"
        models.mkdir(parents=True)
        for name in kinds:
            {"tiny": sd15, "tiny-xl": sdxl, "tiny-flow": flux}[name](models / name)
        lora(data / "models" / "Lora" / "strong.safetensors", models / "tiny")
        (data / "extensions").mkdir()
        (data / "extensions" / "daam-lens").symlink_to(ROOT, target_is_directory=True)
        beside = data / "extensions" / "beside" / "scripts"
        beside.mkdir(parents=True)
        for script in BESIDE:
            shutil.copy(script, beside)
        (data / "config.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "PYTHONPATH": "",
            "PYTHONUNBUFFERED": "1",
        }
        command = [str(host.python), "launch.py", *FLAGS, "--port", str(self.port), "--data-dir", str(data)]
        command += ["--models-dir", str(data / "models"), "--extensions-dir", str(data / "extensions")]
        command += ["--log", str(data / "own.log")]
        self._log = (data / "server.log").open("w", encoding="utf-8")
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=self._log, stderr=subprocess.STDOUT)

    def options(self, **values: Any) -> None:
        """The host's own settings."""
        self.post("/sdapi/v1/options", values)

    def make(
        self, lens: dict[str, Any] | None = None, page: str = "txt2img", **body: Any
    ) -> tuple[list[NDArray[np.uint8]], dict[str, Any]]:
        """Pictures and what the host says of them; `lens` are DAAM Lens's arguments by name, None is without it."""
        asked: dict[str, Any] = {
            "prompt": "a red house and a green tree", "negative_prompt": "star", "steps": 2, "width": 128, "height": 128,
            "seed": 7, "cfg_scale": 5, "sampler_name": "Euler", "save_images": True,
        }  # fmt: skip
        asked |= body
        if lens is not None:
            asked["alwayson_scripts"] = {"DAAM Lens": {"args": [{"enabled": True, **lens}]}}
        answer = self.post(f"/sdapi/v1/{page}", asked)
        return [picture(one) for one in answer["images"]], json.loads(answer["info"])

    def recorded(self, lens: dict[str, Any] | None = None, **body: Any) -> tuple[list[HeatMaps], str, int]:
        """Maps, note and number of images that were appended, of a run whose pictures are those of the same run without."""
        bare, _ = self.make(None, **body)
        before = set(self.records())
        ours, info = self.make({"record": True, **(lens or {})}, **body)
        assert bare and all((a == b).all() for a, b in zip(bare, ours, strict=False)), "the picture changed"
        new = sorted(set(self.records()) - before, key=lambda path: path.stat().st_mtime_ns)
        note = str(info["extra_generation_params"].get("DAAM Lens note", ""))
        return [HeatMaps.load(path) for path in new], note, len(ours) - len(bare)

    def records(self) -> list[Path]:
        return list((self.data / "outputs").rglob("*.safetensors"))
