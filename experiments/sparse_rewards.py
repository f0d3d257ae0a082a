"""Sparse rewards and the shared trunk (Moalla et al. 2024, section 4.2): does a shared trunk do harm where rewards are rare?

    share of masked rewards × {separate networks, shared trunk} × {none, PFO}

each with its learning rate chosen (``fair.py``), in the regime of ``collapse.py`` at many epochs. A masked reward is 0 for the
agent; the return counts what the game gave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cli
import compared
import fair

COLUMNS = {k: compared.COLUMNS[k] for k in ("return", "rank", "dead units", "norm", "low ratio")} | {
    "critic's rank": "critic_rank_end",
    "critic's dead units": "critic_dead_units_end",
}
TRUNKS = {"separate": {}, "shared": {"shared_torso": True}}


@dataclass(frozen=True)
class Sparse(fair.Comparison):
    """Settings of the study."""

    masked: tuple[float, ...] = (0.0, 0.9)
    """shares of rewards that the agent does not get; each has tables and figures of its own"""
    interventions: tuple[str, ...] = ("none", "pfo_last")
    """arms, with either trunk"""
    num_epochs: int = 16
    """passes over an update's data"""
    out: Path = Path("runs/sparse")
    """where results go; what is there already is gone on with"""


def arms_of(study: Sparse, masked: float) -> dict[str, fair.Arm]:
    """The arms by their names, "intervention, trunk"."""
    return {
        f"{name}, {trunk}": fair.regime(name, study.env, num_epochs=study.num_epochs, mask_rewards=masked, **settings)
        for trunk, settings in TRUNKS.items()
        for name in study.interventions
    }


def main(study: Sparse) -> None:
    """Train, choose, report, for each share of masked rewards."""
    for masked in study.masked:
        told = compared.Told(
            f"{study.env}, {masked:.0%} of rewards masked", f"{study.interventions[0]}, separate", COLUMNS
        )
        of = replace(study, out=study.out / f"masked-{masked:g}")
        compared.report(arms_of(study, masked), of, told)


if __name__ == "__main__":
    cli.run(main, __doc__, Sparse)
