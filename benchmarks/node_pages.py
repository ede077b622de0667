"""Names, tooltips and help pages of the ComfyUI nodes, written from the nodes themselves.

`COMFYUI/.venv/bin/python benchmarks/node_pages.py COMFYUI` writes `locales/en/nodeDefs.json` and the tables of
`web/docs/*.md`; what stands before and behind the tables of a page is written by hand and stays.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


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
    main(sys.argv[1])
