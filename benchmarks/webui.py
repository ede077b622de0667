"""What DAAM Lens costs inside a running WebUI, with it and without it taking turns: `python -m benchmarks.webui`."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.webui.checkpoints import full_shape_checkpoint, ldm_checkpoint
from tests.webui.hosts import Server, find

from .report import table, write

PROMPT = "a red house and a green tree, old small boat, blue sky"


def seconds(server: Server, body: dict[str, Any], lens: dict[str, Any] | None) -> float:
    """Wall-clock seconds of one picture over the API."""
    asked = dict(body)
    if lens is not None:
        asked["alwayson_scripts"] = {"DAAM Lens": {"args": [{"enabled": True, **lens}]}}
    begin = time.perf_counter()
    server.post("/sdapi/v1/txt2img", asked)
    return time.perf_counter() - begin


def measure(name: str, side: int, steps: int, rounds: int) -> list[list[str]]:
    """Rows of the table for one host: median seconds without, recording only, and with eight overlays."""
    host, why = find(name)
    if host is None:
        return [[name, f"{side} px, {steps} steps", why, "", "", ""]]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        models = data / "models" / "Stable-diffusion"
        models.mkdir(parents=True)
        (ldm_checkpoint if name == "a1111" else full_shape_checkpoint)(models)
        server = Server(host, data)
        try:
            server.wait()
            body = {"prompt": PROMPT, "steps": steps, "width": side, "height": side, "seed": 1, "sampler_name": "Euler"}
            quiet: dict[str, Any] = {"overlays": False, "report": False}
            ways: list[dict[str, Any] | None] = [None, quiet, {"report": False}]
            times: list[list[float]] = [[] for _ in ways]
            for turn in range(rounds + 1):
                for way, found in zip(ways, times, strict=True):
                    spent = seconds(server, body, way)
                    if turn:  # the first turn warms up
                        found.append(spent)
        finally:
            server.stop()
    bare, recorded, drawn = (statistics.median(found) for found in times)
    shape = f"{side} px, {steps} steps"
    return [
        [name, shape, f"{bare:.2f} s", f"{recorded:.2f} s", f"{recorded / bare:.3f}", f"{1000 * (drawn - recorded):.0f} ms"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", nargs="+", default=["a1111", "forge", "reforge"])
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rows = [row for name in args.hosts for row in measure(name, args.side, args.steps, args.rounds)]
    head = ["host", "work", "without", "recording", "ratio", "8 overlays, drawn and sent"]
    text = table(head, rows)
    print(text)
    write("WebUI", text)


if __name__ == "__main__":
    main()
