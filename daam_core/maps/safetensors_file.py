"""The container of a record: tensors and a JSON header in ONE `.safetensors` file, no pickle.

A record may come from a stranger. So the file is read here and not by a library: the eight bytes of the header's
length, then the header, and only when every size in it has been checked against the file itself is a tensor allocated.
What is written is plain safetensors: any reader of that format can open it.

    metadata["format"]  "daam-lens record"
    metadata["version"] "1"
    metadata["header"]  the caller's header as JSON (no NaN, no infinity)
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from ..errors import BadArgument, BadRecord, CannotWrite, quoted
from ..files import atomic_write, cut_path

FORMAT = "daam-lens record"
VERSION = "1"
SUFFIX = ".safetensors"
LARGEST_RECORD = 2**30
"""Bytes that `read` takes by default. A record of SDXL with all detail is about a tenth of it."""
LARGEST_HEADER = 2**22
MOST_ENTRIES = 250_000
"""Values in the JSON header: what 4 MB of text could blow up to in memory is bounded by this, before it is parsed."""
MOST_TENSORS = 10_000
MOST_AXES = 8
LARGEST_WEIGHTS_HEADER = 100_000_000
"""Bytes of the header of a model's weights, by the format's own rule."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Path:
    """Write a record, whole or not at all: an older file of that name stays until the new one is complete.

    Args:
        path: the file; `.safetensors` is added to a name that does not end with it.
        tensors: by name, any shape of up to 8 axes, any device; real numbers or bool.
        header: what JSON can hold (tuples come back as lists, keys as strings), finite numbers only.

    Returns:
        The path that was written.

    Raises:
        BadArgument: a header or tensor that a record cannot hold, or the path is none.
        CannotWrite: no such folder, no permission, disk full.
    """
    target = with_suffix(path)
    head, payloads = _encode(tensors, header)

    def fill(file: BinaryIO) -> None:
        file.write(head)
        for tensor in payloads:
            file.write(_raw(tensor))

    return atomic_write(target, fill, advice="Choose another place.")


