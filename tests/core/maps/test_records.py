"""A record comes back as it was written; anything else is one clear sentence, quickly, without memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from daam_core.errors import BadArgument, BadRecord, CannotWrite
from daam_core.maps import safetensors_file as records

TENSORS = {
    "sums/16x20": torch.arange(3 * 16 * 20, dtype=torch.float32).reshape(3, 16, 20),
    "detail": torch.linspace(0, 1, 24).reshape(2, 3, 4).half(),
    "picture/png": torch.arange(7, dtype=torch.uint8),
    "one": torch.tensor(4.5, dtype=torch.float64),
    "none": torch.zeros(0, 5),
    "mask": torch.tensor([True, False]),
    "late": torch.ones(5, dtype=torch.bfloat16),
}
HEADER = {"prompt": "ein “Haus” 🏠", "size": [128, 160], "steps": 30, "scale": 0.125, "nothing": None, "lone": "\ud83d"}
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def forge(path: Path, entries: Any, data: bytes = b"", length: int | None = None, header: str = "{}") -> Path:
    """A file with our metadata and whatever entries a stranger likes."""
    ours = {"format": records.FORMAT, "version": records.VERSION, "header": header}
    text = entries if isinstance(entries, bytes) else json.dumps({"__metadata__": ours} | entries).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def refused(path: Path, **options: int) -> str:
    """The sentence `read` refuses a file with; fails when it took more than 60 MB to say so."""
    tracemalloc.start()
    try:
        with pytest.raises(BadRecord) as caught:
            records.read(path, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6, f"{peak / 1e6:.0f} MB allocated for a file that is refused"
    assert len(str(caught.value)) < 400 + len(str(path))
    return str(caught.value)


# -- round trips ---------------------------------------------------------------------------------------------------


def test_comes_back_as_written(tmp_path: Path) -> None:
    path = records.write(tmp_path / "run.safetensors", TENSORS, HEADER)
    tensors, header = records.read(path)
    assert header == HEADER
    assert equal(tensors, TENSORS)


def test_is_plain_safetensors(tmp_path: Path) -> None:
    """Other people's tools can open our records."""
    path = records.write(tmp_path / "run.safetensors", TENSORS, HEADER)
    assert equal(load_file(path), TENSORS)


def test_reads_what_the_safetensors_library_wrote(tmp_path: Path) -> None:
    meta = {"format": records.FORMAT, "version": records.VERSION, "header": json.dumps(HEADER)}
    save_file(TENSORS, tmp_path / "run.safetensors", metadata=meta)
    tensors, header = records.read(tmp_path / "run.safetensors")
    assert header == HEADER
    assert equal(tensors, TENSORS)


