"""`accelerate launch`: two processes give, byte for byte, the rows of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from daam_core.cli import main

ROOT = Path(__file__).parents[2]
PROMPTS = "a red house\na yellow sun and a blue boat\na green fish at sea\n"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one_byte_for_byte(tmp_path: Path) -> None:
    """Two CPU processes (gloo), started by accelerate: each measures its part, the first one merges."""
    (tmp_path / "prompts.txt").write_text(PROMPTS, encoding="utf-8")
    arguments = ["study", "segmentation", "--prompts", str(tmp_path / "prompts.txt"), "--steps", "3", "--judge-scenes", "1"]
    arguments += ["--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port())]
    command = [*launch, "-m", "daam_core", *arguments, "--out", str(tmp_path / "two")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("rows.csv", "report.md", "report.html"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    parts = sorted((tmp_path / "two" / ".measured").glob("*/part-*.jsonl"))
    units = [{json.loads(line)["unit"] for line in part.read_text(encoding="utf-8").splitlines()} for part in parts]
    assert [part.name for part in parts] == ["part-0.jsonl", "part-1.jsonl"]
    assert not units[0] & units[1]
    assert [len(part) for part in units] == [2, 2]
    assert json.loads((tmp_path / "two" / "run.json").read_text(encoding="utf-8"))["processes"] == 2
    assert done.stdout.count("rows.csv") == 1


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_with_its_sentence(tmp_path: Path) -> None:
    """Nobody waits for a process that is gone."""
    (tmp_path / "prompts.txt").write_text("a house\n\na fish\n", encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    command += ["-m", "daam_core", "study", "segmentation", "--prompts", str(tmp_path / "prompts.txt"), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode != 0
    assert "has empty lines (2)" in done.stderr
    assert not (tmp_path / "out" / "run.json").exists()
