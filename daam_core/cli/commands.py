"""What each command does: call the core, write files, print where they are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import BadArgument
from ..files import file_name, file_names, shown, writable_folder, write_png, write_text
from ..validate import checked_prompt

if TYPE_CHECKING:
    from torch import Tensor

    from ..diffusers.attention_trace import AttentionTrace
    from ..maps.heatmaps import HeatMaps

DETAILS: dict[str, tuple[Literal["layers", "steps"], ...]] = {
    "none": (), "steps": ("steps",), "layers": ("layers",), "both": ("layers", "steps"),
}  # fmt: skip


def generate(args: argparse.Namespace) -> None:
    """`daam-lens generate`: a picture, and what each word of its prompt did."""
    prompt = checked_prompt(args.prompt)
    # Everything that can be wrong is looked at before anything heavy starts.
    folder = writable_folder(args.out or Path("daam-lens-out", f"{file_name(prompt)}-{args.seed}"))
    _check_method(args.method)
    picture, recording = _generate(prompt, args)
    # First what took long: whatever happens to the maps, the picture and then the record are there.
    paths = [write_png(folder / "picture.png", picture)] if "picture" in args.save else []
    maps = recording.heat_maps()
    _warn_of_lost_words(maps)
    if "record" in args.save:
        paths.append(maps.save(folder / "record.safetensors"))
    paths += _write_parts(maps, _chosen_words(maps, args.words), folder, args)
    for path in paths:
        print(shown(path))


def mask(args: argparse.Namespace) -> None:
    """`daam-lens mask`: masks of a record's words, cleaned up as asked."""
    maps = _load(args.record)
    folder = writable_folder(args.out or Path(args.record).parent)
    results = [maps.mask_result(word, args.method, tau=args.tau) for word in args.words]
    if args.smallest[0] and not args.smallest[1]:
        print(f"--smallest {args.smallest[0]:g} is per cent of the picture; for pixels write {args.smallest[0]:g}px.")
    for name, one in zip(file_names(args.words), results, strict=True):
        print(shown(write_png(folder / f"mask_{name}.png", _grey(_clean(one.mask, args)))))
        if one.note:
            print(one.note)


def words(args: argparse.Namespace) -> None:
    """`daam-lens words`: which words drive a rectangle of the picture."""
    from ..maps.statistics import box_region, rank_region

    maps = _load(args.record)
    ranked = rank_region(maps, box_region(maps, *args.region))
    print(f"{'word':16s} {'score':>6s} {'lift':>6s}")
    for row in ranked:
        print(f"{row.word:16s} {row.score:6.1%} {row.lift:6.2f}")
    print("score: share of the region among the words; lift: attention here over the word's average, 1 = nothing special")


def show(args: argparse.Namespace) -> None:
    """`daam-lens show`: what is in a record."""
    from ..maps.statistics import prompt_report

    maps = _load(args.record)
    folder = writable_folder(args.out) if args.out else None
    height, width = maps.size
    print(f"prompt   {maps.prompt.text}")
    print(f"picture  {width} x {height} px{'' if maps.picture is not None else ' (not in the record)'}")
    print(f"maps     {', '.join(f'{w} x {h}' for h, w in sorted(maps.sums))}")
    print(f"model    {len(maps.layers)} layers, {maps.steps} steps")
    print(f"words    {', '.join(maps.words)}\n")
    print("\n".join(prompt_report(maps).lines()))
    if folder:
        print(shown(_save_sheet(maps, maps.content_words or maps.words, folder)))


def explore(args: argparse.Namespace) -> None:
    """`daam-lens explore`: the explorer's page of a record."""
    from ..explorer.standalone import write_explorer

    maps = _load(args.record)
    path = Path(args.out) if args.out else Path(args.record).parent / "explorer.html"
    writable_folder(path.parent)
    print(shown(write_explorer(maps, path)))


def app(args: argparse.Namespace) -> None:
    """`daam-lens app`: a local page to paint and explore."""
    from ..diffusers.loading import MissingPackage, load_pipeline

    try:
        from ..app.server import serve
    except ModuleNotFoundError as error:
        raise MissingPackage(f'The app needs more packages: pip install "daam-lens[app]". ({error})') from error
    with _quiet_libraries():
        serve(load_pipeline(args.model, args.device), args.model, args.host, args.port, args.open)


# -- parts of generate ----------------------------------------------------------------------------------------------


def _generate(prompt: str, args: argparse.Namespace) -> tuple[Any, AttentionTrace]:
    """The picture as uint8 `[H, W, 3]`, and the recording."""
    from ..diffusers.generation import Settings, generate_recorded
    from ..diffusers.loading import load_pipeline

    settings = Settings(args.seed, args.steps, args.size, args.guidance, args.negative or "", DETAILS[args.detail])
    with _quiet_libraries():
        pipe = load_pipeline(args.model, args.device)
        _check_words(pipe, prompt, args.words)
        pipe.set_progress_bar_config(desc="painting", unit="step", leave=True)
        return generate_recorded(pipe, prompt, settings)


