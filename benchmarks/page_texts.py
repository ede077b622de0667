"""The pages' words in every language: `python benchmarks/page_texts.py` writes the files that pages load from `locales/`.

`locales/LANGUAGE/page.json` (the explorer and ComfyUI's page) becomes `web/explorer/texts.js`; `locales/LANGUAGE/webui.json`
(the panel and buttons in WebUIs) becomes `localizations/*.json`, where AUTOMATIC1111 and its family look for them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WEBUI_NAMES = {"zh": "zh_CN", "ja": "ja_JP", "de": "de_DE"}
_HEAD = """\
/** Written by benchmarks/page_texts.py from locales/LANGUAGE/page.json: English text -> the same in another language. */
export const TEXTS = """


def files() -> dict[Path, str]:
    """Every file and what it holds."""
    page = {language: _read(language, "page") for language in WEBUI_NAMES}
    found = {ROOT / "web" / "explorer" / "texts.js": f"{_HEAD}{_json(page)};\n"}
    for language, name in WEBUI_NAMES.items():
        found[ROOT / "localizations" / f"{name}.json"] = _json(_read(language, "webui")) + "\n"
    return found


def _read(language: str, name: str) -> dict[str, str]:
    return dict(json.loads((ROOT / "locales" / language / f"{name}.json").read_text(encoding="utf-8")))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
