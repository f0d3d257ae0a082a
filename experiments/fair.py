"""Comparing fairly: the learning rate of every arm, and its coefficient, are chosen on some seeds, and what is reported comes from
others.

And the regime in which the studies of collapse compare: many small gradient steps on data that the policy keeps changing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import purejaxrl_ext as prx
from purejaxrl_ext.analysis import stats

# As far as two cores allow, the paper's: separate networks and optimisers, Adam's ε of 1e-8, uniform fan-in weights, minibatches
# of 64. Dense layers in the place of convolutions.
REGIME: dict[str, Any] = {
    "num_envs": 8,
    "num_steps": 128,
    "num_minibatches": 16,
    "conv_layers": (),
    "hidden_sizes": (64, 64),
    "activation": "relu",
    "initializer": "fan_in",
    "separate_optimizers": True,
    "adam_eps": 1e-8,
    "metrics_every": 5,
}
WIDTH = REGIME["hidden_sizes"][-1]
# The arms of the paper's table of interventions, with its coefficients: what each changes of plain PPO.
CHANGES: dict[str, dict[str, Any]] = {
    "none": {},
    "pfo_last": {"feature_layers": "last", "feature_coef": 1.0},
    "pfo_all": {"feature_layers": "all", "feature_coef": 10.0},
    "adam_reset": {"interventions": ("adam_reset",)},
    "equal_betas": {"adam_b1": 0.9, "adam_b2": 0.9},
    "shared_trunk": {"shared_torso": True},
}
CHOOSING = 10_000  # the first of the seeds that choose: none of them reports


@dataclass(frozen=True)
class Comparison:
    """Settings that every comparison has."""

    env: str = "SpaceInvaders-MinAtar"
    """the environment"""
    learning_rates: tuple[float, ...] = (2.5e-4, 1e-3, 4e-3, 1.6e-2)
    """that every arm chooses from; all are reported at the highest as well"""
    num_seeds: int = 6
    """seeds that are reported"""
    choosing_seeds: int = 2
    """further seeds, that choose"""
    total_steps: int = 500_000
    """environment steps of each run"""
    last: float = 0.1
    """share of training, at its end, that the tables are about"""
    out: Path = Path("runs/comparison")
    """where results go; what is there already is gone on with"""


@dataclass(frozen=True)
class Arm:
    """What is compared.

    Attributes:
        make: the algorithm, of its learning rate and whatever is in ``grid``.
        grid: values of further settings that this arm chooses from.
    """

    make: Callable[..., prx.Algorithm]
    grid: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Compared(NamedTuple):
    """What came out.

    Attributes:
        own: every arm at its own choice [arm, seed, update].
        high: at its choice, but for the learning rate, which is the highest.
        choice: the settings that each arm chose.
        choosing: of each arm, the runs that chose.
    """

    own: xr.Dataset
    high: xr.Dataset
    choice: dict[str, dict[str, float]]
    choosing: dict[str, xr.Dataset]


def regime(change: str, env: Any, **settings: Any) -> Arm:
    """One of the paper's arms in the regime; ``settings`` override both.

    Raises:
        ValueError: an unknown arm.
    """
    if change not in CHANGES:
        raise ValueError(f"arm={change!r} is not allowed: one of {', '.join(CHANGES)}")
    return changed(CHANGES[change], env, **settings)


def changed(
    changes: Mapping[str, Any], env: Any, grid: Mapping[str, Sequence[float]] | None = None, **settings: Any
) -> Arm:
    """What ``changes`` make of plain PPO in the regime, PFO where they have its coefficient; ``settings`` override both."""
    algorithm = "pfo" if "feature_coef" in changes else "ppo"
    return Arm(partial(prx.make, algorithm, env, **REGIME | dict(changes) | settings), grid or {})


def compare(arms: Mapping[str, Arm], study: Comparison) -> Compared:
    """Choose each arm's settings on some seeds, then train it with them on others.

    Sweeps are in ``study.out`` / choose, own and high / the arm's name; those that are there are gone on with.
    """
    check(study)
    choose, report = range(CHOOSING, CHOOSING + study.choosing_seeds), range(study.num_seeds)
    high, own, at_high, choice, choosing = max(study.learning_rates), [], [], {}, {}
    for name, arm in arms.items():
        grid = {"learning_rate": list(study.learning_rates), **arm.grid}
        one = partial(_trained_arm, name, arm, study)
        choosing[name] = one("choose", choose, grid)
        choice[name] = best(choosing[name], grid, study.last)
        own.append(one("own", report, **choice[name]))
        same = choice[name]["learning_rate"] == high
        at_high.append(own[-1] if same else one("high", report, **choice[name] | {"learning_rate": high}))
    return Compared(xr.concat(own, "arm"), xr.concat(at_high, "arm"), choice, choosing)


def check(study: Comparison) -> None:
    """Raise ``ValueError`` where settings are not allowed."""
    for name in ("num_seeds", "choosing_seeds"):
        if getattr(study, name) < 1:
            raise ValueError(f"{name}={getattr(study, name)} is not allowed: at least 1")
    if not study.learning_rates or min(study.learning_rates) <= 0:
        raise ValueError(f"learning_rates={study.learning_rates} is not allowed: at least one, all above 0")
    if not 0.0 < study.last <= 1.0:
        raise ValueError(f"last={study.last} is not allowed: it must be in (0, 1]")


def trained(
    arms: Mapping[str, prx.Algorithm], out: Path, seeds: Sequence[int], total_steps: int, grid: Any = None
) -> xr.Dataset:
    """The sweep in ``out``: a new one, or the one that is there, to its end."""
    if (out / "config.json").exists():
        return prx.resume(out, arms=arms, seeds=list(seeds), total_steps=total_steps)
    return prx.sweep(arms, out=out, seeds=list(seeds), grid=grid, total_steps=total_steps)


def _trained_arm(
    name: str, arm: Arm, study: Comparison, part: str, seeds: range, grid: Any = None, **settings: float
) -> xr.Dataset:
    out = study.out / part / name.replace(", ", "-")
    return trained({name: arm.make(**settings)}, out, seeds, study.total_steps, grid)


def returns(choosing: xr.Dataset, last: float) -> xr.DataArray:
    """The return at the end of training of one arm's runs that chose; a run that diverged counts as the worst."""
    scores = stats.scores(choosing, last=last).isel(arm=0)
    return scores.fillna(scores.min())


def best(choosing: xr.Dataset, grid: Mapping[str, Sequence[float]], last: float) -> dict[str, float]:
    """The cell of the grid with the highest mean return at the end of training."""
    mean = returns(choosing, last).mean("seed").transpose(*grid)
    cell = np.unravel_index(int(np.argmax(mean.values)), mean.shape)
    return {name: float(values[i]) for (name, values), i in zip(grid.items(), cell, strict=True)}
