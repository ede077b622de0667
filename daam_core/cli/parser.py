"""The command line: reads arguments, calls one command, says in one sentence what went wrong.

Only argparse is imported here, so that `daam-lens --help` answers at once; the commands import what they need.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from ..defaults import DEFAULT_OPACITY, DEFAULT_TAU
from ..errors import BadArgument, DaamLensError
from .argument_types import (
    SAVES,
    area_argument,
    device_argument,
    frames_argument,
    model_argument,
    number_argument,
    region_argument,
    saves_argument,
    size_argument,
    whole_argument,
    words_argument,
)
from .output import any_terminal, drop, flush, is_about_output
from .read_arguments import add_read_arguments

USER_ERROR = 2
INTERRUPTED = 130  # what a shell reports for Ctrl-C
PIPE_CLOSED = 141  # what a shell reports for a reader that left

_DESCRIPTION = """\
Which pixels did each word of a prompt paint?

DAAM Lens records the cross-attention of Stable Diffusion while it makes a picture and turns it into one heat map and
one mask per word. A small trained model lies inside, so the first command works without any download."""
_EXAMPLES = """\
examples:
  daam-lens generate "a red house and a green tree"
  daam-lens generate "a blue fish" --seed 7 --words fish --out fish
  daam-lens read photo.jpg --prompt "a red house and a green tree"
  daam-lens show fish/record.safetensors
  daam-lens mask fish/record.safetensors --word fish --grow 2
  daam-lens words fish/record.safetensors --region 32,32,64,64
  daam-lens explore fish/record.safetensors
  daam-lens study segmentation --out study --limit 10

