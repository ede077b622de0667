"""Forge Neo: Forge whose parser of prompts has dropped the old rules of scheduling."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from .forge import Forge

OLD_RULES = "use_old_scheduling"


class ForgeNeo(Forge):
    """Its schedules are counted by the new rules alone."""

    def schedule_steps(self, p: Any, second: bool) -> Sequence[Any]:
        return super().schedule_steps(p, second)[:2]

    def paints_elsewhere(self) -> bool:
        from modules import shared

        return getattr(shared.opts, "forge_model_mode", "local") == "api"


def lost_an_argument(parse_schedules: Callable[..., Any]) -> bool:
    """Whether the host's `get_learned_conditioning_prompt_schedules` no longer takes whether the old rules hold."""
    parameters = inspect.signature(parse_schedules).parameters.values()
    anything = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
    return not anything and OLD_RULES not in {one.name for one in parameters}