def _write_parts(maps: HeatMaps, words: Sequence[str], folder: Path, args: argparse.Namespace) -> list[Path]:
    """Write the parts that were asked for; returns their paths."""
    from tqdm import tqdm

    paths: list[Path] = []
    for word, name in tqdm(list(zip(words, file_names(words), strict=True)), desc="drawing", unit="word"):
        if "overlays" in args.save:
            paths.append(_save_overlay(maps, word, folder / f"overlay_{name}.png"))
        if "masks" in args.save:
            one = maps.mask(word, args.method, tau=args.tau)
            paths.append(write_png(folder / f"mask_{name}.png", _grey(one)))
        if "animation" in args.save and maps.detail is not None and maps.detail.by_step:
            paths.append(_save_animation(maps, word, folder / f"steps_{name}.gif"))
    if "sheet" in args.save:
        paths.append(_save_sheet(maps, words, folder))
    if "report" in args.save:
        paths += _save_report(maps, words, folder, args)
    if "explorer" in args.save:
        from ..explorer.standalone import write_explorer

        paths.append(write_explorer(maps, folder / "explorer.html"))
    return paths


def _save_overlay(maps: HeatMaps, word: str, path: Path) -> Path:
    from ..render import overlay

    return write_png(path, overlay(_picture(maps), maps.heat_map(word, maps.size), label=word, bar=True))


def _save_animation(maps: HeatMaps, word: str, path: Path) -> Path:
    from ..render import animate, step_frames

    heats = [maps.select(steps=[step]).heat_map(word, maps.size) for step in range(maps.steps)]
    return animate(step_frames(_picture(maps), heats, word), path)


def _save_report(maps: HeatMaps, words: Sequence[str], folder: Path, args: argparse.Namespace) -> list[Path]:
    from ..maps.statistics import prompt_report

    report = prompt_report(maps, words)
    settings = {
        "prompt": maps.prompt.text, "negative": args.negative, "model": args.model, "seed": args.seed,
        "steps": maps.steps, "guidance": args.guidance, "height": maps.size[0], "width": maps.size[1],
        "method": args.method, "tau": args.tau,
    }  # fmt: skip
    text = f"{maps.prompt.text}\n\n" + "\n".join(report.lines()) + "\n"
    data = json.dumps({**settings, **asdict(report)}, indent=2, ensure_ascii=False) + "\n"
    return [write_text(folder / "report.txt", text), write_text(folder / "report.json", data)]


def _chosen_words(maps: HeatMaps, asked: Sequence[str] | None) -> list[str]:
    """Labels of the words to look at, each once; the content words, or all where there are none of these."""
    if not asked:
        return maps.content_words or maps.words
    return list(dict.fromkeys(maps.prompt.find(word).label for word in asked))


def _check_words(pipe: Any, prompt: str, words: Sequence[str] | None) -> None:
    """WordNotFound now rather than after a long run."""
    from ..prompt.prompt import Prompt

    tokenizer = getattr(pipe, "tokenizer", None)
    if words and tokenizer is not None:
        ids = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length).input_ids
        read = Prompt.from_ids(ids, tokenizer, text=prompt)
        for word in words:
            read.find(word)


def _check_method(method: str) -> None:
    from ..masks.methods import METHODS

    if method not in METHODS:
        raise BadArgument(f"There is no mask method {method!r}; there are {', '.join(METHODS)}.")


def _warn_of_lost_words(maps: HeatMaps) -> None:
    if lost := maps.prompt.truncated:
        print(f"The model did not read the last {len(lost)} words, from {lost[0]!r} on: its text encoder was full.")


# -- shared ---------------------------------------------------------------------------------------------------------


def _load(record: str) -> HeatMaps:
    from ..maps.heatmaps import HeatMaps

    return HeatMaps.load(record)


def _clean(one: Tensor, args: argparse.Namespace) -> Tensor:
    from .. import masks

    value, unit = args.smallest
    smallest = masks.per_cent(value, (one.shape[-2], one.shape[-1])) if unit == "px" else value
    one = masks.Cleanup(fill=args.fill_holes, smallest=smallest, grow=args.grow).apply(one)
    return masks.Cleanup(grow=-args.shrink, invert=args.invert, feather=args.feather).apply(one)


def _grey(one: Tensor) -> Any:
    """A mask of bool or 0..1 as uint8 `[H, W]`."""
    import numpy as np

    return (one.float().clamp(0, 1) * 255).round().numpy().astype(np.uint8)


def _save_sheet(maps: HeatMaps, words: Sequence[str], folder: Path) -> Path:
    from ..render import contact_sheet

    heats = dict(zip(words, maps.heat_maps(words, maps.size), strict=True))
    return write_png(folder / "contact_sheet.png", contact_sheet(_picture(maps), heats, maps.prompt.text))


def _picture(maps: HeatMaps) -> Any:
    """The recorded picture, or plain grey of its size where the record holds none: uint8 `[H, W, 3]`."""
    import numpy as np

    return maps.picture if maps.picture is not None else np.full((*maps.size, 3), 128, np.uint8)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Errors come as exceptions; the libraries' warnings are for programmers. The bar of the sampling steps stays."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