`daam-lens COMMAND --help` explains one command."""
_METHOD_HELP = (
    "how a heat map becomes a mask: best (the default), threshold (the paper's Eq. 7), late (Eq. 7 of late steps), "
    "otsu, compete (Eq. 7 less the places of other objects), walk (along self-attention), guided or grabcut (compete, "
    "snapped to the picture's edges)"
)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence and passes through the same door as every other error."""

    def error(self, message: str) -> NoReturn:
        raise BadArgument(f"{message[:1].upper()}{message[1:]}; `{self.prog} --help` explains the arguments.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it worked, 2 after one sentence on stderr for what a user can cause, 130 after Ctrl-C, 141 where nobody read
        on what was printed.
    """
    # transformers warns about optional packages when it is imported; nobody who wants a picture needs to know.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    with any_terminal():
        try:
            try:
                return _run(list(sys.argv[1:] if argv is None else argv))
            finally:
                flush()
        except BrokenPipeError:
            # `… | head` has read enough.
            drop()
            return PIPE_CLOSED
        except OSError as error:
            if not is_about_output(error):
                raise
            drop()
            return _complain(f"Cannot print: {error.strerror or error}.", USER_ERROR)


def _run(arguments: Sequence[str]) -> int:
    try:
        args = build_parser(arguments).parse_args(arguments)
        run: Callable[[argparse.Namespace], int | None] = args.run
        return run(args) or 0
    except DaamLensError as error:
        return _complain(str(error), USER_ERROR)
    except KeyboardInterrupt:
        return _complain("stopped.", INTERRUPTED)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        return _complain("There was not enough memory; try a smaller --size, or fewer --detail.", USER_ERROR)


def build_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The command line. Rooms with commands of their own import more: they are filled in where `arguments` name them."""
    parser = _Parser(
        prog="daam-lens",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_generate(commands)
    _add_read(commands)
    _add_mask(commands)
    _add_words(commands)
    _add_show(commands)
    _add_report(commands)
    _add_explore(commands)
    _add_app(commands)
    _add_doctor(commands)
    room = arguments[0] if arguments else None
    tiny = commands.add_parser(
        "tiny", help="the model inside: train, evaluate, export it", description="The small model that lies inside."
    )
    if room == "tiny":
        inner = tiny.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
        import_module("..tiny.commands", __package__).add_commands(inner)
    study = commands.add_parser(
        "study",
        help="the paper's questions, answered with tables and plots",
        description="Measure one of the paper's questions and write report.md, report.html, rows.csv, plots and run.json. "
        "Started again after a stop, the same command goes on where it was.",
    )
    if room == "study":
        inner = study.add_subparsers(metavar="NAME", required=True, parser_class=_Parser)
        import_module("..studies.commands", __package__).add_commands(inner, arguments[1:])
    benchmark = commands.add_parser(
        "benchmark",
        help="published benchmarks of segmentation, on your copy of a data set",
        description="Repeat a published benchmark and write report.md, report.html, rows.csv and run.json. Started again after "
        "a stop, the same command goes on where it was; `accelerate launch` splits it over GPUs.",
    )
    if room == "benchmark":
        inner = benchmark.add_subparsers(metavar="NAME", required=True, parser_class=_Parser)
        module = import_module("..studies.segmentation_benchmarks.commands", __package__)
        module.add_commands(inner, arguments[1] if len(arguments) > 1 else "")
    return parser


def _add_generate(commands: Any) -> None:
    p = commands.add_parser(
        "generate",
        help="make a picture, with a heat map and a mask for each word",
        description="Make one picture and write, into one folder: the picture, an overlay and a mask per word, a contact "
        "sheet, a report (text and JSON), a page to explore it and a record from which the other commands go on later.",
    )
    p.add_argument("prompt", metavar="PROMPT", help='what to paint, for example "a red house and a green tree"')
    _add_model(p)
    p.add_argument("--out", metavar="DIR", help="folder to write into (default: daam-lens-out/PROMPT-SEED)")
    p.add_argument("--seed", type=whole_argument(0), default=0, help="same seed, same picture (default: %(default)s)")
    p.add_argument("--steps", type=whole_argument(1), help="sampling steps (default: the model's own)")
    p.add_argument(
        "--size",
        type=size_argument,
        metavar="HxW",
        help="height x width in pixels, multiples of 8, as in 512x768; one number is a square (default: the model's own)",
    )
    p.add_argument(
        "--guidance",
        type=number_argument(0),
        help="how strictly to follow the prompt; 1 = no guidance (default: the model's own)",
    )
    p.add_argument("--negative", metavar="PROMPT", help="what not to paint; its words are recorded, too")
    p.add_argument("--num-frames", type=whole_argument(1), metavar="N", help="frames of a video (default: the model's own)")
    p.add_argument(
        "--fps", type=number_argument(1, 60), default=16.0, help="frames a second of videos that are written (default: 16)"
    )
    p.add_argument(
        "--words",
        type=words_argument,
        metavar="WORDS",
        help='words or phrases to look at, with commas between: "house,red house" (default: all but stop words)',
    )
    p.add_argument(
        "--concepts",
        type=words_argument,
        metavar="WORDS",
        help='things to look for that are not in the prompt: "sky,shadow"; each is told with how likely it is there',
    )
    _add_method(p)
    p.add_argument(
        "--aggregation",
        default="sum",
        metavar="NAME",
        help="how heads, layers and steps make one map: sum (Eq. 6, the default) or castorini (as the castorini/daam package)",
    )
    _add_colors(p)
    p.add_argument(
        "--detail",
        choices=("none", "steps", "layers", "both"),
        default="none",
        help="keep steps or layers apart in the record, which grows; steps also give an animation (default: %(default)s)",
    )
    p.add_argument(
        "--save",
        type=saves_argument,
        default=SAVES,
        metavar="PARTS",
        help=f"what to write, with commas between (default: all of {','.join(SAVES)})",
    )
    p.set_defaults(run=_command("generate"))


def _add_read(commands: Any) -> None:
    p = commands.add_parser(
        "read",
        help="a heat map and a mask for each word in a picture that was not made here",
        description="Read a photograph or drawing: noise is added to it at a few levels, the model takes one pass at each, and "
        "each word's attention is written like that of a picture it made. Nothing is painted. Of a folder of pictures, label "
        "maps are written; stopped, the same command goes on, and `accelerate launch` splits it over GPUs.",
    )
    add_read_arguments(p)
    _add_model(p)
    _add_method(p)
    _add_colors(p)
    p.set_defaults(run=_command("read", ".read"))


def _add_mask(commands: Any) -> None:
    p = commands.add_parser(
        "mask",
        help="make masks from a record",
        description="Make black-and-white masks (PNG) from a record. Clean-up runs in the order of this list.",
    )
    _add_record(p)
    p.add_argument("--word", action="append", required=True, dest="words", help="word or phrase; may be repeated")
    p.add_argument("--out", metavar="DIR", help="folder to write into (default: the record's own)")
    _add_method(p)
    p.add_argument(
        "--competitors",
        type=words_argument,
        metavar="WORDS",
        help="words that the mask's word competes with, with commas between (default: the nouns of the other word groups)",
    )
    p.add_argument(
        "--frames",
        type=frames_argument,
        metavar="FRAMES",
        help="of a video, whose masks are one PNG a frame: latent frames from 0, as in 0,3,-1 (default: all); "
        "`video` is every frame of the video itself",
    )
    p.add_argument("--fill-holes", action="store_true", help="fill holes inside the mask")
    p.add_argument(
        "--smallest", type=area_argument, default=(0.0, ""), metavar="AREA",
        help="drop parts smaller than this: per cent of the picture (0.5), or pixels with their unit (20px)",
    )  # fmt: skip
    p.add_argument("--grow", type=number_argument(0), default=0.0, metavar="PX", help="make the mask larger all around")
    p.add_argument("--shrink", type=number_argument(0), default=0.0, metavar="PX", help="make the mask smaller all around")
    p.add_argument("--invert", action="store_true", help="everything but the word")
    p.add_argument("--feather", type=number_argument(0), default=0.0, metavar="PX", help="soft edges of this width")
    p.set_defaults(run=_command("mask"))


def _add_words(commands: Any) -> None:
    p = commands.add_parser(
        "words",
        help="which words drive a part of the picture",
        description="Rank the words by how much they drive a rectangle of the picture.",
    )
    _add_record(p)
    p.add_argument(
        "--region",
        type=region_argument,
        required=True,
        metavar="X,Y,W,H",
        help="left, top, width and height in pixels, for example 32,32,64,64",
    )
    p.set_defaults(run=_command("words"))


def _add_show(commands: Any) -> None:
    p = commands.add_parser(
        "show",
        help="what is in a record",
        description="Print a record's prompt, sizes and what each word did; with --out also draw its contact sheet.",
    )
    _add_record(p)
    p.add_argument("--out", metavar="DIR", help="folder for contact_sheet.png")
    _add_colors(p)
    p.set_defaults(run=_command("show"))


def _add_report(commands: Any) -> None:
    p = commands.add_parser(
        "report",
        help="what each word did, and which objects may be missing",
        description="Print a record's report: each word's share, objects that lost their places to others, pairs that share "
        "them. It says nothing of colours and places, of which maps prove nothing.",
    )
    _add_record(p)
    p.add_argument("--words", type=words_argument, metavar="WORDS", help="words to report (default: all but stop words)")
    p.add_argument("--thresholds", metavar="FILE", help="thresholds that fit-report wrote (default: those of the model inside)")
    p.set_defaults(run=_command("report", ".reports"))
    p = commands.add_parser(
        "fit-report",
        help="choose the report's thresholds on your own annotated pictures",
        description="Choose the report's thresholds on every other record and count them on the rest. They were chosen on the "
        "model inside and carry over to other models only as far as ratios do.",
    )
    p.add_argument(
        "annotations",
        metavar="CSV",
        help="lines of record,word,present: a record (beside this file), a word for an object, yes or no",
    )
    p.add_argument("--out", metavar="FILE", default="report-thresholds.json", help="file to write (default: %(default)s)")
    p.add_argument(
        "--most-false",
        type=number_argument(0, 1),
        default=0.05,
        metavar="PART",
        help="part of the objects that are there which may be called missing, 0 to 1 (default: %(default)s)",
    )
    p.set_defaults(run=_command("fit_report", ".reports"))


def _add_explore(commands: Any) -> None:
    p = commands.add_parser(
        "explore",
        help="a page to look around in a record",
        description="Write a page (one HTML file that opens from disk): point at words, point at the picture, take masks.",
    )
    _add_record(p)
    p.add_argument("--out", metavar="FILE", help="the page (default: explorer.html beside the record)")
    p.set_defaults(run=_command("explore"))


def _add_app(commands: Any) -> None:
    p = commands.add_parser(
        "app",
        help="a page to type prompts into and explore the pictures",
        description="Start a page on this machine: type a prompt, look at what each word did, take masks. Ctrl-C ends it.",
    )
    _add_model(p)
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine alone)")
    p.add_argument("--port", type=whole_argument(1), default=7866, help="port (default: %(default)s)")
    p.add_argument("--open", action="store_true", help="open the page in the browser")
    p.set_defaults(run=_command("app"))


def _add_doctor(commands: Any) -> None:
    p = commands.add_parser(
        "doctor",
        help="what is installed, and why there may be no map",
        description="Print versions, what is missing and how to get it, the host this folder lies in and, where given, "
        "whether a model would be read and whether a record is sound. Nothing is installed, nothing heavy loaded.",
    )
    p.add_argument("--model", metavar="FOLDER", help="a folder in diffusers' format: would its attention be read?")
    p.add_argument("--record", metavar="RECORD", help="a .safetensors record: can it be loaded?")
    p.set_defaults(run=_command("doctor", ".doctor"))


def _add_record(p: argparse.ArgumentParser) -> None:
    p.add_argument("record", metavar="RECORD", help="a .safetensors record that `generate` wrote")


def _add_model(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        type=model_argument,
        default="tiny",
        metavar="NAME",
        help="tiny (the model inside, default), a folder in diffusers' format, or a name on the Hugging Face hub",
    )
    p.add_argument(
        "--device", type=device_argument, metavar="NAME", help="cpu, cuda, mps (default: cuda where there is one, else cpu)"
    )


def _add_method(p: argparse.ArgumentParser) -> None:
    p.add_argument("--method", default="best", metavar="NAME", help=_METHOD_HELP)
    p.add_argument(
        "--tau",
        type=number_argument(0, 1),
        default=DEFAULT_TAU,
        help="keep what is above this part of the maximum, 0 to 1; for all but best and otsu (default: %(default)s)",
    )


def _add_colors(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--colormap",
        default="ember",
        metavar="NAME",
        help="colours of the heat: ember (the default), lagoon, gray, or one of OpenCV's: viridis, turbo, jet, inferno, …",
    )
    p.add_argument(
        "--opacity",
        type=number_argument(0, 1),
        default=DEFAULT_OPACITY,
        help="how strongly the colours cover the picture, 0 to 1 (default: %(default)s)",
    )


def _command(name: str, module: str = ".commands") -> Callable[[argparse.Namespace], int | None]:
    def run(args: argparse.Namespace) -> int | None:
        result: int | None = getattr(import_module(module, __package__), name)(args)
        return result

    return run


def _complain(sentence: str, code: int) -> int:
    with contextlib.suppress(OSError):  # a closed or full stderr
        print(f"daam-lens: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
    return code


def _out_of_memory(error: BaseException) -> bool:
    # torch's own class is a RuntimeError on a card; on the CPU only the text tells.
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in ("out of memory", "allocate memory"))


def _version() -> str:
    from .. import __version__

    return __version__
