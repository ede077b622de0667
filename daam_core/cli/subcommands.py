"""The commands of `daam-lens` and their arguments, one function each; what they do stands in the modules that they name."""

from __future__ import annotations

from typing import Any

from .argument_types import (
    area_argument,
    frames_argument,
    number_argument,
    path_argument,
    region_argument,
    size_argument,
    whole_argument,
    words_argument,
)
from .read_arguments import add_read_arguments
from .shared_arguments import (
    add_aggregation,
    add_colors,
    add_encoder,
    add_method,
    add_model,
    add_record,
    add_relations,
    add_saves,
    add_words,
    command,
)


def add_subcommands(commands: Any) -> None:
    """Every command that is no room of its own (those are `study`, `tiny` and `benchmark`)."""
    _add_generate(commands)
    _add_read(commands)
    _add_mask(commands)
    _add_words(commands)
    _add_show(commands)
    _add_relations_of_a_record(commands)
    _add_report(commands)
    _add_compare(commands)
    _add_explore(commands)
    _add_app(commands)
    _add_doctor(commands)


def _add_generate(commands: Any) -> None:
    p = commands.add_parser(
        "generate",
        help="make a picture, with a heat map and a mask for each word",
        description="Make one picture and write, into one folder: the picture, an overlay and a mask per word, a contact "
        "sheet, a report (text and JSON), a page to explore it and a record from which the other commands go on later.",
    )
    p.add_argument("prompt", metavar="PROMPT", help='what to paint, for example "a red house and a green tree"')
    add_model(p)
    p.add_argument("--out", type=path_argument, metavar="DIR", help="folder to write into (default: daam-lens-out/PROMPT-SEED)")
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
    add_words(p)
    p.add_argument(
        "--concepts",
        type=words_argument,
        metavar="WORDS",
        help='things to look for that are not in the prompt: "sky,shadow"; each is told with how likely it is there',
    )
    add_relations(p)
    add_encoder(p)
    add_method(p)
    add_aggregation(p)
    add_colors(p)
    p.add_argument(
        "--detail",
        choices=("none", "steps", "layers", "both"),
        default="none",
        help="keep steps or layers apart in the record, which grows; steps also give an animation (default: %(default)s)",
    )
    add_saves(p)
    p.set_defaults(run=command("generate"))


def _add_read(commands: Any) -> None:
    p = commands.add_parser(
        "read",
        help="a heat map and a mask for each word in a picture that was not made here",
        description="Read a photograph or drawing: noise is added to it at a few levels, the model takes one pass at each, and "
        "each word's attention is written like that of a picture it made. Nothing is painted. Of a folder of pictures, label "
        "maps are written; stopped, the same command goes on, and `accelerate launch` splits it over GPUs.",
    )
    add_read_arguments(p)
    add_model(p)
    add_method(p)
    add_colors(p)
    p.set_defaults(run=command("read", ".read"))


def _add_mask(commands: Any) -> None:
    p = commands.add_parser(
        "mask",
        help="make masks from a record",
        description="Make black-and-white masks (PNG) from a record. Clean-up runs in the order of this list.",
    )
    add_record(p)
    add_encoder(p)
    p.add_argument("--word", action="append", required=True, dest="words", help="word or phrase; may be repeated")
    p.add_argument("--out", type=path_argument, metavar="DIR", help="folder to write into (default: the record's own)")
    add_method(p)
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
    p.add_argument("--grow", type=number_argument(0, 65536), default=0.0, metavar="PX", help="make the mask larger all around")
    p.add_argument(
        "--shrink", type=number_argument(0, 65536), default=0.0, metavar="PX", help="make the mask smaller all around"
    )
    p.add_argument("--invert", action="store_true", help="everything but the word")
    p.add_argument("--feather", type=number_argument(0, 65536), default=0.0, metavar="PX", help="soft edges of this width")
    p.set_defaults(run=command("mask"))


def _add_words(commands: Any) -> None:
    p = commands.add_parser(
        "words",
        help="which words drive a part of the picture",
        description="Rank the words by how much they drive a rectangle of the picture.",
    )
    add_record(p)
    add_encoder(p)
    p.add_argument(
        "--region",
        type=region_argument,
        required=True,
        metavar="X,Y,W,H",
        help="left, top, width and height in pixels, for example 32,32,64,64",
    )
    p.set_defaults(run=command("words"))


def _add_show(commands: Any) -> None:
    p = commands.add_parser(
        "show",
        help="what is in a record",
        description="Print a record's prompt, sizes and what each word did; with --out also draw its contact sheet.",
    )
    add_record(p)
    add_encoder(p)
    p.add_argument("--out", type=path_argument, metavar="DIR", help="folder for contact_sheet.png")
    add_colors(p)
    p.set_defaults(run=command("show"))


