"""Names, tooltips and help pages of the ComfyUI nodes, written from the nodes themselves, in every language.

`COMFYUI/.venv/bin/python benchmarks/node_pages.py COMFYUI` writes `locales/en/nodeDefs.json` and the tables of
`web/docs/*.md`; what stands before and behind the tables of a page is written by hand and stays.
`locales/LANGUAGE/texts.json` says each English text in another language; nodeDefs.json and `web/docs/NODE/` follow.
`python benchmarks/node_pages.py` alone, in any Python, writes the other languages from the English files.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = ("zh", "ja", "de")
_FAMILIES = re.compile(r"(<!-- comfyui-families -->)(.*?)(<!-- / -->)")
"""The list of models is written into the English page by `benchmarks.documents`, and taken over as it is."""
_TITLES = {
    "zh": {
        "Inputs": "输入", "Outputs": "输出", "input": "输入", "output": "输出", "optional": "可选", "in a graph": "（工作流）",
    },
    "ja": {
        "Inputs": "入力", "Outputs": "出力", "input": "入力", "output": "出力", "optional": "任意", "in a graph": "（グラフ）",
    },
    "de": {
        "Inputs": "Eingänge", "Outputs": "Ausgänge", "input": "Eingang", "output": "Ausgang", "optional": "freiwillig",
        "in a graph": "in einem Graphen",
    },
}  # fmt: skip


def loaded_nodes(host: str) -> list[Any]:
    """The schemas of all nodes, inside the host's own Python."""
    sys.path.insert(0, host)
    sys.argv = ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    spec = importlib.util.spec_from_file_location("daam-lens", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["daam-lens"] = module
    spec.loader.exec_module(module)

    async def schemas() -> list[Any]:
        return [node.GET_SCHEMA() for node in await (await module.comfy_entrypoint()).get_node_list()]

    return asyncio.run(schemas())


def definition(schema: Any) -> dict[str, Any]:
    """One node of nodeDefs.json."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {one.id: {"name": one.id.replace("_", " "), "tooltip": one.tooltip} for one in schema.inputs},
        "outputs": {str(i): {"name": one.display_name, "tooltip": one.tooltip} for i, one in enumerate(schema.outputs)},
    }


def tables(schema: Any) -> str:
    """Inputs and outputs as two tables."""
    given = [(one.id + (" (optional)" if one.optional else ""), one.tooltip) for one in schema.inputs]
    made = [(one.display_name, one.tooltip) for one in schema.outputs]
    parts = []
    for title, rows in (("Input", given), ("Output", made)):
        if rows:
            lines = [f"| {name} | {' '.join(tooltip.split())} |" for name, tooltip in rows]
            parts.append("\n".join([f"## {title}s", "", f"| {title.lower()} | |", "| --- | --- |", *lines]))
    return "\n\n".join(parts)


def page(schema: Any, old: str) -> str:
    """A help page with new tables; a node without a page gets one from its description."""
    if not old:
        title = schema.display_name.removesuffix(" (DAAM Lens)")
        picture = f"![{title} in a graph](images/{schema.node_id}.jpg)"
        return f"# {title}\n\n{schema.description}\n\n{picture}\n\n{tables(schema)}\n"
    first = next((old.index(mark) for mark in ("## Inputs", "## Outputs") if mark in old), None)
    if first is None:
        return old
    lines = old[first:].split("\n")
    last = max(i for i, line in enumerate(lines) if line.startswith("|"))
    rest = "\n".join(lines[last + 1 :])
    return f"{old[:first]}{tables(schema)}\n{rest}" if rest.strip() else f"{old[:first]}{tables(schema)}\n"


class Language:
    """One language: English texts in, its own out.

    Args:
        name: the folder in `locales/`.
    """

    def __init__(self, name: str) -> None:
        self.name, self.titles = name, _TITLES[name]
        self._texts: dict[str, str] = json.loads((ROOT / "locales" / name / "texts.json").read_text(encoding="utf-8"))
        self.missing: list[str] = []
        self.used: set[str] = set()

    def text(self, english: str) -> str:
        """The same in this language; English, and noted as missing, where nobody has said it."""
        families = _FAMILIES.search(english)
        key = _FAMILIES.sub(r"\1\3", english)
        self.used.add(key)
        if key not in self._texts:
            self.missing.append(key)
            return english
        return _FAMILIES.sub(lambda m: m[1] + (families[2] if families else "") + m[3], self._texts[key])

    @property
    def unused(self) -> list[str]:
        """Texts that no page and no node has any more."""
        return sorted(set(self._texts) - self.used)

    def definition(self, english: dict[str, Any]) -> dict[str, Any]:
        """One node of nodeDefs.json in this language."""
        return {
            "display_name": self.text(english["display_name"]),
            "description": self.text(english["description"]),
            **{
                kind: {key: {name: self.text(value) for name, value in one.items()} for key, one in english[kind].items()}
                for kind in ("inputs", "outputs")
            },
        }

    def page(self, name: str, english: str, defined: dict[str, Any]) -> str:
        """A help page in this language, paragraph by paragraph."""
        shown = self.definition(defined)
        parts: list[str] = []
        title = ""
        for part in re.split(r"\n\s*\n", english.strip()):
            if part.startswith("# "):
                parts.append(f"# {self.text(part[2:])}")
            elif part.startswith("!["):
                # ComfyUI takes addresses of every page from the folder of the English ones.
                parts.append(f"![{shown['display_name']} {self.titles['in a graph']}](images/{name}.jpg)")
            elif part.startswith("## "):
                title = part[3:]
                parts.append(f"## {self.titles.get(title) or self.text(title)}")
            elif part.startswith("|"):
                of_node = title in ("Inputs", "Outputs")
                parts.append(self._table(part, defined, shown) if of_node else self._free_table(part))
            else:
                parts.append(self.text(part))
        return "\n\n".join(parts) + "\n"

    def _table(self, english: str, defined: dict[str, Any], shown: dict[str, Any]) -> str:
        head, _, *rows = english.split("\n")
        kind = head.split("|")[1].strip()
        made = [f"| {self.titles[kind]} | |", "| --- | --- |"]
        for row, (key, one) in zip(rows, defined[f"{kind}s"].items(), strict=True):
            name = shown[f"{kind}s"][key]["name"]
            optional = f" ({self.titles['optional']})" if row.split("|")[1].strip().endswith("(optional)") else ""
            made.append(f"| {name}{optional} | {' '.join(self.text(one['tooltip']).split())} |")
        return "\n".join(made)

    def _free_table(self, english: str) -> str:
        """A table that was written by hand: every cell that is not code alone."""
        rows = []
        for row in english.split("\n"):
            cells = [cell.strip() for cell in row.strip("|").split("|")]
            kept = [cell if not re.search(r"[a-z]{2}", re.sub(r"`[^`]*`", "", cell)) else self.text(cell) for cell in cells]
            rows.append(f"| {' | '.join(kept)} |")
        return "\n".join(rows)


def write_languages() -> dict[str, Language]:
    """Write every other language from the English files; the languages, with what they lack."""
    english = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    done = {}
    for name in LANGUAGES:
        language = Language(name)
        for path, text in translated(language, english).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        done[name] = language
    return done


def translated(language: Language, english: dict[str, Any]) -> dict[Path, str]:
    """Every file of a language and what it holds."""
    defined = {name: language.definition(one) for name, one in english.items()}
    files = {ROOT / "locales" / language.name / "nodeDefs.json": json.dumps(defined, indent=2, ensure_ascii=False) + "\n"}
    for name, one in english.items():
        page_text = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        files[ROOT / "web" / "docs" / name / f"{language.name}.md"] = language.page(name, page_text, one)
    return files


def main(host: str) -> None:
    """Write the file of names and every page."""
    schemas = loaded_nodes(host)
    found = {schema.node_id: definition(schema) for schema in schemas}
    names = ROOT / "locales" / "en" / "nodeDefs.json"
    names.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for schema in schemas:
        path = ROOT / "web" / "docs" / f"{schema.node_id}.md"
        path.write_text(page(schema, path.read_text(encoding="utf-8") if path.is_file() else ""), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    for lacking in (f"{name}: {text!r}" for name, one in write_languages().items() for text in one.missing):
        print("not translated, in", lacking)
