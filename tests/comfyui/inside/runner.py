"""Runs inside a ComfyUI's interpreter: `python runner.py COMFYUI PACK`; answers one JSON line for each line on stdin.

The host prints what it likes: its prints go to stderr, so that they cannot be taken for an answer.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback

host, pack = sys.argv[1:3]
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
sys.path[:0] = [host, os.path.dirname(os.path.abspath(__file__))]
sys.argv = ["main.py", "--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import torch  # noqa: E402

torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("daam-lens", f"{pack}/__init__.py", submodule_search_locations=[pack])
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
sys.modules["daam-lens"] = module
spec.loader.exec_module(module)

print(json.dumps({"value": "ready"}), file=answers)
for line in sys.stdin:
    asked = json.loads(line)
    try:
        with torch.inference_mode():  # as ComfyUI runs its nodes
            value = getattr(importlib.import_module(asked["module"]), asked["case"])()
        print(json.dumps({"value": value}), file=answers)
    except Exception:
        print(json.dumps({"error": "\n".join(traceback.format_exc().splitlines()[-14:])}), file=answers)
