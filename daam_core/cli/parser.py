"""The command line: reads arguments, calls one command, says in one sentence what went wrong.

Only argparse is imported here, so that `daam-lens --help` answers at once; the commands import what they need.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from types import FrameType
from typing import NoReturn

from ..errors import BadArgument, DaamLensError, out_of_memory, quoted
from ..packages import install_line
from .output import any_terminal, drop, flush, is_about_output, only_printable, printable
from .subcommands import add_subcommands

USER_ERROR = 2
INTERRUPTED = 130  # what a shell reports for Ctrl-C
PIPE_CLOSED = 141  # what a shell reports for a reader that left
_SAY_IT_THEMSELVES = ("--negative", "--prompt", "--words", "--word", "--concepts")
"""Options that say themselves what is wrong with an empty text, or to which it means nothing."""

_TOO_LONG = re.compile(r"'(?:[^'\\]|\\.){121,}'|\S{121,}")
"""What argparse repeats whole: an argument, in quotes or without."""

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


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence and passes through the same door as every other error."""

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            option = message.removeprefix("argument ").partition(":")[0].split("/")[-1]
            message += f" (a value that begins with a hyphen is written {option}=-1)"
        message = _TOO_LONG.sub(lambda found: f"{found[0][:119]}…" + "'" * found[0].startswith("'"), message)
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
    with _noted_interrupts() as pressed:
        try:
            return _told(arguments, pressed)
        except KeyboardInterrupt:
            return _complain("stopped.", INTERRUPTED)
        except Exception:
            # A library that is being imported may swallow Ctrl-C and fail of what is missing then.
            if not pressed:
                raise
            return _complain("stopped.", INTERRUPTED)


@contextlib.contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Inside the block Ctrl-C does what it does, and is put down in the list."""
    pressed: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    # Whoever runs us has a handler of its own, or none; in another thread than the first there can be none.
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )  # fmt: skip
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        if ours and signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _told(arguments: Sequence[str], pressed: Sequence[int]) -> int:
    """Run one command, and say in a sentence what a user can cause."""
    try:
        _check_filled(arguments)
        args = build_parser(arguments).parse_args(arguments)
        run: Callable[[argparse.Namespace], int | None] = args.run
        with only_printable():
            return run(args) or 0
    except DaamLensError as error:
        if pressed:
            raise
        return _complain(str(error), USER_ERROR)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if pressed or package in ("", "daam_core"):
            raise
        return _complain(f"The package {quoted(package)} is not installed here: {install_line('demo')}", USER_ERROR)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return _complain("There was not enough memory; try a smaller --size, or fewer --detail.", USER_ERROR)


def _check_filled(arguments: Sequence[str]) -> None:
    """Raises BadArgument for an empty argument where a name belongs.

    What an empty variable of a shell gives would otherwise be the folder that one stands in, or every address of the machine.
    """
    for before, one in zip(["", *arguments], arguments, strict=False):
        option, equals, value = one.partition("=") if one.startswith("--") else ("", "", "")
        name, text = (option, value) if equals else (before if before.startswith("--") else "", one)
        own = any(known.startswith(name) for known in _SAY_IT_THEMSELVES) if name else arguments[0] == "generate"
        if not text.strip() and not own:
            where = f"After {name} stands" if name else "There is"
            raise BadArgument(f"{where} an empty argument; give a value, or leave the argument out.")


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
    add_subcommands(commands)
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


def _complain(sentence: str, code: int) -> int:
    with contextlib.suppress(OSError):  # a closed or full stderr
        print(f"daam-lens: {printable(' '.join(sentence.split()))}", file=sys.stderr, flush=True)
    return code


def _version() -> str:
    from .. import __version__

    return __version__
