"""The command line: what it writes, what it prints, and one sentence for each thing a user can get wrong."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daam_core import HeatMaps
from daam_core.cli.parser import INTERRUPTED, USER_ERROR, build_parser, main
from daam_core.errors import UnsupportedModel
from daam_core.files import LONGEST_NAME, file_name, file_names

PROMPT = "a red house and a green tree"
QUICK = ["--steps", "3", "--seed", "5"]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder made by `generate`, for all tests that only read."""
    folder = tmp_path_factory.mktemp("generated")
    assert main(["generate", PROMPT, "--out", str(folder), *QUICK, "--detail", "steps"]) == 0
    return folder


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a call that the user got wrong."""
    capsys.readouterr()
    assert main(arguments) == USER_ERROR
    out, err = capsys.readouterr()
    assert out == ""
    # Progress bars go to stderr, too; they redraw themselves with \r and with the cursor-up sequence.
    lines = [line for line in re.split(r"[\r\n]|\x1b\[A", err) if line.strip() and "%|" not in line]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


# -- generate --------------------------------------------------------------------------------------------------------


def test_generate_writes_every_promised_file(generated: Path) -> None:
    words = ("red", "house", "green", "tree")
    expected = {"picture.png", "contact_sheet.png", "report.txt", "report.json", "record.safetensors", "explorer.html"}
    expected |= {f"{kind}_{word}.png" for kind in ("overlay", "mask") for word in words}
    expected |= {f"steps_{word}.gif" for word in words}
    # A colour whose word lies evenly over a picture of three steps has no mask, which is said.
    assert expected - {p.name for p in generated.iterdir()} <= {"mask_red.png", "mask_green.png"}
    assert {p.name for p in generated.iterdir()} <= expected


def test_masks_are_black_and_white_and_of_the_picture_s_size(generated: Path) -> None:
    size = Image.open(generated / "picture.png").size
    for path in generated.glob("mask_*.png"):
        pixels = np.asarray(Image.open(path))
        assert pixels.shape == (size[1], size[0])
        assert set(np.unique(pixels)) <= {0, 255}


def test_same_seed_gives_the_same_picture(generated: Path, tmp_path: Path) -> None:
    """What is printed in a report can be made again."""
    assert main(["generate", PROMPT, "--out", str(tmp_path), *QUICK, "--save", "picture"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]
    assert (tmp_path / "picture.png").read_bytes() == (generated / "picture.png").read_bytes()


def test_report_holds_settings_and_words(generated: Path) -> None:
    report = json.loads((generated / "report.json").read_text(encoding="utf-8"))
    assert report["prompt"] == PROMPT
    assert (report["seed"], report["steps"], report["model"]) == (5, 3, "tiny")
    assert [word["word"] for word in report["words"]] == ["red", "house", "green", "tree"]
    assert PROMPT in (generated / "report.txt").read_text(encoding="utf-8")


def test_record_is_the_run(generated: Path) -> None:
    maps = HeatMaps.load(generated / "record.safetensors")
    assert maps.prompt.text == PROMPT
    assert maps.steps == 3
    assert maps.picture is not None
    assert np.array_equal(maps.picture, np.asarray(Image.open(generated / "picture.png")))


def test_without_out_the_folder_is_named_after_prompt_and_seed(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two prompts never overwrite each other, and the printed paths are the ones to type."""
    assert main(["generate", PROMPT, *QUICK, "--save", "picture"]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(Path("daam-lens-out", "a-red-house-and-a-green-tree-5", "picture.png"))]
    assert (elsewhere / printed[0]).is_file()


def test_chosen_words_and_phrases_and_size(tmp_path: Path) -> None:
    """--size is height x width; a repeated word and a phrase get files of their own."""
    arguments = ["--size", "96x160", "--words", "a#2,red house", "--save", "picture,overlays,masks"]
    assert main(["generate", PROMPT, "--out", str(tmp_path), *QUICK, *arguments]) == 0
    assert Image.open(tmp_path / "picture.png").size == (160, 96)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"picture.png"} | {f"{k}_{w}.png" for k in ("overlay", "mask") for w in ("a-2", "red-house")}


