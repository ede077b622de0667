"""What DAAM Lens costs inside a running WebUI, with it and without it taking turns: `python -m benchmarks.webui`.

The extension webui-daam is measured beside it where `WEBUI_DAAM_PATH` is a checkout of it (AUTOMATIC1111 only).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch

from daam_core import HeatMaps
from daam_core.attention.upsample import bicubic
from daam_core.maps.data import RecordedImage
from daam_webui.drawing import draw, map_of
from daam_webui.settings import Settings
from tests.webui.checkpoints import full_shape_checkpoint, ldm_checkpoint
from tests.webui.hosts import Server, find
from tests.webui.ldm_weights import Sizes

from .measure import in_turns, median, ratio
from .report import table, write

PROMPT = "a red house and a green tree, old small boat, blue sky"
WORDS = ["red", "house", "green", "tree", "old", "boat", "blue", "sky"]
PEER = "WEBUI_DAAM_PATH"
FULL = (512, 2, 3)  # pixels, steps and rounds with the widths of Stable Diffusion 1.5
SD15_SIZES = Sizes(channels=320, levels=(1, 2, 4), blocks=2, context=768, vocabulary=1000)


class Clock:
    """A clock: seconds of the wall, or those that the server's process was computing (for a busy machine)."""

    def __init__(self, server: Server, processor: bool) -> None:
        self._process = psutil.Process(server.process.pid) if processor else None

    def now(self) -> float:
        if self._process is None:
            return time.perf_counter()
        spent = self._process.cpu_times()
        return float(spent.user + spent.system)


def lens(**settings: Any) -> dict[str, Any]:
    return {"alwayson_scripts": {"DAAM Lens": {"args": [{"enabled": True, **settings}]}}}


def peer() -> dict[str, Any]:
    # Words, hide and save, caption, grid and its layout, opacity and scale of the maps, layers apart and as rows.
    args = [", ".join(WORDS), False, True, False, False, "Auto", 0.5, 1.0, False, False]
    return {"alwayson_scripts": {"Daam script": {"args": args}}}


def measure(name: str, side: int, steps: int, rounds: int, processor: bool, full: bool) -> list[list[str]]:
    """Rows of the table for one host: medians without, recording only, and with eight overlays, taking turns."""
    work = f"{'SD 1.5 widths' if full else 'tiny'}, {side} px, {steps} steps"
    host, why = find(name)
    if host is None:
        return [[name, work, why, "", "", "", ""]]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        models = data / "models" / "Stable-diffusion"
        models.mkdir(parents=True)
        if name != "a1111":
            full_shape_checkpoint(models)
        else:
            ldm_checkpoint(models, sizes=SD15_SIZES if full else None)
        beside = os.environ.get(PEER, "") if name == "a1111" else ""
        if beside:
            (data / "extensions").mkdir()
            (data / "extensions" / "webui-daam").symlink_to(Path(beside).resolve(), target_is_directory=True)
        server = Server(host, data)
        try:
            server.wait()
            body = {"prompt": PROMPT, "steps": steps, "width": side, "height": side, "seed": 1, "sampler_name": "Euler"}
            ways: dict[str, dict[str, Any]] = {
                "bare": {},
                "recorded": lens(overlays=False),
                "drawn": lens(words=", ".join(WORDS)),
            }
            ways |= {"peer": {**peer(), "save_images": True}} if beside else {}
            times = turns(server, body, ways, rounds, processor)
            kept = retained(server, body)
        finally:
            server.stop()
    seconds = {way: median(found) for way, found in times.items()}
    against = {way: ratio(found, times["bare"]) for way, found in times.items()}
    bare, recorded = f"{seconds['bare']:.2f} s", f"{seconds['recorded']:.2f} s"
    cost = f"{1000 * (seconds['drawn'] - seconds['recorded']):.0f} ms"
    rows = [[name, work, bare, recorded, f"{against['recorded']:.3f}", f"{kept / 2**20:.2f} MB", cost]]
    if beside:
        rows.append([f"{name}, webui-daam", work, bare, f"{seconds['peer']:.2f} s", f"{against['peer']:.2f}", "", ""])
    return rows


def turns(
    server: Server, body: dict[str, Any], ways: dict[str, dict[str, Any]], rounds: int, processor: bool
) -> dict[str, list[float]]:
    """Seconds of each way to make the picture, turn by turn; the first turn warms up."""
    clock = Clock(server, processor)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn, way, more in in_turns(ways, rounds + 1):
        begin = clock.now()
        server.post("/sdapi/v1/txt2img", {**body, **more})
        if turn:
            times[way].append(clock.now() - begin)
    return times


