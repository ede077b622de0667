"""No network, no telemetry: painting, maps, masks, records and pages ask nobody for anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        if event != "socket.connect" or isinstance(arguments[1], tuple):  # not a socket of this machine's own processes
            print("asked for", event, arguments, flush=True)
            raise PermissionError(event)

sys.addaudithook(watch)
from daam_core.cli.parser import main
folder = sys.argv[1]
assert main(["generate", "a red house", "--steps", "2", "--out", folder]) == 0
record = folder + "/record.safetensors"
assert main(["mask", record, "--word", "house"]) == 0
assert main(["show", record]) == 0
assert main(["explore", record]) == 0
assert main(["doctor", "--record", record]) in (0, 1)  # 1 where the environment names a host that is not there
"""


def test_nothing_is_asked_of_a_network(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "asked for" not in done.stdout


def test_asking_would_be_seen(tmp_path: Path) -> None:
    asking = CODE.split("from daam_core")[0] + "import socket\nsocket.create_connection(('192.0.2.1', 9), timeout=1)"
    done = subprocess.run([sys.executable, "-c", asking, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode != 0 and "asked for socket." in done.stdout