def test_negative_prompt_and_guidance_off(tmp_path: Path) -> None:
    assert main(["generate", PROMPT, "--out", str(tmp_path), *QUICK, "--negative", "snow", "--save", "report"]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["negative"] == "snow"
    assert main(["generate", PROMPT, "--out", str(tmp_path), *QUICK, "--guidance", "1", "--save", "report"]) == 0


def test_words_the_model_could_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "a red house " + "and a green tree " * 25
    assert main(["generate", prompt, "--out", str(tmp_path), *QUICK, "--save", "report"]) == 0
    assert "did not read" in capsys.readouterr().out


# -- mask, words, show -----------------------------------------------------------------------------------------------


def test_mask_from_a_record(generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = str(generated / "record.safetensors")
    common = ["mask", record, "--word", "house", "--method", "threshold", "--tau", "0.5"]
    assert main([*common, "--out", str(tmp_path / "plain")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "plain" / "mask_house.png")
    assert main([*common, "--out", str(tmp_path / "grown"), "--grow", "3"]) == 0
    assert main([*common, "--out", str(tmp_path / "rest"), "--invert"]) == 0
    plain, grown, rest = (np.asarray(Image.open(tmp_path / name / "mask_house.png")) for name in ("plain", "grown", "rest"))
    assert (grown >= plain).all()
    assert grown.sum() > plain.sum()
    assert np.array_equal(rest, 255 - plain)


def test_feathered_mask_has_soft_edges(generated: Path, tmp_path: Path) -> None:
    record = str(generated / "record.safetensors")
    arguments = ["--word", "tree", "--method", "threshold", "--feather", "4", "--out", str(tmp_path)]
    assert main(["mask", record, *arguments]) == 0
    assert len(np.unique(np.asarray(Image.open(tmp_path / "mask_tree.png")))) > 2


def test_words_ranks_a_region(generated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["words", str(generated / "record.safetensors"), "--region", "0,0,64,128"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[1:5]} == {"red", "house", "green", "tree"}
    shares = [float(line.split()[1].rstrip("%")) for line in lines[1:5]]
    assert shares == sorted(shares, reverse=True)


def test_show_prints_the_prompt_and_draws_its_sheet(
    generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(generated / "record.safetensors"), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert PROMPT in out
    assert "128 x 128 px" in out
    assert (tmp_path / "contact_sheet.png").read_bytes() == (generated / "contact_sheet.png").read_bytes()


# -- what a user can get wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["paint"], "paint"),
        (["generate"], "PROMPT"),
        (["generate", ""], "prompt is empty"),
        (["generate", " \n "], "prompt is empty"),
        (["generate", "word " * 2000], "10000 characters"),
        (["generate", PROMPT, "--size", "100x128"], "multiples of 8"),
        (["generate", PROMPT, "--size", "0"], "multiples of 8"),
        (["generate", PROMPT, "--size", "axb"], "multiples of 8"),
        (["generate", PROMPT, "--steps", "0"], "--steps"),
        (["generate", PROMPT, "--seed", "-1"], "--seed"),
        (["generate", PROMPT, "--guidance", "nan"], "--guidance"),
        (["generate", PROMPT, "--tau", "1.5"], "--tau"),
        (["generate", PROMPT, "--words", " , "], "--words"),
        (["generate", PROMPT, "--save", "picture,film"], "film"),
        (["generate", PROMPT, "--method", "magic"], "threshold"),
        (["generate", PROMPT, "--words", "dragon", "--steps", "1"], "dragon"),
        (["generate", PROMPT, "--device", "abacus"], "abacus"),
        (["words", "r.safetensors", "--region", "1,2,3"], "x,y,width,height"),
    ],
)
def test_one_sentence_says_what_is_wrong(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in complaint(capsys, *arguments)


def test_a_word_that_is_not_there_lists_those_that_are(generated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "mask", str(generated / "record.safetensors"), "--word", "dragon", "--out", str(generated))
    assert "dragon" in said
    assert "house" in said


def test_a_region_outside_the_picture(generated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "128 x 128" in complaint(capsys, "words", str(generated / "record.safetensors"), "--region", "500,0,9,9")


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before the picture is painted, not after."""
    (tmp_path / "file").write_text("in the way")
    said = complaint(capsys, "generate", PROMPT, "--out", str(tmp_path / "file"))
    assert "Cannot write" in said


def test_a_model_folder_that_is_no_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "model_index.json" in complaint(capsys, "generate", PROMPT, "--model", str(tmp_path), "--out", str(tmp_path / "out"))


def test_a_pipeline_folder_that_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model_index.json").write_text("{ not json")
    complaint(capsys, "generate", PROMPT, "--model", str(model), "--out", str(tmp_path / "out"))


def test_a_model_name_that_leads_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "generate", PROMPT, "--model", "nobody/nothing", "--out", str(tmp_path))
    assert "nobody/nothing" in said


@pytest.mark.parametrize("content", [None, b"", b"not a record"])
def test_a_record_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None) -> None:
    path = tmp_path / "r.safetensors"
    if content is not None:
        path.write_bytes(content)
    complaint(capsys, "show", str(path))


def test_the_picture_is_kept_when_recording_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A picture may have taken an hour: it is written, and the reason why there are no maps is said."""

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError("32 GB")

    monkeypatch.setattr("daam_core.capture.accumulator.Accumulator.add_cross", no_memory)
    said = complaint(capsys, "generate", PROMPT, "--out", str(tmp_path), "--steps", "2")
    assert "memory" in said
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


def test_ctrl_c_says_so_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("daam_core.cli.commands._generate", interrupted)
    assert main(["generate", PROMPT, "--out", str(tmp_path)]) == INTERRUPTED
    assert capsys.readouterr().err == "daam-lens: stopped.\n"


@pytest.mark.parametrize("follows", [RecursionError("maximum recursion depth exceeded"), UnsupportedModel("It is broken.")])
def test_ctrl_c_that_a_library_swallows_is_told_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], follows: Exception
) -> None:
    """NumPy, interrupted while it is imported, is only half there, and what uses it then fails."""

    def swallow(args: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise follows

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background without
    try:
        monkeypatch.setattr("daam_core.cli.commands.show", swallow)
        assert main(["show", "x.safetensors"]) == INTERRUPTED
        assert capsys.readouterr().err == "daam-lens: stopped.\n"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run from its folder without being installed, or installed without what it needs."""

    def missing(name: str) -> None:
        def raised(args: object) -> None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        monkeypatch.setattr("daam_core.cli.commands.show", raised)

    missing("PIL.Image")
    assert "'PIL' is not installed here: pip install" in complaint(capsys, "show", "x.safetensors")
    missing("daam_core.nowhere")
    with pytest.raises(ModuleNotFoundError):
        main(["show", "x.safetensors"])


def test_what_the_app_lacks_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It ended with Python's own "No module named 'fastapi'"."""
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "daam_core.app.server", raising=False)
    told = complaint(capsys, "app")
    assert told.startswith("daam-lens: The app needs fastapi, which is missing here or broken: pip install")


def test_a_tilde_that_the_shell_leaves_is_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`--out=~/maps` made a folder of the name "~"."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert f"There is no record at {tmp_path / 'none'}" in complaint(capsys, "show", "~/none")
    args = build_parser().parse_args(["mask", "x", "--word", "a", "--out=~/maps"])
    assert args.out == str(tmp_path / "maps")
    for command in (["tiny", "evaluate"], ["study", "masks"]):
        args = build_parser(command).parse_args([*command, "--out=~/maps"])
        assert args.out == tmp_path / "maps"


def test_a_colour_map_that_there_is_not_is_told_before_anything_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "none.safetensors", "--colormap", "nope"]) == USER_ERROR
    printed = capsys.readouterr()
    assert printed.err.startswith("daam-lens: There is no colour map 'nope'") and not printed.out


def test_no_memory_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr("daam_core.cli.commands._generate", full)
    assert "--size" in complaint(capsys, "generate", PROMPT, "--out", str(tmp_path))


def test_an_error_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what a user can cause becomes a sentence; a fault of the program keeps its traceback."""

    def faulty(*_: object, **__: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("daam_core.cli.commands._generate", faulty)
    with pytest.raises(RuntimeError, match="shapes"):
        main(["generate", PROMPT, "--out", str(tmp_path)])


# -- help ------------------------------------------------------------------------------------------------------------


def test_help_needs_no_heavy_import() -> None:
    """`daam-lens --help` answers at once: torch alone would take seconds."""
    code = (
        "import sys\nfrom daam_core.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "print([m for m in ('torch', 'numpy', 'PIL', 'cv2', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("generate", "mask", "words", "show", "tiny"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["generate", "mask", "words", "show", "tiny"])
def test_every_command_explains_its_arguments(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "usage: daam-lens" in capsys.readouterr().out


def test_help_names_every_mask_method(capsys: pytest.CaptureFixture[str]) -> None:
    from daam_core.masks.methods import MASK_METHODS

    with pytest.raises(SystemExit):
        main(["mask", "--help"])
    printed = capsys.readouterr().out
    assert not [name for name in MASK_METHODS if not re.search(rf"\b{name}\b", printed)]


def test_the_console_script_and_the_module_are_the_same() -> None:
    program = shutil.which("daam-lens", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("daam-lens is not installed beside this Python")
    runs = [
        subprocess.run([*start, "--version"], capture_output=True, text=True, check=True).stdout
        for start in ([program], [sys.executable, "-m", "daam_core"])
    ]
    assert runs[0] == runs[1]


# -- file names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("house", "house"),
        ("house#2", "house-2"),
        ("red house", "red-house"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "word"),
        ("", "word"),
        ('a\\b:c*d?e"f<g>h|i', "a-b-c-d-e-f-g-h-i"),
        ("naïve", "naïve"),
        ("дом", "дом"),
        ("हिन्दी", "हिन्दी"),
        ("家", "家"),
        ("🏠", "🏠"),
        ("\x00\n\t", "word"),
        ("<start>", "start"),
        ("-rf", "rf"),
    ],
)
def test_file_names_made_of_words_are_safe(word: str, name: str) -> None:
    assert file_name(word) == name


def test_long_words_make_short_names(tmp_path: Path) -> None:
    name = file_name("家" * 10_000)
    assert len(name) == LONGEST_NAME
    (tmp_path / f"overlay_{name}-2.png").touch()


def test_two_words_never_share_a_file() -> None:
    """Also where the file system takes A for a."""
    names = file_names(["a/b", "a b", "A-B", "a", "a#2", "a-2"])
    assert len({name.casefold() for name in names}) == 6
    assert names[:3] == ["a-b", "a-b-2", "A-B-3"]


def test_explore_writes_a_page_of_its_own(generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file that asks for nothing from outside, beside the record unless told where."""
    target = tmp_path / "pages" / "house.html"
    assert main(["explore", str(generated / "record.safetensors"), "--out", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    page = target.read_text(encoding="utf-8")
    assert page == (generated / "explorer.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']?https?:|import .* from""", page)


def test_explore_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"nothing of ours")
    assert "record" in complaint(capsys, "explore", str(tmp_path / "other.safetensors"))


def test_smallest_is_per_cent_and_pixels_by_their_unit(
    generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the picture and as many pixels are the same; a bare number says that it is per cent."""
    made = []
    for value in ("50", "50%", "8192px", "8192PX"):
        arguments = ["mask", str(generated / "record.safetensors"), "--word", "house", "--smallest", value]
        assert main([*arguments, "--out", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        assert ("is per cent of the picture; for pixels write 50px." in said) == (value == "50")
        made.append((tmp_path / "mask_house.png").read_bytes())
    assert len(set(made)) == 1
    for odd in ("101", "8192pt", "px", "nan", "20 miles"):
        assert "is no area" in complaint(capsys, "mask", "r.safetensors", "--word", "a", "--smallest", odd)
