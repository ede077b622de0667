"""A folder in diffusers' format as files: what of it may be loaded, and why it could not be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import BadRecord, UnsupportedModel, quoted
from ..files import bounded_text
from ..maps.safetensors_file import read_weights_header

CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
LARGEST_CONFIG = 2**24
"""Bytes of a config, or of an index of weights in several files."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_POINTER = b"version https://git-lfs"
_AGAIN = "Copy the model again."


@contextmanager
def safetensors_only() -> Iterator[None]:
    """Inside the block nothing is loaded by `torch.load`: an index of weights may name pickles whatever was asked for.

    Raises:
        UnsupportedModel: something was about to be.
    """
    before = torch.load

    def refused(file: Any, *args: Any, **kwargs: Any) -> Any:
        name = Path(str(file)).name
        raise UnsupportedModel(f"{name:.80} is a pickle, which can hold a program: only safetensors are loaded.")

    torch.load = refused  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.load = before


def refusal_within(error: BaseException) -> UnsupportedModel | None:
    """Our own refusal among the errors that led to this one: the libraries wrap what stops them."""
    return next((one for one in _led_to(error) if isinstance(one, UnsupportedModel)), None)


def _led_to(error: BaseException) -> Iterator[BaseException]:
    """An error, and those behind it, each once."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and not any(one is other for other in seen):
        yield one
        seen.append(one)
        one = one.__cause__ or one.__context__


def parts_of(told: Mapping[str, Any]) -> list[str]:
    """The parts that an index of a pipeline names."""
    named = [name for name, part in told.items() if isinstance(part, list) and part and all(isinstance(x, str) for x in part)]
    return [name for name in named if not name.startswith("_")]


def fault_of(folder: Path) -> str:
    """What is wrong with the files of a pipeline's folder, as a sentence; empty where nothing is seen."""
    for part in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(path for path in part.iterdir() if path.is_file())
        for path in files:
            if path.name in CONFIGS or path.name.endswith(".index.json"):
                if settings_in(path) is None:
                    return f"{path} cannot be read as JSON with settings. {_AGAIN}"
                if absent := [name for name in _named_in(path) if not (part / name).is_file()]:
                    return f"{part} has no {absent[0]:.60}, which its index names. {_AGAIN}"
            elif path.suffix == ".safetensors" and (fault := _fault_of_weights(path)):
                return fault
        if (part / "config.json").is_file() and not any(path.suffix == ".safetensors" for path in files):
            old = [path.name for path in files if path.suffix in PICKLES]
            if old:
                return (
                    f"The weights in {part} are a pickle ({old[0]:.60}), which can hold a program, and only safetensors are "
                    "loaded. Take the model's edition in safetensors."
                )
            return f"{part} holds no weights in safetensors. {_AGAIN}"
        if not (part / "config.json").is_file() and any(path.suffix == ".safetensors" for path in files):
            return f"{part} holds weights and no config.json. {_AGAIN}"
    return ""


def check_weight_indexes(folder: Path) -> None:
    """Raises UnsupportedModel where weights in several files are said to lie elsewhere or to be pickles."""
    for path in sorted(folder.glob("*/*.index.json")):
        for name in _named_in(path):
            if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
                raise UnsupportedModel(
                    f"{path} names {quoted(name, 80)} as weights: only safetensors that lie beside it are loaded, no pickle "
                    "and nothing from elsewhere."
                )


def _named_in(path: Path) -> list[str]:
    """The files that an index of weights names; none of an index of pickles beside the safetensors, which nobody reads, or of
    one that cannot be read."""
    if path.name.endswith(".bin.index.json") or not path.is_file():
        return []
    named = (settings_in(path) or {}).get("weight_map")
    return sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []


def settings_in(path: Path) -> dict[str, Any] | None:
    """What a config or an index says, None of one that cannot be read."""
    try:
        told = json.loads(bounded_text(path, LARGEST_CONFIG, "config"))
    except (OSError, ValueError, RecursionError):  # BadArgument, too, for one that is too large
        return None
    return told if isinstance(told, dict) else None


def _fault_of_weights(path: Path) -> str:
    """Whether a file of safetensors is whole, by its header; no tensor is read."""
    try:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                return f"{path} is a pointer of Git LFS, not the weights: run `git lfs pull` in the model's folder."
    except OSError:
        pass
    return "" if header_of(path) is not None else f"{path} is damaged or cut off: it is no whole file of safetensors. {_AGAIN}"


def header_of(path: Path) -> dict[str, Any] | None:
    """What a file of safetensors says of its tensors (`dtype`, `shape`, `data_offsets`) by their names; None of one that is not
    whole. No tensor is read."""
    try:
        return read_weights_header(path)
    except (OSError, BadRecord):
        return None


# -- what a library's error means --------------------------------------------------------------------------------------

_SHAPES = re.compile(r"expected shape|size mismatch|ignore_mismatched_sizes|mismatched shapes", re.IGNORECASE)
_UNREACHED = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError", "ConnectTimeout", "Timeout")
_NOT_THERE = ("RepositoryNotFoundError", "GatedRepoError", "RevisionNotFoundError")


def reason_in_files(folder: Path, error: BaseException) -> str:
    """Why a folder could not be loaded, as sentences: by its files, else by what the libraries stopped at."""
    if fault := fault_of(folder):
        return fault
    where = _part_at(error)
    if _SHAPES.search(str(error)):
        return f"The numbers in the config{where} do not fit its weights. {_AGAIN}"
    return (
        f"The libraries stopped at the files{where} ({type(error).__name__}): they are damaged, or made for another version of "
        f"diffusers or transformers. {_AGAIN}"
    )


def reason_on_hub(error: BaseException) -> str:
    """Why a name on the hub could not be loaded, as sentences."""
    kinds = {kind.__name__ for one in _led_to(error) for kind in type(one).__mro__}
    if any(kind in kinds for kind in _NOT_THERE):
        return "The hub has no such model, or shows it only to those who have asked for it and logged in."
    if any(kind in kinds for kind in _UNREACHED):
        return "The hub was not reached, and the model is not on this machine yet. Give a folder, or try again."
    where = _part_at(error)
    return (
        f"The libraries stopped at its files{where} ({type(error).__name__}): it is no pipeline in diffusers' format with "
        "weights in safetensors, or one for another version of diffusers or transformers."
    )


_PACKAGE = re.compile(r"requires the ([\w.-]+) library|Failed to import ([\w.-]+)|No module named '([\w.-]+)'")


def package_of(error: BaseException) -> str:
    """The package that an error while importing is about, as far as it can be told."""
    found = _PACKAGE.search(str(error))
    name = next(filter(None, found.groups()), "") if found else getattr(error, "name", None) or ""
    return f"the package {quoted(name.partition('.')[0], 60)}" if name else "a package"


def _part_at(error: BaseException) -> str:
    """Which part of a pipeline diffusers was loading, as words for a sentence, as far as it can be told; else empty."""
    found, step = "", error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_name == "load_sub_model":
            name = step.tb_frame.f_locals.get("name")
            found = name if isinstance(name, str) else found
        step = step.tb_next
    return f" of its part {quoted(found, 60)}" if found else ""