def read(path: str | Path, max_bytes: int = LARGEST_RECORD) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a record that `write` wrote.

    Args:
        path: the file; where it is missing, the same name with `.safetensors` is tried.
        max_bytes: a larger file is refused.

    Returns:
        (tensors by name on the CPU, header). Memory beyond the tensors themselves is bounded by some 50 MB.

    Raises:
        BadRecord: one sentence for anything but a whole record of this version: missing, truncated, foreign (a model),
            too large, or with a header that lies.
        BadArgument: the path is none.
    """
    source = _as_path(path)
    named = cut_path(source)
    try:
        if not source.exists() and with_suffix(source).exists():
            source = with_suffix(source)
        if not stat.S_ISREG(source.stat().st_mode):
            raise BadRecord(f"{named} is not a file; give the path of a record ({SUFFIX}).")
        with source.open("rb") as file:
            return _read_checked(file, named, max_bytes)
    except FileNotFoundError as error:
        raise BadRecord(f"There is no record at {named}.") from error
    except (OSError, ValueError) as error:
        raise BadRecord(f"{named} cannot be read: {_reason(error)}.") from error


def read_weights_header(path: Path) -> dict[str, Any]:
    """What a file of safetensors of any kind (a model's weights) says of its tensors; none is read.

    Returns:
        By name `dtype`, `shape` and `data_offsets`, checked against the file as those of a record are.

    Raises:
        BadRecord: it is not whole, or not safetensors.
        OSError: it cannot be opened.
    """
    named = cut_path(path)
    with path.open("rb") as file:
        entries, room = _checked_header(file, named, LARGEST_WEIGHTS_HEADER, most_entries=LARGEST_WEIGHTS_HEADER)
    entries.pop("__metadata__", None)
    _check_layout(entries, room, named, weights=True)
    return entries


def with_suffix(path: str | Path) -> Path:
    """`run` -> `run.safetensors`; `run.v2` -> `run.v2.safetensors`; a name that has the suffix stays."""
    path = _as_path(path)
    if not path.name:
        raise CannotWrite(f"{quoted(str(path))} is not the name of a file.")
    return path if path.name.lower().endswith(SUFFIX) else path.with_name(path.name + SUFFIX)


def _as_path(path: str | Path) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise BadArgument(f"A record is given by its path, not by {quoted(path, 60)}.") from None


# -- writing -------------------------------------------------------------------------------------------------------


def _encode(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> tuple[bytes, list[Tensor]]:
    """(all bytes before the first tensor, tensors in file order)."""
    entries: dict[str, Any] = {
        "__metadata__": {"format": FORMAT, "version": VERSION, "header": _to_json(header)},
    }
    # Wide types first, as other writers of the format do: every tensor then starts at a multiple of its item size.
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    start = 0
    for name in order:
        tensor = tensors[name]
        if name == "__metadata__" or tensor.dtype not in NAMES or tensor.dim() > MOST_AXES:
            raise BadArgument(f"A record cannot hold {quoted(name)}, {tensor.dtype} of shape {tuple(tensor.shape)}.")
        end = start + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(tensors) > MOST_TENSORS or len(text) > LARGEST_HEADER or _entries(text) > MOST_ENTRIES:
        raise BadArgument(f"A record of {len(tensors)} tensors with a header of {len(text)} bytes is too large.")
    return len(text).to_bytes(8, "little") + text, [tensors[name] for name in order]


def _to_json(header: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(header), allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadArgument(f"The header of a record must be JSON with finite numbers: {error}.") from error


def _raw(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text[:1].lower() + text[1:].rstrip(".")


# -- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    name: str
    dtype: torch.dtype | None
    shape: tuple[int, ...]
    start: int
    end: int


def _read_checked(file: BinaryIO, path: str, max_bytes: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    entries, room = _checked_header(file, path, LARGEST_HEADER)
    metadata = entries.pop("__metadata__", None)
    header = _header(metadata, path)
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        raise BadRecord(f"{path} has {size / 2**20:.0f} MB; records of up to {max_bytes / 2**20:.0f} MB are read.")
    checked = _check_layout(entries, room, path)
    return {entry.name: _tensor(file, entry, path) for entry in checked}, header


def _checked_header(file: BinaryIO, path: str, largest: int, most_entries: int = MOST_ENTRIES) -> tuple[dict[str, Any], int]:
    """(the header of any file of safetensors, bytes behind it); the file stands behind the header then."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or length < 2 or length > largest:
        raise BadRecord(f"{path} is not a record of DAAM Lens.")
    if length > size - 8:
        raise BadRecord(f"{path} is cut short: it ends inside its header. Copy or record it again.")
    return _parse(file.read(length), path, most_entries), size - 8 - length


def _parse(text: bytes, path: str, most_entries: int = MOST_ENTRIES) -> dict[str, Any]:
    """JSON text -> dict, with everything refused that a record never holds."""
    if _entries(text) > most_entries:
        raise BadRecord(f"{path} is not a record of DAAM Lens: its header has too many entries.")
    try:
        parsed = json.loads(text.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"{path} is not a record of DAAM Lens, or it is damaged: its header cannot be read.") from error
    if not isinstance(parsed, dict):
        raise BadRecord(f"{path} is not a record of DAAM Lens: its header is no JSON object.")
    return parsed


def _entries(text: bytes) -> int:
    """At least the number of values in a JSON text."""
    return text.count(b",") + text.count(b"[") + text.count(b"{") + 1


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _header(metadata: object, path: str) -> dict[str, Any]:
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise BadRecord(f"{path} is a safetensors file, but not a record of DAAM Lens (a model, perhaps).")
    if metadata.get("version") != VERSION:
        seen = str(metadata.get("version"))[:20]
        raise BadRecord(f"{path} is a record of version {seen}; this DAAM Lens reads version {VERSION}. Update it.")
    text = metadata.get("header")
    if not isinstance(text, str):
        raise BadRecord(f"{path} is damaged: its header is missing.")
    # A lone surrogate cannot come from `write`, which escapes it once more.
    return _parse(text.encode("utf-8", "replace"), path)


def _check_layout(entries: Mapping[str, Any], room: int, path: str, weights: bool = False) -> list[_Entry]:
    """The tensors in file order, when they fill the file's remaining `room` bytes without gap or overlap.

    Those of a model's `weights` may be more, and of kinds that records do not have (8 bits of float, say).
    """
    if len(entries) > MOST_TENSORS and not weights:
        raise BadRecord(f"{path} is damaged: it claims to hold {len(entries)} tensors.")
    checked = sorted((_entry(name, raw, path, weights) for name, raw in entries.items()), key=lambda e: (e.start, e.end))
    end = 0
    for entry in checked:
        if entry.start != end:
            raise BadRecord(f"{path} is damaged: {_quoted(entry.name)} does not follow the tensor before it.")
        end = entry.end
    if end > room:
        raise BadRecord(f"{path} is cut short: {end - room} of {end} bytes are missing. Copy or record it again.")
    if end < room:
        raise BadRecord(f"{path} is damaged: {room - end} bytes at its end belong to nothing.")
    return checked


def _entry(name: str, raw: Any, path: str, weights: bool) -> _Entry:
    bad = BadRecord(f"{path} is damaged: its entry {_quoted(name)} makes no sense.")
    if not isinstance(raw, dict) or raw.keys() != {"dtype", "shape", "data_offsets"}:
        raise bad
    dtype_name, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype_name, str) or (dtype_name not in DTYPES and not weights):
        raise bad
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(shape) > MOST_AXES or len(offsets) != 2:
        raise bad
    dtype, held = DTYPES.get(dtype_name), offsets[1] - offsets[0]
    # max(d, 1): axes beside an empty one must be small too, or their strides overflow.
    if math.prod(max(d, 1) for d in shape) > 2**40 or held < 0:
        raise bad
    if dtype is not None and math.prod(shape) * dtype.itemsize != held:
        raise bad
    return _Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**48 for v in values)


def _quoted(name: str) -> str:
    return ascii(name if len(name) <= 40 else name[:39] + "…")


def _tensor(file: BinaryIO, entry: _Entry, path: str) -> Tensor:
    assert entry.dtype is not None  # records have known kinds alone
    if entry.end == entry.start:
        return torch.empty(entry.shape, dtype=entry.dtype)
    buffer = bytearray(entry.end - entry.start)
    if file.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
        raise BadRecord(f"{path} is cut short: it became smaller while it was read.")
    flat = torch.frombuffer(buffer, dtype=torch.uint8)
    if entry.dtype is torch.bool and bool((flat > 1).any()):
        raise BadRecord(f"{path} is damaged: {_quoted(entry.name)} holds values that are neither true nor false.")
    return flat.view(entry.dtype).reshape(entry.shape)
