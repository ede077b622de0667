"""What each command does: call the core, write files, print where they are."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import BadArgument, WordNotFound, quoted
from ..files import file_name, file_names, relative_path, writable_folder, write_png
from ..packages import missing
from ..prompt.concepts import concepts_of
from ..validate import checked_negative, checked_prompt
from .parts import Written, concept_lines, grey, why_no_mask, write_parts, write_sheet
from .video_parts import write_video_itself

if TYPE_CHECKING:
    from torch import Tensor

    from ..diffusers.attention_trace import AttentionTrace
    from ..diffusers.trace import KeptAxis
    from ..maps.heatmaps import HeatMaps

DETAILS: dict[str, tuple[Literal["layers", "steps"], ...]] = {
    "none": (), "steps": ("steps",), "layers": ("layers",), "both": ("layers", "steps"),
}  # fmt: skip


def generate(args: argparse.Namespace) -> None:
    """`daam-lens generate`: a picture, and what each word of its prompt did."""
    prompt = checked_prompt(args.prompt)
    checked_negative(args.negative or "")
    # Everything that can be wrong is looked at before anything heavy starts.
    check_typed_words(prompt, args.words or ())
    check_names(args)
    if args.concepts:
        concepts_of(args.concepts)
    folder = writable_folder(args.out or Path("daam-lens-out", f"{file_name(prompt)}-{args.seed}"))
    picture, recording = _generate(prompt, args)
    # First what took long: whatever happens to the maps, the picture and then the record are there.
    done = Written([write_png(folder / "picture.png", picture)] if "picture" in args.save else [])
    maps = recording.heat_maps(aggregation=args.aggregation)
    if maps.frames is not None and maps.frames.note:
        done.notes.append(maps.frames.note)
    if "picture" in args.save and maps.video is not None:
        done.paths += write_video_itself(maps, folder, args.fps)
    if lost := maps.prompt.truncated:
        first = quoted(lost[0])
        done.notes.append(f"The model did not read the last {len(lost)} words, from {first} on: its text encoder was full.")
    if "record" in args.save:
        done.paths.append(maps.save(folder / "record.safetensors"))
    if args.encoder is not None:
        maps = maps.select(encoder=args.encoder)
    write_parts(maps, [*chosen_words(maps, args.words), *maps.concepts], folder, args, done)
    if args.concepts and recording.concept_failure:
        done.notes.append(recording.concept_failure)
    if recording.output_failure:
        done.notes.append(recording.output_failure)
    for line in [*map(relative_path, done.paths), *done.notes]:
        print(line)


def mask(args: argparse.Namespace) -> None:
    """`daam-lens mask`: masks of a record's words, cleaned up as asked."""
    maps = load(args)
    folder = writable_folder(args.out or Path(args.record).parent)
    if maps.num_frames > 1:
        return _masks_of_a_video(maps, folder, args)
    if args.frames is not None:
        raise BadArgument("--frames chooses frames of a video, and this record is of one picture.")
    results = [maps.mask_result(word, args.method, tau=args.tau, competitors=args.competitors) for word in args.words]
    if args.smallest[0] and not args.smallest[1]:
        print(f"--smallest {args.smallest[0]:g} is per cent of the picture; for pixels write {args.smallest[0]:g}px.")
    cleaned = [_clean(one.mask, args) for one in results]
    for word, name, one, clean in zip(args.words, file_names(args.words), results, cleaned, strict=True):
        print(relative_path(write_png(folder / f"mask_{name}.png", grey(clean))))
        if maps.is_concept(word):
            print(maps.caption(word))
        if one.note:
            print(one.note)
    for word, one, clean in zip(args.words, results, cleaned, strict=True):
        if empty := why_no_mask(one.mask):
            print(f"The mask of “{word}” says nothing: {empty}.")
        elif not clean.any():
            print(f"Nothing is left of the mask of “{word}”: the cleanup took all of it.")
        elif bool((clean == 1).all()):
            print(f"The mask of “{word}” covers all of the picture: the cleanup made it that large.")