def _add_relations_of_a_record(commands: Any) -> None:
    p = commands.add_parser(
        "relations",
        help="which word leans on which, and where each word looks",
        description="Print what each word attends to most, and write the matrix of words (PNG), a picture of where each word "
        "looks and relations.json, of a record that holds them (`generate --relations text-to-text,text-to-image`).",
    )
    add_record(p)
    add_encoder(p)
    add_words(p)
    p.add_argument("--out", type=path_argument, metavar="DIR", help="folder to write into (default: the record's own)")
    add_colors(p)
    p.set_defaults(run=command("relations", ".relations"))


def _add_report(commands: Any) -> None:
    p = commands.add_parser(
        "report",
        help="what each word did, and which objects may be missing",
        description="Print a record's report: each word's share, objects that lost their places to others, pairs that share "
        "them. It says nothing of colours and places, of which maps prove nothing.",
    )
    add_record(p)
    add_encoder(p)
    p.add_argument("--words", type=words_argument, metavar="WORDS", help="words to report (default: all but stop words)")
    p.add_argument(
        "--thresholds",
        type=path_argument,
        metavar="FILE",
        help="thresholds that fit-report wrote (default: those of the model inside)",
    )
    p.set_defaults(run=command("report", ".reports"))
    p = commands.add_parser(
        "fit-report",
        help="choose the report's thresholds on your own annotated pictures",
        description="Choose the report's thresholds on every other record and count them on the rest. They were chosen on the "
        "model inside and carry over to other models only as far as ratios do.",
    )
    p.add_argument(
        "annotations",
        type=path_argument,
        metavar="CSV",
        help="lines of record,word,present: a record (beside this file), a word for an object, yes or no",
    )
    p.add_argument(
        "--out",
        type=path_argument,
        metavar="FILE",
        default="report-thresholds.json",
        help="file to write (default: %(default)s)",
    )
    p.add_argument(
        "--most-false",
        type=number_argument(0, 1),
        default=0.05,
        metavar="PART",
        help="part of the objects that are there which may be called missing, 0 to 1 (default: %(default)s)",
    )
    p.set_defaults(run=command("fit_report", ".reports"))


def _add_compare(commands: Any) -> None:
    p = commands.add_parser(
        "compare",
        help="where a LoRA, or anything else that differs between two records, moved each word",
        description="Compare two records of one prompt and seed, such as one with a LoRA and one without: how much of each "
        "word's heat lies elsewhere, and what it gained and lost. With --out, a picture for each word (orange gained, blue "
        "lost) and comparison.json.",
    )
    p.add_argument(
        "after",
        type=path_argument,
        metavar="AFTER",
        help="a .safetensors record that `generate` wrote, such as that with the LoRA",
    )
    p.add_argument("before", type=path_argument, metavar="BEFORE", help="the record to compare with")
    p.add_argument("--words", type=words_argument, metavar="WORDS", help="words of both prompts (default: all but stop words)")
    p.add_argument(
        "--out", type=path_argument, metavar="DIR", help="folder to write pictures and numbers into (default: none are written)"
    )
    p.set_defaults(run=command("compare", ".compare"))


def _add_explore(commands: Any) -> None:
    p = commands.add_parser(
        "explore",
        help="a page to look around in a record",
        description="Write a page (one HTML file that opens from disk): point at words, point at the picture, take masks.",
    )
    add_record(p)
    add_encoder(p)
    p.add_argument("--out", type=path_argument, metavar="FILE", help="the page (default: explorer.html beside the record)")
    p.set_defaults(run=command("explore"))


def _add_app(commands: Any) -> None:
    p = commands.add_parser(
        "app",
        help="a page to type prompts into and explore the pictures",
        description="Start a page on this machine: type a prompt, look at what each word did, take masks. Ctrl-C ends it.",
    )
    add_model(p)
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine alone)")
    p.add_argument("--port", type=whole_argument(1, 65535), default=7866, help="port (default: %(default)s)")
    p.add_argument("--open", action="store_true", help="open the page in the browser")
    p.set_defaults(run=command("app"))


def _add_doctor(commands: Any) -> None:
    p = commands.add_parser(
        "doctor",
        help="what is installed, and why there may be no map",
        description="Print versions, what is missing and how to get it, the host this folder lies in and, where given, "
        "whether a model would be read and whether a record is sound. Nothing is installed, nothing heavy loaded.",
    )
    p.add_argument("--model", metavar="FOLDER", help="a folder in diffusers' format: would its attention be read?")
    p.add_argument("--record", type=path_argument, metavar="RECORD", help="a .safetensors record: can it be loaded?")
    p.set_defaults(run=command("doctor", ".doctor"))
