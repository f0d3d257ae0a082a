"""PPO's collapse and what prevents it: few and many epochs, and the paper's interventions, each with its learning rate swept.

The regime is one of many small gradient steps (8 environments × 128 steps, minibatches of 64, fan-in weights, Adam's ε 1e-8,
separate networks of 64-64 units), in which PPO with 16 epochs meets the collapse flag on MinAtar's games

    PCA rank ≤ max(2, 0.02 D), dead units ≥ 0.99 D and policy variance < 1e-4, to the end     (``representation/collapse.py``)

within some hundred thousand steps at a high learning rate. Every arm is trained at each learning rate on seeds that choose its own,
and reported on other seeds at that one and at the highest (``fair.py``). Then tables, curves, boxes by arm, and Kendall's τ of the
low ratio against rank, dead units and norm (Moalla et al. 2024, figures 2 to 6), beside the results.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cli
import compared
import fair


@dataclass(frozen=True)
class Collapse(fair.Comparison):
    """Settings of the study."""

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


def main(study: Collapse) -> None:
    """Train, choose, report."""
    told = compared.Told(study.env, f"none, {study.many_epochs}", compared.COLUMNS)
    compared.report(arms_of(study), study, told)


if __name__ == "__main__":
    cli.run(main, __doc__, Collapse)