def _masks_of_a_video(maps: HeatMaps, folder: Path, args: argparse.Namespace) -> None:
    from .video_parts import mask_of_frames, write_frame_masks

    for word, name in zip(args.words, file_names(args.words), strict=True):
        result, numbers = mask_of_frames(maps, word, args.frames, args)
        cleaned = [grey(_clean(result.mask[i], args)) for i in numbers]
        paths = write_frame_masks(cleaned, name, folder, numbers)
        first = relative_path(paths[0])
        print(f"{first} … {paths[-1].name} ({len(paths)} frames)" if len(paths) > 1 else first)
        if result.note:
            print(result.note)
        if not result.mask.any():
            print(f"The mask of “{word}” says nothing: it is empty in every frame.")
        elif not any(one.any() for one in cleaned):
            print(f"Nothing is left of the mask of “{word}” in any frame: the cleanup took all of it.")


def words(args: argparse.Namespace) -> None:
    """`daam-lens words`: which words drive a rectangle of the picture."""
    from ..maps.statistics import box_region, rank_region

    maps = load(args)
    ranked = rank_region(maps, box_region(maps, *args.region))
    print(f"{'word':16s} {'score':>6s} {'lift':>6s}")
    for row in ranked:
        print(f"{row.word:16s} {row.score:6.1%} {row.lift:6.2f}")
    print("score: share of the region among the words; lift: attention here over the word's average, 1 = nothing special")


def show(args: argparse.Namespace) -> None:
    """`daam-lens show`: what is in a record."""
    from ..maps.prompt_report import prompt_report
    from ..render.colormaps import colour_table

    colour_table(args.colormap)
    maps = load(args)
    folder = writable_folder(args.out) if args.out else None
    height, width = maps.size
    print(f"prompt   {maps.prompt.text}")
    print(f"picture  {width} x {height} px{'' if maps.picture is not None else ' (not in the record)'}")
    print(f"maps     {', '.join(f'{w} x {h}' for h, w in sorted(maps.sums))}")
    if maps.num_frames > 1:
        of = "" if maps.video is None else f", {len(maps.video)} in the video"
        print(f"frames   {maps.num_frames} latent{of}")
    print(f"model    {len(maps.layers)} layers, {maps.steps} steps")
    if maps.encoders:
        print(f"encoders {', '.join(maps.encoders)}")
    if kept := _kept_relations(maps):
        print(f"relations {', '.join(kept)}")
    print(f"words    {', '.join(maps.words)}\n")
    print("\n".join([*prompt_report(maps).lines(), *concept_lines(maps)]))
    if folder:
        print(relative_path(write_sheet(maps, [*maps.default_words(), *maps.concepts], folder, args)))


def _kept_relations(maps: HeatMaps) -> list[str]:
    """What is recorded beside Eq. 6, by the names of `--relations`."""
    of_text = maps.relations
    kept = {
        "text-to-image": of_text is not None and bool(of_text.text_to_image),
        "text-to-text": of_text is not None and of_text.text_to_text is not None,
        "image-to-image": bool(maps.self_attention),
    }
    return [name for name, there in kept.items() if there]


def explore(args: argparse.Namespace) -> None:
    """`daam-lens explore`: the explorer's page of a record."""
    from ..explorer.standalone import write_explorer

    maps = load(args)
    path = Path(args.out) if args.out else Path(args.record).parent / "explorer.html"
    writable_folder(path.parent)
    print(relative_path(write_explorer(maps, path, Path(args.record).name)))


def app(args: argparse.Namespace) -> None:
    """`daam-lens app`: a local page to paint and explore."""
    from ..diffusers.loading import load_pipeline

    try:
        from ..app.server import serve
    except ModuleNotFoundError as error:
        raise missing("The app needs", error.name, "app") from error
    with quiet_warnings():
        serve(load_pipeline(args.model, args.device), args.model, args.host, args.port, args.open)


# -- parts of generate ----------------------------------------------------------------------------------------------


