"""Writes `docs/models-checked.md` from what the checks give: `python -m tests.core.capture.models_table [CASE …]`.

Each family's small random model is run with and without the hooks; only what passed is written. With names of cases these are
run alone, and the other rows stay.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from daam_core.capture.families import FAMILIES, family_of
from daam_core.capture.refused_families import REFUSED
from daam_core.capture.region import WHOLE
from tests.core.capture.attention_witness import Witness, text_and_picture
from tests.core.capture.concept_case import Joint, concept_texts, strong
from tests.core.capture.concept_case import recorded as recorded_concepts
from tests.core.capture.test_concept_streams import JOINT, KEYS, key_sums, one_frame, stream_sums, with_words_kept
from tests.core.capture.test_families import expected, recorded, run
from tests.core.capture.transformer_models import CASES, Case, build

TARGET = Path(__file__).parents[3] / "docs" / "models-checked.md"
HEAD = """# Transformers that `trace(pipe)` reads in diffusers

Written by `python -m tests.core.capture.models_table` from its own checks on a small random model of each class, with a
picture that is not square and two rows of different texts. UNets (Stable Diffusion 1, 2, XL and what is built on them) are
read beside these. The table is of diffusers 0.42.1; the 27 models of it that 0.35.2 has gave the same there.

- **picture**: bit-identical with and without the hooks.
- **columns**: the text columns and the picture's queries are those that a probe with NaN finds.
- **Eq. 6**: the largest error of the maps against float64 probabilities over all keys, as a share of the terms summed.
- **concepts**: how things that the prompt does not name are read, and the largest error against the same in float64, as a
  share of the terms summed: "stream" is ConceptAttention beside the text's own blocks, "keys" the keys of the concept's own
  text. Where there is nothing, concepts are refused, or another row of the family was checked.

| family | class | text | picture | columns | Eq. 6 | concepts |
| --- | --- | --- | --- | --- | --- | --- |
"""


def row(name: str, case: Case) -> str:
    """One line of the table."""
    model = build(case)
    family = family_of(model)
    before = run(model, case.given)
    recording, during, errors = recorded(model, case)
    same = torch.equal(during, before) and not errors
    found = text_and_picture(model, case)
    with Witness(model, case.apart) as witness:
        run(model, case.given)
    error = 0.0
    for index, group in enumerate(recording.recording.groups):
        (sums,) = group.accumulator.sums.values()
        maps = sums.total[0]
        wanted = expected(witness, found, case, index, maps.shape[-1] - 3)
        error = max(error, float((maps[:, 1 : wanted.shape[1] + 1].double() - wanted).abs().max()) / sums.num_terms)
    keys = found[1]
    kind = "cross-attention" if keys.shape[1] == int(keys[-1].sum()) else "joint"
    passed = "yes" if error < 1e-5 else "NO"
    shown = f"`{case.module.rsplit('.', 1)[1]}` ({name})"
    return f"| {family.name} | {shown} | {kind} | {'yes' if same else 'NO'} | {passed} | {error:.0e} | {concepts(name)} |"


def concepts(name: str) -> str:
    """How concepts are read from a case, and how exactly."""
    texts = concept_texts()
    if name in JOINT:
        case, model = strong(name)
    elif name in KEYS:
        case = with_words_kept(one_frame(name) if CASES[name].grid[0] != 1 else CASES[name])
        model = build(case)
    else:
        return ""
    recording, _, _ = recorded_concepts(model, case, texts)
    sums = recording.recording.concepts
    assert sums is not None, recording.recording.concept_failure
    found = sums.sums[1][case.grid[1:], WHOLE]
    wanted = stream_sums(Joint(name, model, case), texts, 1) if name in JOINT else key_sums(name, model, case, texts, 1)
    error = max(float((a.double() - b).abs().max()) for a, b in zip(found.total, wanted, strict=True)) / found.num_terms
    return f"{'stream' if name in JOINT else 'keys'} {error:.0e}" if error < 1e-5 else "NO"


def table(chosen: Sequence[str] = ()) -> str:
    """The whole document; of some cases alone the other rows are those that it holds now."""
    kept = {} if not chosen else {_case(line): line for line in TARGET.read_text(encoding="utf-8").splitlines() if _case(line)}
    lines = [kept[name] if chosen and name not in chosen else row(name, case) for name, case in CASES.items()]
    order = {family.name: i for i, family in enumerate(FAMILIES)}
    lines.sort(key=lambda line: order[line.split("|")[1].strip()])
    refused = "".join(f"- `{path.rsplit('.', 1)[1]}`: {reason}.\n" for path, reason in REFUSED.items())
    foot = "Known and refused, each with this reason; a class that nobody knows is refused by its name:"
    return f"{HEAD}{chr(10).join(lines)}\n\n{foot}\n\n{refused}"


def _case(line: str) -> str:
    """The name of the case that a row is of."""
    found = re.match(r"\| [^|]+ \| `\w+` \((.+?)\) \|", line)
    return found[1] if found else ""


if __name__ == "__main__":
    TARGET.write_text(table(sys.argv[1:]), encoding="utf-8")
