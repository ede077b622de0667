"""The command line at its edges: closed pipes, full disks, old terminals, stray bytes, a folder that is used twice."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from daam_core import HeatMaps
from daam_core.cli import output, parts
from daam_core.cli.parser import PIPE_CLOSED, USER_ERROR, main
from daam_core.cli.parts import EVEN, why_no_mask
from daam_core.diffusers import loading
from daam_core.errors import UnsupportedModel
from daam_core.maps import safetensors_file as records
from daam_core.maps.aggregation import AGGREGATIONS
from daam_core.studies.registry import STUDIES, load_study
from daam_core.tiny.load import WEIGHTS
from daam_core.tiny.package_weights import PIPELINE

PROMPT = "a red house and a green tree"
QUICK = ["--steps", "2", "--seed", "5"]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    assert main(["generate", PROMPT, "--out", str(folder), *QUICK, "--save", "record"]) == 0
    return folder / "record.safetensors"


class Broken(io.RawIOBase):
    """What a shell's pipe or disk is to us: it takes `room` bytes, then fails."""

    def __init__(self, error: OSError, room: int = 0) -> None:
        self.error, self.room = error, room

    def writable(self) -> bool:
        return True

    def write(self, content: typing.Any) -> int:
        taken = min(self.room, len(content))
        if taken == 0:
            raise self.error
        self.room -= taken
        return taken


def terminal(raw: typing.Any, encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(raw) if isinstance(raw, io.RawIOBase) else raw, encoding=encoding)


# -- pipes, disks, terminals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 10])
@pytest.mark.parametrize(
    ("error", "code"), [(BrokenPipeError(32, "Broken pipe"), PIPE_CLOSED), (OSError(28, "No space left on device"), USER_ERROR)]
)
def test_nobody_reads_or_nothing_fits(
    record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, code: int, room: int
) -> None:
    dropped: list[int] = []
    monkeypatch.setattr(output, "drop", lambda: dropped.append(1))
    monkeypatch.setattr("daam_core.cli.parser.drop", lambda: dropped.append(1))
    monkeypatch.setattr(sys, "stdout", terminal(Broken(error, room)))
    assert main(["show", str(record)]) == code
    assert dropped
    err = capsys.readouterr().err
    assert err == ("" if code == PIPE_CLOSED else "daam-lens: Cannot print: No space left on device.\n")


def test_an_error_that_is_not_about_printing_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error", "some/file")

    monkeypatch.setattr("daam_core.cli.commands.show", fails)
    with pytest.raises(OSError, match="some/file"):
        main(["show", "x"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["--version"]])