def test_views_and_shared_memory(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    given_ = {"a": base.T, "b": base[1:], "c": base, "d": base.clone().requires_grad_()}
    assert equal(records.read(records.write(tmp_path / "v", given_, {}))[0], {k: x.detach() for k, x in given_.items()})


def test_tensors_of_a_read_record_can_be_changed(tmp_path: Path) -> None:
    tensors, _ = records.read(records.write(tmp_path / "v", {"x": torch.zeros(3)}, {}))
    tensors["x"] += 1
    assert tensors["x"].tolist() == [1, 1, 1]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def some_tensors(draw: st.DrawFn) -> dict[str, Tensor]:
    names = draw(st.lists(st.text(max_size=12).filter(lambda n: n != "__metadata__"), max_size=5, unique=True))
    made = {}
    for name in names:
        shape = draw(st.lists(st.integers(0, 5), max_size=4))
        dtype = draw(st.sampled_from(list(records.NAMES)))
        made[name] = torch.arange(int(torch.tensor(shape).prod()) if shape else 1).reshape(shape).to(dtype)
    return made


@SHARED
@given(tensors=some_tensors(), header=st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_round_trip_of_anything(tmp_path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    back, same = records.read(records.write(tmp_path / "any.safetensors", tensors, header))
    assert same == header
    assert equal(back, tensors)


@pytest.mark.parametrize(
    ("asked", "written"),
    [("run", "run.safetensors"), ("run.v2", "run.v2.safetensors"), ("RUN.SafeTensors", "RUN.SafeTensors")],
)
def test_suffix(tmp_path: Path, asked: str, written: str) -> None:
    assert records.write(str(tmp_path / asked), {}, {}).name == written
    assert records.read(str(tmp_path / asked)) == ({}, {})


# -- what cannot be written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [{"x": float("nan")}, {"x": float("inf")}, {"x": {1, 2}}, {"x": torch.ones(1)}])
def test_header_that_json_cannot_hold(tmp_path: Path, header: dict[str, Any]) -> None:
    with pytest.raises(BadArgument, match="JSON"):
        records.write(tmp_path / "x", {}, header)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tensors", [{"__metadata__": torch.ones(1)}, {"z": torch.ones(1, dtype=torch.complex64)}])
def test_tensor_that_a_record_cannot_hold(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    with pytest.raises(BadArgument, match="cannot hold"):
        records.write(tmp_path / "x", tensors, {})


def test_missing_folder_and_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="no such file or directory"):
        records.write(tmp_path / "nowhere" / "x", {}, {})
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(CannotWrite, match="Cannot write"):
        records.write(tmp_path / "x", {}, {})
    with pytest.raises(CannotWrite):
        records.write(tmp_path / "a\0b", {}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the administrator may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CannotWrite, match="permission"):
        records.write(tmp_path / "x", {}, {})


@pytest.mark.skipif(os.name == "nt", reason="file size limits are POSIX")
def test_full_disk_keeps_the_older_record(tmp_path: Path) -> None:
    """A limit on file size stands for a full disk: the older file stays, no rubbish lies beside it."""
    old = records.write(tmp_path / "run", {"x": torch.ones(3)}, {"old": True})
    code = (
        "import resource, sys, torch\n"
        "from daam_core.maps import safetensors_file as records\n"
        "from daam_core.errors import CannotWrite\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try: records.write(sys.argv[1], {'x': torch.ones(10000)}, {})\n"
        "except CannotWrite as error: sys.exit(7 if 'too large' in str(error) else str(error))\n"
    )
    root = Path(records.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, str(old)], cwd=root, check=False).returncode == 7
    assert records.read(old)[1] == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def test_too_many_tensors_are_not_written(tmp_path: Path) -> None:
    x = torch.zeros(0)
    with pytest.raises(BadArgument, match="too large"):
        records.write(tmp_path / "x", {str(i): x for i in range(records.MOST_TENSORS + 1)}, {})


# -- what cannot be read -------------------------------------------------------------------------------------------


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "There is no record" in refused(tmp_path / "x.safetensors")
    assert "not a file" in refused(tmp_path)
    with pytest.raises(BadRecord):
        records.read("a\0b")


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"PK\x03\x04 a zip file, as torch.save writes", b"\x80\x02}q\0.", b"\xff" * 64]
)
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    assert "not a record" in refused(path)


def test_a_model_is_called_a_model(tmp_path: Path) -> None:
    save_file({"unet.weight": torch.ones(4, 4)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "a model, perhaps" in refused(tmp_path / "model.safetensors")
    save_file({"unet.weight": torch.ones(4, 4)}, tmp_path / "bare.safetensors")
    assert "a model, perhaps" in refused(tmp_path / "bare.safetensors", max_bytes=10)


def test_other_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(records, "VERSION", "2")
        path = records.write(tmp_path / "x", TENSORS, {})
    assert "version 2" in refused(path)


def test_every_truncation(tmp_path: Path) -> None:
    whole = records.write(tmp_path / "x", TENSORS, HEADER).read_bytes()
    part = tmp_path / "part"
    for length in [*range(40), *range(40, len(whole), 97), len(whole) - 1]:
        part.write_bytes(whole[:length])
        with pytest.raises(BadRecord):
            records.read(part)
    assert "cut short: 1 of" in refused(part)
    part.write_bytes(whole + b"\0")
    assert "1 bytes at its end" in refused(part)


def test_oversized_without_reading_it(tmp_path: Path) -> None:
    """A sparse file of 8 GB is refused at once."""
    path = forge(tmp_path / "x", {"a": {"dtype": "U8", "shape": [2**33], "data_offsets": [0, 2**33]}})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 2**33)
    assert "8192 MB" in refused(path)
    small = records.write(tmp_path / "small", {"a": torch.ones(100)}, {})
    assert "up to 0 MB" in refused(small, max_bytes=100)


def test_weights_are_checked_as_records_are(tmp_path: Path) -> None:
    """Of kinds that records do not have, and with nothing of ours in the header: no tensor is read."""
    whole = {"a": {"dtype": "F8_E4M3", "shape": [2, 3], "data_offsets": [0, 6]}, "b": _entry_of([2], 6, 14)}
    path = forge(tmp_path / "weights.safetensors", whole, bytes(14))
    assert records.read_weights_header(path) == whole
    for spoiled in (
        {"a": whole["a"]},
        {**whole, "b": _entry_of([2], 5, 13)},
        {**whole, "b": _entry_of([3], 6, 14)},
        {**whole, "b": _entry_of(["x"], 6, 14)},
        {**whole, "b": {"dtype": "F32"}},
    ):
        with pytest.raises(BadRecord):
            records.read_weights_header(forge(tmp_path / "spoiled.safetensors", spoiled, bytes(14)))


def _entry_of(shape: list[Any], start: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**33, records.LARGEST_HEADER + 1, 1, 0])
def test_length_of_the_header_lies(tmp_path: Path, length: int) -> None:
    assert "not a record" in refused(forge(tmp_path / "x", {}, length=length))