def _generate(prompt: str, args: argparse.Namespace) -> tuple[Any, AttentionTrace]:
    """The picture as uint8 `[H, W, 3]`, and the recording."""
    from ..diffusers.generation import Settings, generate_recorded
    from ..diffusers.loading import load_pipeline
    from ..diffusers.transformer_trace import text_encoders
    from ..prompt.encoders import check_encoder

    concepts, negative = args.concepts or (), args.negative or ""
    settings = Settings(
        args.seed, args.steps, args.size, args.guidance, negative, kept_axes(args), concepts, args.num_frames, args.relations,
        wants_output(args),
    )  # fmt: skip
    with quiet_warnings():
        pipe = load_pipeline(args.model, args.device)
        check_words(pipe, prompt, args.words)
        if args.encoder is not None:
            check_encoder(args.encoder, text_encoders(pipe))
        pipe.set_progress_bar_config(desc="painting", unit="step", leave=True)
        return generate_recorded(pipe, prompt, settings)


def kept_axes(args: argparse.Namespace) -> tuple[KeptAxis, ...]:
    """What is kept apart: castorini's rule is about every head's map."""
    return (*DETAILS[args.detail], *(("heads",) if args.aggregation == "castorini" else ()))


def wants_output(args: argparse.Namespace) -> bool:
    """Whether output space is recorded, because it was asked for or an aggregation needs it."""
    return bool(args.output_space) or args.aggregation in ("output", "anchor")


def chosen_words(maps: HeatMaps, asked: Sequence[str] | None) -> list[str]:
    """Labels of the words to look at, each once; the content words, or all where there are none of these."""
    if not asked:
        return maps.default_words()
    return list(dict.fromkeys(maps.prompt.find(word).label for word in asked))


def check_words(pipe: Any, prompt: str, words: Sequence[str] | None) -> None:
    """WordNotFound now rather than after a long run."""
    from ..prompt.prompt import Prompt

    tokenizer: Any = getattr(pipe, "tokenizer", None)  # of some models it reads pictures, too
    if words and hasattr(tokenizer, "model_max_length") and hasattr(tokenizer, "convert_ids_to_tokens"):
        ids = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length).input_ids
        read = Prompt.from_ids(ids, tokenizer, text=prompt)
        for word in words:
            read.find(word)


def check_typed_words(prompt: str, words: Sequence[str]) -> None:
    """WordNotFound for what does not stand in the typed prompt, before a model is loaded."""
    from ..prompt.alignment import search_key
    from ..prompt.tokenization import SPECIALS

    typed = search_key(prompt)
    for word in words:
        key = re.sub(r"#\d+$", "", search_key(word))
        if key not in typed and search_key(word) not in SPECIALS:
            raise WordNotFound(
                f"{quoted(word)} is not in the prompt {quoted(prompt, 200)}. --words takes words and phrases of it."
            )


def check_names(args: argparse.Namespace) -> None:
    """BadArgument for a mask method, rule or colour map that there is not."""
    from ..maps.aggregation import AGGREGATIONS
    from ..masks.methods import MASK_METHODS
    from ..render.colormaps import colour_table

    if args.method not in MASK_METHODS:
        raise BadArgument(f"There is no mask method {quoted(args.method)}; there are {', '.join(MASK_METHODS)}.")
    if args.aggregation not in AGGREGATIONS:
        raise BadArgument(f"There is no aggregation {quoted(args.aggregation)}; there are {', '.join(AGGREGATIONS)}.")
    colour_table(args.colormap)


# -- shared ---------------------------------------------------------------------------------------------------------


def load(args: argparse.Namespace) -> HeatMaps:
    """A command's record, of the text encoder that was asked for."""
    from ..maps.heatmaps import HeatMaps

    maps = HeatMaps.load(args.record)
    return maps if args.encoder is None else maps.select(encoder=args.encoder)


def _clean(one: Tensor, args: argparse.Namespace) -> Tensor:
    from .. import masks

    value, unit = args.smallest
    smallest = masks.per_cent(value, (one.shape[-2], one.shape[-1])) if unit == "px" else value
    one = masks.Cleanup(fill=args.fill_holes, smallest=smallest, grow=args.grow).apply(one)
    return masks.Cleanup(grow=-args.shrink, invert=args.invert, feather=args.feather).apply(one)


@contextmanager
def quiet_warnings() -> Iterator[None]:
    """Errors come as exceptions; the libraries' warnings are for programmers. The bar of the sampling steps stays."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