def test_a_real_full_device_and_a_real_closed_pipe(arguments: list[str]) -> None:
    """Python writes once more when it ends: that must not print a traceback either."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

    def run(stdout: typing.Any, **more: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "daam_core", *arguments]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=buffered | more)
        return done.returncode, done.stderr

    with open("/dev/full", "wb") as full:
        assert run(full) == (USER_ERROR, "daam-lens: Cannot print: No space left on device.\n")
        # argparse itself passes over what it could not print.
        assert run(full, PYTHONUNBUFFERED="1")[1].count("\n") <= 1
    read, write = os.pipe()
    os.close(read)
    assert run(write) == (PIPE_CLOSED, "")
    assert run(write, PYTHONUNBUFFERED="1")[1] == ""
    os.close(write)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_terminal_prints_the_report(record: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    maps = HeatMaps.load(record)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", terminal(raw, encoding))
    monkeypatch.setattr("daam_core.cli.commands.load", lambda _: maps)
    monkeypatch.setattr("daam_core.maps.prompt_report.PromptReport.lines", lambda _: ["“a” − ‘b’ … × 家 \udcff"])
    assert main(["show", "x"]) == 0
    printed = raw.getvalue().decode(encoding).splitlines()[-1]
    assert (
        printed
        == {
            "ascii": "\"a\" - 'b' ... x ? ?",
            "latin-1": "\"a\" - 'b' ... × ? ?",
            "cp1252": "“a” - ‘b’ … × ? ?",
            "utf-8": "“a” − ‘b’ … × 家 ?",
        }[encoding]
    )
    assert sys.stdout.errors == "strict", "what it was before"


def test_nothing_of_a_record_is_obeyed_by_a_terminal(
    record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A stranger's prompt may hold what sets a window's title, clears the screen or writes into the clipboard."""
    tensors, header = records.read(record)
    hostile = "a \x1b]52;c;ZXZpbA==\x07\x1b[2Jred\x9b31m\rhouse\ttree\x7f"
    header["prompt"]["text"] = hostile
    header["prompt"]["truncated"] = [hostile]
    for word in header["prompt"]["words"]:
        word.update(label=f"{hostile}{word['label']}", text=hostile)
    path = records.write(tmp_path / "hostile", tensors, header)
    before = sys.stdout
    for arguments in (
        ["show", str(path)],
        ["report", str(path)],
        ["words", str(path), "--region", "0,0,9,9"],
        ["mask", str(path), "--word", f"{hostile}house", "--method", "threshold"],
        ["mask", str(path), "--word", "\x1b[2Jdragon"],
        ["compare", str(path), str(path)],
        ["explore", str(path), "--out", str(tmp_path / "\x1b[2J.html")],
    ):
        main(arguments)
        said = "".join(capsys.readouterr())
        assert said and not [c for c in said if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)], arguments
    assert sys.stdout is before


# -- what was typed --------------------------------------------------------------------------------------------------


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads a model in this test fails."""

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(loading, "load_pipeline", loaded)


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["a red house \udcff"], "broken character"),
        (["\udcffa red house"], "broken character"),
        ([PROMPT, "--negative", "a \ud83d"], "negative prompt is not text"),
        ([PROMPT, "--negative", "x" * 2001], "negative prompt has 2001 characters"),
        ([PROMPT, "--device", "gpu"], "'gpu' is no device"),
        ([PROMPT, "--device", "cuda:"], "no device"),
        ([PROMPT, "--device", "cuda:-1"], "no device"),
        ([PROMPT, "--device", ""], "an empty argument"),
        ([PROMPT, "--model", "no/such/folder"], "no folder"),
        ([PROMPT, "--model", "./nothing"], "no folder"),
        ([PROMPT, "--model", ""], "an empty argument"),
        ([PROMPT, "--model", "a b"], "no folder"),
        ([PROMPT, "--model", "x" * 5000], "no folder"),
        ([PROMPT, "--model", "\0"], "no folder"),
        ([PROMPT, "--words", "house,dragon"], "'dragon' is not in the prompt"),
        ([PROMPT, "--words", "house red"], "not in the prompt"),
        ([PROMPT, "--words", "\udcff"], "not in the prompt"),
        ([PROMPT, "--method", "magic"], "no mask method"),
        ([PROMPT, "--aggregation", "mean"], "no aggregation"),
        ([PROMPT, "--colormap", "rainbows"], "no colour map"),
        ([PROMPT, "--opacity", "2"], "--opacity"),
        ([PROMPT, "--guidance", "-1"], "-1 is not a number from 0 on"),
        ([PROMPT, "--steps", "9" * 30], "is not a whole number from 1 to 2^63 - 1"),
        ([PROMPT, "--words", "-red"], "written --words=-1"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert main(["generate", *arguments]) == USER_ERROR
    err = capsys.readouterr().err
    assert complaint in err and err.count("\n") == 1
    assert not list(elsewhere.iterdir()), "nothing was written for it"


def test_model_and_device_are_told_before_torch_is_imported() -> None:
    code = (
        "import sys\nfrom daam_core.cli import main\n"
        "for more in (['--device', 'gpu'], ['--model', 'no/such/folder']):\n"
        "    assert main(['generate', 'a house', *more]) == 2\n"
        "    assert main(['study', 'masks', '--out', 'x', *more]) == 2 or 'pandas' in sys.modules\n"
        "    print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "False" or "study" in done.stderr


def test_words_that_are_there_are_let_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from daam_core.cli import commands

    for words in (["House"], ["red house"], ["a#2"], ["<start>", "tree"]):
        commands.check_typed_words(PROMPT, words)


def test_python_and_command_line_have_the_same_rules(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in AGGREGATIONS)


# -- a folder that is used twice -------------------------------------------------------------------------------------


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_second_picture_takes_the_first_ones_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Masks of the old prompt do not lie among the new; what we did not write stays and is named."""
    save = ["--out", str(tmp_path), "--save", "masks,overlays,report", *QUICK]
    assert main(["generate", "a red house", *save, "--method", "threshold"]) == 0
    old = names(tmp_path)
    assert {"overlay_red.png", "overlay_house.png"} <= old
    (tmp_path / "mask_of-mine.png").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    capsys.readouterr()
    assert main(["generate", "a green tree", *save, "--method", "threshold"]) == 0
    printed = capsys.readouterr().out
    left = {name for name in names(tmp_path) if name.startswith(("overlay_", "mask_"))}
    assert left - {"mask_green.png", "mask_tree.png"} == {"overlay_green.png", "overlay_tree.png", "mask_of-mine.png"}
    assert "Removed what an earlier call had written here: " in printed and "overlay_house.png" in printed
    assert "not of this picture: mask_of-mine.png" in printed
    assert (tmp_path / "notes.txt").read_bytes() == b"mine"
    listed = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["files"]
    assert set(listed) == names(tmp_path) - {"mask_of-mine.png", "notes.txt"}