def one(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


NONSENSE = {
    "unknown dtype": one(dtype="F128"),
    "dtype is a list": one(dtype=["F32"]),
    "dtype is missing": {"a": {"shape": [1], "data_offsets": [0, 4]}},
    "one field too many": {"a": one()["a"] | {"code": "print()"}},
    "not an object": {"a": 4},
    "negative axis": one(shape=[-1], offsets=[0, -4]),
    "two negative axes": one(shape=[-1, -1]),
    "fractional axis": one(shape=[1.0]),
    "bool for an axis": one(shape=[True]),
    "text for a shape": one(shape="1"),
    "product wraps around at 2**64 to 1": one(shape=[2**32, 2**32, 1], offsets=[0, 0]),
    "huge beside empty": one(shape=[0, 2**47, 2**47, 2**47], offsets=[0, 0]),
    "nine axes": one(shape=[1] * 9),
    "offset before the start": one(offsets=[-4, 0]),
    "offset beyond the end": one(offsets=[4, 8]),
    "offsets swapped": one(offsets=[4, 0]),
    "three offsets": one(offsets=[0, 4, 4]),
    "shape and offsets differ": one(shape=[2]),
    "overlap": one() | {"b": one()["a"]},
    "gap": {"a": one(offsets=[0, 4])["a"], "b": one(offsets=[8, 12])["a"]},
    "claims a terabyte": one(dtype="U8", shape=[2**40], offsets=[0, 2**40]),
    "claims more than can be counted": one(dtype="U8", shape=[2**60], offsets=[0, 2**60]),
    "bool that is neither": one(dtype="BOOL", shape=[4]),
}


@pytest.mark.parametrize("entries", NONSENSE.values(), ids=NONSENSE)
def test_entries_that_lie(tmp_path: Path, entries: dict[str, Any]) -> None:
    assert any(say in refused(forge(tmp_path / "x", entries, b"\7" * 4)) for say in ("damaged", "cut short"))


TEXTS = {
    "no JSON": b"{ nonsense }",
    "no object": b"[1, 2, 3]",
    "not UTF-8": b'{"\xff\xfe": 1}',
    "deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of a million digits": b'{"a": ' + b"9" * 1_000_000 + b"}",
    "a name twice": b'{"a": 1, "a": 2}',
    "NaN": b'{"a": NaN}',
    "infinity by overflow": b'{"a": 1e999}',
    "millions of lists": b'{"a": [' + b"[]," * 1_300_000 + b"[]]}",
    "metadata is a list": b'{"__metadata__": []}',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_header_that_is_hostile(tmp_path: Path, text: bytes) -> None:
    assert "not a record" in refused(forge(tmp_path / "x", text))


@pytest.mark.parametrize("header", ['{"a": NaN}', '{"a": -Infinity}', "[]", "{", "[" * 100_000, '{"a": 1, "a": 1}'])
def test_inner_header_that_is_hostile(tmp_path: Path, header: str) -> None:
    assert "not a record" in refused(forge(tmp_path / "x", {}, header=header))


def test_a_million_tensors(tmp_path: Path) -> None:
    many = {f"{i:x}": one(shape=[0], offsets=[0, 0])["a"] for i in range(20_000)}
    assert "20000 tensors" in refused(forge(tmp_path / "x", many))
    text = b"{" + b",".join(b'"%x":{}' % i for i in range(300_000)) + b"}"
    assert "too many entries" in refused(forge(tmp_path / "x", text))


WHOLE: list[bytes] = []


@settings(SHARED, max_examples=300)
@given(data=st.data())
def test_random_damage_never_gives_another_error(tmp_path: Path, data: st.DataObject) -> None:
    """A flipped byte gives a record (the numbers changed) or BadRecord, never anything else."""
    if not WHOLE:
        WHOLE.append(records.write(tmp_path / "whole", TENSORS, HEADER).read_bytes())
    damaged = bytearray(WHOLE[0])
    for _ in range(data.draw(st.integers(1, 4))):
        # Mostly in the header, where damage is dangerous.
        place = data.draw(st.integers(0, 900) | st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789{}[],:"-.eE '))
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    try:
        tensors, header = records.read(path)
    except BadRecord:
        return
    assert isinstance(header, dict)
    assert sum(x.numel() * x.element_size() for x in tensors.values()) <= len(damaged)


def test_fifo_is_not_waited_for(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in refused(tmp_path / "pipe")
