"""Runs a study: measures what is missing, waits for the other processes, writes the results."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CannotWrite, quoted
from ..files import writable_folder
from .files import write_whole
from .model_runner import ModelRunner
from .processes import Processes, processes
from .report import write_report
from .shards import Cost, Kept, Shards
from .study import Found, Row, Study, Unit, Value
from .tables import csv_bytes

if TYPE_CHECKING:
    import pandas as pd

OUTSIDE = frozenset({"out", "prompts", "seeds", "limit", "first_seed", "run"})
"""Common options that choose the units; what is in a unit is told apart by its content."""
_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "scipy", "pandas", "statsmodels", "matplotlib")


def run_study(study: Study, options: argparse.Namespace) -> list[Path]:
    """Measure what is not measured yet and write the results into `options.out`.

    Every process of `accelerate launch` calls this; the first one returns the files it wrote, the others nothing.

    Raises:
        DaamLensError: whatever a user can cause, in one sentence.
    """
    out = writable_folder(options.out)
    units = study.units(options)
    _check_keys(units)
    here = processes(options.device)
    runner = ModelRunner(
        options.model, here.device or options.device, options.aggregation, pipeline_arguments(options), options.threads
    )
    shards = Shards(out, study.name, recipe(study, options, runner, units))
    shards.open()
    done = shards.read(units)
    here.wait()  # nobody writes before all have seen the same state: they share out what is missing
    _measure(study, units, done, runner, shards, here, options)
    here.wait()
    if not here.first:
        return []
    kept = _all(units, shards)
    return _conclude(study, units, kept, runner, options, out, here)


def pipeline_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The common options that the pipeline itself takes."""
    given: dict[str, Any] = {}
    if options.steps:
        given["num_inference_steps"] = options.steps
    if options.guidance is not None:
        given["guidance_scale"] = options.guidance
    if options.size:
        given["height"], given["width"] = options.size
    return given


def recipe(study: Study, options: argparse.Namespace, runner: ModelRunner, units: Sequence[Unit]) -> dict[str, Any]:
    """Everything that the rows of a unit depend on, besides the unit: settings, weights, version."""
    from .. import __version__

    skip = OUTSIDE | study.outside
    settings = {name: _plain(value) for name, value in sorted(vars(options).items()) if name not in skip}
    # A study without units (one that only reads files) needs no model.
    weights = runner.weights_digest if units else None
    return {"study": study.name, "daam_lens": __version__, "weights": weights, **settings}


def _measure(
    study: Study,
    units: Sequence[Unit],
    done: Mapping[str, Kept],
    runner: ModelRunner,
    shards: Shards,
    here: Processes,
    options: argparse.Namespace,
) -> None:
    from tqdm import tqdm

    mine = here.share([unit for unit in units if unit.key not in done])
    bar = tqdm(
        mine, desc=study.name, unit="unit", total=len(mine) + len(done), initial=len(done), disable=not (here.first and units)
    )
    for unit in bar:
        start = (time.perf_counter(), time.process_time())
        measured = study.measure(unit, runner, options)
        cost = Cost(time.perf_counter() - start[0], time.process_time() - start[1], _peak_memory())
        shards.append(here.index, unit, measured, cost)


def _all(units: Sequence[Unit], shards: Shards) -> dict[str, Kept]:
    kept = shards.read(units)
    if missing := [unit.key for unit in units if unit.key not in kept]:
        raise CannotWrite(
            f"{len(missing)} of {len(units)} units are not in {shards.folder}, the first is {quoted(missing[0])}. Every "
            "process must see the same --out folder; start the command again to measure them."
        )
    return kept


def _conclude(
    study: Study,
    units: Sequence[Unit],
    kept: Mapping[str, Kept],
    runner: ModelRunner,
    options: argparse.Namespace,
    out: Path,
    here: Processes,
) -> list[Path]:
    frame = as_frame({"unit": unit.key, **row} for unit in units for row in kept[unit.key].rows)
    pictures = {(unit.key, name): path for unit in units for name, path in kept[unit.key].pictures.items()}
    report = study.conclude(Found(frame, pictures, tuple(units)), options)
    # run.json is the sign that everything else is there.
    marker = out / "run.json"
    if marker.exists():
        marker.unlink()
    written = [write_whole(out / "rows.csv", csv_bytes(frame))]
    written += write_report(report, out)
    about = {
        "study": study.name,
        "arguments": {k: _plain(v) for k, v in sorted(vars(options).items()) if k not in ("run", "out")},
        "units": len(units),
        "rows": len(frame),
        "seeds": sorted({int(unit.content["seed"]) for unit in units if "seed" in unit.content}),
        "weights_sha256": runner.weights_digest if units else None,
        "versions": versions(),
        "machine": platform.machine(),
        "processes": here.count,
        "device": runner.where,
        "seconds_measuring": round(sum(k.cost.seconds for k in kept.values()), 1),
        "processor_seconds_measuring": round(sum(k.cost.processor for k in kept.values()), 1),
        "peak_memory_mb": max((k.cost.memory for k in kept.values() if k.cost.memory), default=None),
        "peak_memory_of_the_report_mb": _peak_memory(),
        **report.facts,
    }
    return [*written, write_whole(marker, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())]


def as_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as a DataFrame; whole numbers stay whole where a row has none (pandas' Int64), a missing float is NaN."""
    import pandas as pd

    columns: dict[str, list[Value]] = {"unit": []}
    count = 0
    for row in rows:
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column += [None] * (count - len(column))
            # The same few words stand in millions of cells.
            column.append(sys.intern(value) if isinstance(value, str) else value)
        count += 1
    for column in columns.values():
        column += [None] * (count - len(column))
    whole = {name: pd.array(cells, dtype="Int64") for name, cells in columns.items() if _kinds(cells) == {int}}
    return pd.DataFrame({**columns, **whole})


def _kinds(cells: Iterable[Value]) -> set[type]:
    return {type(cell) for cell in cells if cell is not None}


def versions() -> dict[str, str]:
    """Of Python, of this package and of what the rows depend on."""
    from .. import __version__

    found = {"python": platform.python_version(), "daam-lens": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _check_keys(units: Sequence[Unit]) -> None:
    seen: set[str] = set()
    for unit in units:
        if unit.key in seen:
            raise ValueError(f"two units have the key {quoted(unit.key)}")
        seen.add(unit.key)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _peak_memory() -> int | None:
    """Megabytes that this process held at most; None on systems that do not tell."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
