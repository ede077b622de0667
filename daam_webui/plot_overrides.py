"""Settings that an X/Y/Z plot asks for: they hang on the host's processing object, by name."""

from __future__ import annotations

from typing import Any

from .settings import Settings

_ATTRIBUTE = "daam_lens_overrides"
WITHOUT_THRESHOLD = ("best", "otsu")


def override(p: Any, **values: Any) -> None:
    """A plot's cell wants these values, besides those that its other axes want."""
    setattr(p, _ATTRIBUTE, {**asked_by_plot(p), "enabled": True, **values})


def asked_by_plot(p: Any) -> dict[str, Any]:
    """What a plot wants; nothing where no plot of our axes runs."""
    return dict(getattr(p, _ATTRIBUTE, None) or {})


def with_overrides(settings: Settings, values: dict[str, Any]) -> Settings:
    """A plot's values over the panel's; a plot of thresholds means a method that has one. Raises BadArgument."""
    if not values:
        return settings
    chosen = settings.changed(**values)
    needs_method = "tau" in values and "method" not in values and chosen.method in WITHOUT_THRESHOLD
    return chosen.changed(method="threshold") if needs_method else chosen
