"""`daam-lens relations`: which word of a record leans on which, and where each word looks."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import DetailMissing
from ..files import relative_path, writable_folder, write_text
from .commands import chosen_words, load
from .relation_parts import relation_entries, relation_notes, write_relations


def relations(args: argparse.Namespace) -> None:
    """`daam-lens relations`: the table, and its files.

    Raises:
        DetailMissing: the record holds no relations.
    """
    from ..maps.relations import leaning_lines, leanings
    from ..render.colormaps import colour_table

    colour_table(args.colormap)
    maps = load(args)
    if maps.relations is None:
        raise DetailMissing(
            "This record holds no relations. Make it with `daam-lens generate --relations text-to-text,text-to-image` and a "
            "model whose text and picture are one sequence."
        )
    words = chosen_words(maps, args.words)
    folder = writable_folder(args.out or Path(args.record).parent)
    if maps.relations.text_to_text is not None:
        print("\n".join(leaning_lines(leanings(words, maps.word_matrix(words)))))
    paths = write_relations(maps, words, folder, args)
    if entries := relation_entries(maps, words):
        text = json.dumps({"prompt": maps.prompt.text, **entries}, indent=2, ensure_ascii=False) + "\n"
        paths.append(write_text(folder / "relations.json", text))
    for line in [*map(relative_path, paths), *relation_notes(maps, words)]:
        print(line)
