"""Named settings: the project's tuned ones per environment, and those of papers."""

from __future__ import annotations

import dataclasses
from typing import Any

from purejaxrl_ext.errors import unknown_name

# Placeholder until tuned.
TUNED: dict[str, dict[str, Any]] = {}

PAPERS: dict[str, dict[str, Any]] = {}


def presets() -> list[str]:
    """The names that ``make(preset=...)`` takes."""
    return ["tuned", *PAPERS]


def preset_settings(preset: str, algorithm: str, env_name: str, recipe: Any) -> dict[str, Any]:
    """The settings that a preset stands for, without those that the algorithm does not have."""
    if preset == "tuned":
        if env_name not in TUNED:
            raise ValueError(unknown_name("environment for preset 'tuned'", env_name, TUNED))
        settings = TUNED[env_name]
    elif preset in PAPERS:
        settings = PAPERS[preset]
    else:
        raise ValueError(unknown_name("preset", preset, presets()))
    pfo_only = {"feature_coef", "feature_layers"} - {
        f.name for kind in (recipe.config, recipe.hparams) for f in dataclasses.fields(kind)
    }
    return {k: v for k, v in settings.items() if k not in pfo_only}
