"""The table at the head of docs/results.md, out of tables written by hand."""

from __future__ import annotations

import pytest

from benchmarks.results_summary import METHODS, mask_summary


def page(best: str = "0.900 [0.8, 0.9]") -> str:
    parts = []
    for truth in ("generated pictures", "rendered scenes, flat", "rendered scenes, shaded"):
        rows = [f"| {name}: x | - | {best if name == 'best' else '0.5 [0.4, 0.6]'} | 0.25 [0.2, 0.3] |" for name in METHODS]
        head = "| mask | tau | one object (3) | two objects (4) |\n| --- | --- | --- | --- |\n"
        parts.append(
            f"## Masks: the model inside, {truth}\n\n{head}"
            + "\n".join(rows).replace("castorini's rule: x", "castorini's rule")
        )
    return "\n\n".join(parts) + "\n\n## Masks: another\n"


def test_each_method_has_its_figures_and_what_it_does() -> None:
    lines = mask_summary(page()).splitlines()
    assert len(lines) == 2 + len(METHODS)
    best = next(line for line in lines if line.startswith("| best |"))
    assert best == f"| best | 0.900 | 0.25 | 0.25 | 0.25 | {METHODS['best']} |"
    assert "0.950" in mask_summary(page("0.950 [0.9, 1.0]"))


def test_what_is_missing_is_said() -> None:
    with pytest.raises(LookupError, match="0 sections"):
        mask_summary("")
    with pytest.raises(LookupError, match="'walk'"):
        mask_summary(page().replace("| walk: x", "| other"))