def test_two_calls_into_one_folder_at_once_leave_the_words_of_the_later_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read the last report before the other had written its own: the words of both lay there, and nothing was said."""
    save = ["--out", str(tmp_path), "--save", "overlays,sheet,report", *QUICK]
    write_sheet = parts.write_sheet

    def meanwhile(*given: typing.Any) -> Path:
        monkeypatch.setattr(parts, "write_sheet", write_sheet)
        assert main(["generate", "a green tree", *save]) == 0
        capsys.readouterr()
        return write_sheet(*given)

    monkeypatch.setattr(parts, "write_sheet", meanwhile)
    assert main(["generate", "a red house", *save]) == 0
    printed = capsys.readouterr().out
    assert "Another call wrote into " in printed and "overlay_tree.png" in printed
    assert {name for name in names(tmp_path) if name.startswith("overlay")} == {"overlay_red.png", "overlay_house.png"}


def test_more_words_of_the_same_picture_stay_together(tmp_path: Path) -> None:
    save = ["--out", str(tmp_path), "--save", "overlays,report", *QUICK]
    assert main(["generate", PROMPT, *save, "--words", "house"]) == 0
    assert main(["generate", PROMPT, *save, "--words", "tree"]) == 0
    assert {"overlay_house.png", "overlay_tree.png"} <= names(tmp_path)


@pytest.mark.parametrize("listed", [None, 3, ["../evil.png", "mask_a/../x.png", 7, "picture.png"], "[" * 100_000])
def test_a_report_that_somebody_wrote_removes_nothing_else(tmp_path: Path, listed: typing.Any) -> None:
    from daam_core.cli.parts import _clear_leftovers, _last_report

    folder = tmp_path / "out"
    folder.mkdir()
    for path in (tmp_path / "evil.png", folder / "picture.png", folder / "mask_x.png"):
        path.write_bytes(b"kept")
    text = listed if isinstance(listed, str) else json.dumps({"files": listed})
    (folder / "report.json").write_text(text)
    now = dict.fromkeys(("prompt", "negative", "model", "seed", "steps", "guidance", "height", "width", "method", "tau"), 1)
    _clear_leftovers(folder, set(), _last_report(folder), now)
    assert (tmp_path / "evil.png").exists() and names(folder) == {"picture.png", "mask_x.png", "report.json"}


# -- masks that say nothing ------------------------------------------------------------------------------------------


def test_a_mask_that_tells_no_place_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {"red": 1.0, "house": 0.5, "green": 0.0, "tree": EVEN - 0.01}

    def mask(self: HeatMaps, word: str, *_: object, **__: object) -> torch.Tensor:
        return torch.arange(10_000).reshape(100, 100) < shares[word] * 10_000

    monkeypatch.setattr(HeatMaps, "mask", mask)
    assert main(["generate", PROMPT, "--out", str(tmp_path), *QUICK, "--save", "masks"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert names(tmp_path) == {"mask_house.png", "mask_tree.png"}
    assert out[-2].startswith("No mask of “red”: the word lies evenly")
    assert out[-1].startswith("No mask of “green”: it would be empty")


def test_a_mask_that_was_asked_for_is_written_and_the_last_line_says_it(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mask", str(record), "--word", "house", "--tau", "0", "--method", "threshold", "--out", str(tmp_path)]) == 0
    assert names(tmp_path) == {"mask_house.png"}
    assert (
        capsys.readouterr().out.splitlines()[-1] == "The mask of “house” says nothing: the word lies evenly over the picture."
    )
    assert why_no_mask(torch.ones(4, 4, dtype=torch.bool)) and not why_no_mask(torch.eye(4, dtype=torch.bool))


# -- the same options as in Python -----------------------------------------------------------------------------------


def test_competitors_aggregation_and_colours_do_what_python_does(record: Path, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    from daam_core.render import contact_sheet

    maps = HeatMaps.load(record)
    asked = ["--method", "compete", "--competitors", "red,green"]
    assert main(["mask", str(record), "--word", "house", *asked, "--out", str(tmp_path)]) == 0
    expected = maps.mask("house", "compete", competitors=["red", "green"]).numpy()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask_house.png")) > 127, expected)
    assert not np.array_equal(expected, maps.mask("house", "compete").numpy())
    colours = ["--colormap", "viridis", "--opacity", "0.5"]
    assert main(["show", str(record), "--out", str(tmp_path), *colours]) == 0
    shares = maps.heat_maps(maps.content_words, maps.size) / sum(maps.num_terms.values())
    heats = dict(zip(maps.content_words, shares, strict=True))
    sheet = contact_sheet(np.full((*maps.size, 3), 128, np.uint8) if maps.picture is None else maps.picture, heats, PROMPT,
                          0.5, "viridis", unit="%")  # fmt: skip
    assert np.array_equal(np.asarray(Image.open(tmp_path / "contact_sheet.png")), sheet)


def test_castorini_s_rule_on_the_command_line(tmp_path: Path) -> None:
    assert main(["generate", PROMPT, "--out", str(tmp_path), *QUICK, "--save", "record", "--aggregation", "castorini"]) == 0
    assert HeatMaps.load(tmp_path / "record.safetensors").aggregation == "castorini"


def test_output_space_on_the_command_line(tmp_path: Path) -> None:
    asked = ["generate", PROMPT, "--out", str(tmp_path), *QUICK, "--save", "record", "--output-space"]
    assert main(asked) == 0
    maps = HeatMaps.load(tmp_path / "record.safetensors")
    assert maps.aggregation == "sum" and maps.output is not None
    assert main([*asked[:-1], "--aggregation", "anchor"]) == 0
    anchor = HeatMaps.load(tmp_path / "record.safetensors")
    torch.testing.assert_close(anchor["house"], maps.aggregate("anchor")["house"])
    picture = tmp_path / "one.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(picture)
    more = ["--noise", "300", "--save", "record", "--aggregation", "output"]
    assert main(["read", str(picture), "--prompt", "a red house", "--out", str(tmp_path / "read"), *more]) == 0
    assert HeatMaps.load(tmp_path / "read" / "record.safetensors").aggregation == "output"


def test_a_folder_of_pictures_is_read_by_equation_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["read", str(tmp_path), "--labels", "house", "--aggregation", "anchor"]) == 2
    assert "leave out --aggregation" in capsys.readouterr().err


# -- studies and models ----------------------------------------------------------------------------------------------


def test_the_list_of_studies_needs_none_of_their_packages() -> None:
    code = (
        "import sys\n"
        "for name in ('pandas', 'scipy', 'statsmodels', 'matplotlib', 'tqdm', 'accelerate', 'diffusers', 'transformers'):\n"
        "    sys.modules[name] = None\n"
        "from daam_core.cli import main\n"
        "try: main(['study', '--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "print(main(['study', 'magic']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in STUDIES) and "Table 2" in done.stdout
    assert done.stdout.splitlines()[-1] == "2" and done.stderr.count("\n") == 1


def test_every_study_is_where_the_list_says() -> None:
    pytest.importorskip("statsmodels", reason="the extra `study` is not installed")
    assert {load_study(name).name for name in STUDIES} == set(STUDIES)


def test_weights_that_could_run_a_program_are_refused(tmp_path: Path) -> None:
    """A pipeline whose UNet is a pickle: it is not opened."""
    shutil.copytree(WEIGHTS / PIPELINE, tmp_path, dirs_exist_ok=True)
    loading.load_pipeline(str(tmp_path), "cpu")
    weights = next((tmp_path / "unet").glob("*.safetensors"))
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(UnsupportedModel, match="safetensors"):
        loading.load_pipeline(str(tmp_path), "cpu")


# -- empty arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", PROMPT, "--out", ""], ["generate", PROMPT, "--out="], ["generate", PROMPT, "--model", " "],
        ["mask", "RECORD", "--word", "house", "--out", ""], ["show", "RECORD", "--out", ""], ["show", ""],
        ["explore", "RECORD", "--out", ""], ["compare", "RECORD", "RECORD", "--out", ""],
        ["report", "RECORD", "--thresholds", ""], ["read", "", "--prompt", "x"],
        ["doctor", "--model", ""], ["doctor", "--record="], ["app", "--host", ""], ["fit-report", ""],
        ["study", "segmentation", "--out", ""], ["tiny", "train", "--work", ""], ["generate", PROMPT, "--o", ""],
    ],
)  # fmt: skip
def test_an_empty_argument_is_no_folder_and_no_address(
    arguments: list[str], record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--out "$FOLDER"` with an empty variable wrote where one stood; `--host ""` would listen on every address."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    assert main([str(record) if one == "RECORD" else one for one in arguments]) == USER_ERROR
    assert "an empty argument; give a value, or leave the argument out." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_empty_text_keeps_its_own_meaning(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "", "--out", str(tmp_path)]) == USER_ERROR
    assert "The prompt is empty" in capsys.readouterr().err
    assert main(["generate", PROMPT, "--negative", "", "--out", str(tmp_path), *QUICK, "--save", "picture"]) == 0
    assert main(["mask", str(record), "--word", "", "--out", str(tmp_path)]) == USER_ERROR
    assert "'' is not in the prompt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cleanup", "said"), [(["--shrink", "500"], "Nothing is left of the mask of “house”"), (["--grow", "500"], "covers all of")]
)
def test_a_mask_that_the_cleanup_emptied_or_filled_is_told(
    cleanup: list[str], said: str, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mask", str(record), "--word", "house", "--out", str(tmp_path), "--method", "threshold", *cleanup]) == 0
    assert said in capsys.readouterr().out
    assert len(set(np.unique(np.asarray(Image.open(tmp_path / "mask_house.png"))))) == 1