def retained(server: Server, body: dict[str, Any]) -> int:
    """Bytes that are kept of one picture besides the picture itself."""
    server.post("/sdapi/v1/txt2img", {**body, "save_images": True, **lens(overlays=False, record=True)})
    record = next((server.data / "outputs").rglob("*.safetensors"))
    maps = HeatMaps.load(record)
    return maps.nbytes - (0 if maps.picture is None else maps.picture.nbytes)


def making() -> list[list[str]]:
    """Processor milliseconds for eight words of a 512 px picture of SD 1.5's grids: what each way to show them takes, on one
    thread."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    generator = torch.Generator().manual_seed(1)
    grids = [(64, 64), (32, 32), (16, 16), (8, 8)]
    levels = [torch.rand(8, *grid, generator=generator).cumsum(1) for grid in grids]
    picture = np.random.default_rng(1).integers(0, 255, (16, 16, 3), np.uint8).repeat(32, 0).repeat(32, 1)
    maps = bench_maps(picture, generator)
    ways: dict[str, Callable[[], Any]] = {
        "heat maps": lambda: bicubic(levels, (512, 512)),
        "heat maps as pictures": lambda: [map_of(maps, word, "ember") for word in WORDS],
        "overlays with caption": lambda: draw(maps, Settings(words=", ".join(WORDS))).drawn,
        "masks, threshold": lambda: [maps.mask(word, "threshold") for word in WORDS],
        "masks, best": lambda: [maps.mask(word, "best") for word in WORDS],
    }
    rows = [[name, f"{1000 * _median(way):.0f} ms"] for name, way in ways.items()]
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])
    return rows


def bench_maps(picture: np.ndarray[Any, Any], generator: torch.Generator) -> HeatMaps:
    """Maps of PROMPT at SD 1.5's grids: a soft spot for each word, and a self-attention."""
    from tests.webui.test_adapter import words_prompt

    prompt = words_prompt(PROMPT.replace(",", ""))
    centres = torch.rand(prompt.num_channels, 2, generator=generator)
    sums = {}
    for side in (64, 32, 16, 8):
        axis = (torch.arange(side) + 0.5) / side
        far = (axis[None, :, None] - centres[:, :1, None]) ** 2 + (axis[None, None] - centres[:, 1:, None]) ** 2
        sums[side, side] = (-far / 0.03).exp() * 30 + torch.rand(prompt.num_channels, side, side, generator=generator)
    walk = torch.softmax(3 * torch.randn(1024, 1024, generator=generator), -1)
    recorded = RecordedImage(
        sums=sums, time_weighted=sums, num_terms=dict.fromkeys(sums, 8), layers=(), detail=None, heads=None,
        self_attention={(32, 32): walk}, prompt=prompt, steps=20, timesteps=(1.0,) * 20,
    )  # fmt: skip
    return HeatMaps({"prompt": recorded}, (512, 512), picture)


def _median(make: Callable[[], Any], rounds: int = 5) -> float:
    make()
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        make()
        times.append(time.process_time() - begin)
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", nargs="*", default=["a1111", "forge", "reforge"])
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor", action="store_true", help="measure the server's processor time, not the wall clock")
    parser.add_argument("--full", action="store_true", help="A1111 with a UNet of Stable Diffusion 1.5's own widths, too")
    args = parser.parse_args()
    clock = "processor time of the server" if args.processor else "wall clock"
    making_rows, rows = making(), []
    works = [(name, args.side, args.steps, args.rounds, False) for name in args.hosts]
    works += [("a1111", *FULL, True)] if args.full else []
    for name, side, steps, rounds, full in works:
        rows += measure(name, side, steps, rounds, args.processor, full)
        write("WebUI", report(rows, making_rows, clock))  # after each of them: the next one may fail


def report(rows: list[list[str]], making_rows: list[list[str]], clock: str) -> str:
    """The section of the results file."""
    head = ["host", "work", "without", "recording", "ratio", "kept of a picture", "8 overlays, drawn and sent"]
    text = f"Medians, taking turns; the ratio is the median of those within a turn; {clock}.\n\n{table(head, rows)}"
    text += f"\n\nEight words of a 512 px picture, one thread:\n\n{table(['what', 'processor time'], making_rows)}"
    return text if os.environ.get(PEER) else f"{text}\n\nwebui-daam was not measured: {PEER} is not set."


if __name__ == "__main__":
    main()
