"""PPO's collapse and what prevents it: few and many epochs, and the paper's interventions, each with its learning rate swept.

The regime is one of many small gradient steps (8 environments × 128 steps, minibatches of 64, fan-in weights, Adam's ε 1e-8,
separate networks of 64-64 units), in which PPO with 16 epochs meets the collapse flag on MinAtar's games

    PCA rank ≤ max(2, 0.02 D), dead units ≥ 0.99 D and policy variance < 1e-4, to the end     (``representation/collapse.py``)

within some hundred thousand steps at a high learning rate. Every arm is trained at each learning rate on seeds that choose its own,
and reported on other seeds at that one and at the highest (``fair.py``). Then tables, curves, boxes by arm, and Kendall's τ of the
low ratio against rank, dead units and norm (Moalla et al. 2024, figures 2 to 6), beside the results.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cli
import fair
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from purejaxrl_ext.analysis import distributions, plots, stats

SHOWN = ("episode_return", "actor_rank_end", "actor_dead_units_end", "actor_preactivation_norm_end", "policy_variance_end",
         "ratio_below")  # fmt: skip
HEADER = ("arm, epochs", "rate", "collapsed", "return", "excess ratio", "rank", "dead units", "norm", "policy variance",
          "low ratio", "entropy")  # fmt: skip
REPRESENTATION = ("actor_rank", "actor_dead_units", "actor_preactivation_norm")


@dataclass(frozen=True)
class Collapse(fair.Comparison):
    """Settings of the study."""

    env: str = "SpaceInvaders-MinAtar"
    """the environment"""
    interventions: tuple[str, ...] = tuple(fair.CHANGES)
    """arms at many epochs; "none" is plain PPO, with which all are compared"""
    few_epochs: int = 4
    """passes over an update's data of plain PPO's second arm"""
    many_epochs: int = 16
    """passes of all others"""
    out: Path = Path("runs/collapse")
    """where results go; what is there already is gone on with"""


def arms_of(study: Collapse) -> dict[str, fair.Arm]:
    """The arms by their names, "intervention, epochs"."""
    if "none" not in study.interventions:
        raise ValueError(f"interventions={study.interventions} is not allowed: 'none' among them, to compare with")
    kinds = [("none", study.few_epochs), *((name, study.many_epochs) for name in study.interventions)]
    return {f"{name}, {epochs}": fair.regime(name, study.env, num_epochs=epochs) for name, epochs in kinds}


def rows(ds: xr.Dataset, rates: Mapping[str, float], last: float) -> list[list[str]]:
    """Of each arm what ``HEADER`` says."""
    flags, excess = fair.collapse_flags(ds, fair.WIDTH), fair.end_excess_ratio(ds)
    score = [stats.scores(ds, name, last) for name in (*SHOWN, "entropy")]
    found = []
    for name, rate in rates.items():
        told = [fair.interval_text(x.sel(arm=name).values) for x in (*score[:1], excess, *score[1:])]
        found.append([name, f"{rate:g}", f"{int(flags.sel(arm=name).sum())} of {flags.sizes['seed']}", *told])
    return found


def kendall_rows(ds: xr.Dataset) -> list[list[str]]:
    """Kendall's τ of the low ratio along the runs of each arm against rank, dead units and norm."""
    taus = [distributions.kendall(ds, "ratio_below", name) for name in REPRESENTATION]
    names = [str(arm) for arm in ds["arm"].values]
    return [[name, *(fair.interval_text(tau.sel(arm=name).values, "mean", 2) for tau in taus)] for name in names]


def improves(ds: xr.Dataset, x: str, y: str, last: float) -> str:
    """Probability that a run of ``x`` has a higher return at the end than one of ``y``."""
    if x == y:
        return "–"
    pair = (stats.task_scores(ds, name, last=last) for name in (x, y))
    middle, low, high = stats.probability_of_improvement(*pair)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def text(study: Collapse, compared: fair.Compared) -> str:
    """The tables."""
    own, high, plain = compared.own, compared.high, f"none, {study.many_epochs}"
    rates, top = {name: c["learning_rate"] for name, c in compared.choice.items()}, max(study.learning_rates)
    better = [[name, *(improves(ds, name, plain, study.last) for ds in (own, high))] for name in rates]
    paragraphs = [
        f"{study.env}, {int(np.nanmax(own['env_step'])):,} environment steps, {own.sizes['seed']} seeds: interquartile means "
        f"[95% bootstrap intervals] of the last {study.last:.0%} of training.\n",
        f"Each arm at the learning rate of {', '.join(f'{r:g}' for r in study.learning_rates)} that {study.choosing_seeds} "
        "other seeds chose:\n",
        fair.markdown(HEADER, rows(own, rates, study.last)),
        f"All at the highest, {top:g}:\n",
        fair.markdown(HEADER, rows(high, dict.fromkeys(rates, top), study.last)),
        f"Probability that a run has a higher return than one of {plain}:\n",
        fair.markdown(("arm, epochs", "at their own rates", f"at {top:g}"), better),
        f"Kendall's τ of the low ratio along each run at {top:g}, mean over runs (the paper claims it where the representation "
        "is poor):\n",
        fair.markdown(("arm, epochs", "rank", "dead units", "norm"), kendall_rows(high)),
    ]
    return "\n".join(paragraphs)


def figures(study: Collapse, compared: fair.Compared) -> dict[str, Figure]:
    """Curves, boxes by arm, and the low ratio against the rank, at the highest rate; boxes at the chosen ones too."""
    own, high = (ds.assign(excess_ratio=fair.end_excess_ratio(ds)) for ds in (compared.own, compared.high))
    boxed = (*SHOWN[:4], "excess_ratio")
    return {
        "curves": plots.curves(compared.high, SHOWN, center="iqm", smooth=min(1.0, 20.0 / high.sizes["update"])),
        "boxes": distributions.boxes(high, boxed, last=study.last),
        "boxes_own": distributions.boxes(own, boxed, last=study.last),
        "ratio": distributions.scatter(compared.high, "actor_rank", "ratio_below"),
    }


def main(study: Collapse) -> None:
    """Train, choose, report."""
    began = time.perf_counter()
    compared = fair.compare(arms_of(study), study)
    told = text(study, compared)
    (study.out / "collapse.md").write_text(told)
    for name, figure in figures(study, compared).items():
        figure.savefig(study.out / f"{name}.png", dpi=plots.FILE_DPI)
    print(told)
    print(f"tables and figures in {study.out}; took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    cli.run(main, __doc__, Collapse)
