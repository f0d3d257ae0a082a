"""PFO's claim where it is made: does it lower the representation's part of churn, and does that part predict the return?

    share = churn of the features alone / (churn of the features alone + churn of the heads alone)      of policy and value

on each update's data (``representation/churn.py``), in the regime of ``collapse.py``, each arm at the learning rate that it chose.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cli
import compared
import fair
import numpy as np
import scipy.stats
import xarray as xr
from matplotlib.figure import Figure

from purejaxrl_ext.analysis import distributions, stats
from purejaxrl_ext.representation import churn

PARTS = ("policy", "value")
COLUMNS = {k: compared.COLUMNS[k] for k in ("return", "rank", "norm", "low ratio")} | {
    f"{part} churn{end.replace('_', ' of ')}": f"update_{part}_churn{end}"
    for part in PARTS
    for end in ("", "_features")
}


@dataclass(frozen=True)
class Churn(fair.Comparison):
    """Settings of the study."""

    interventions: tuple[str, ...] = ("none", "pfo_last", "pfo_all")
    """arms; "none" is plain PPO"""
    num_epochs: int = 16
    """passes over an update's data"""
    out: Path = Path("runs/churn")
    """where results go; what is there already is gone on with"""


def share(dataset: xr.Dataset, part: str) -> xr.DataArray:
    """The features' share of the churn of ``part``, along the updates; NaN where nothing churned."""
    features, head = (dataset[f"update_{part}_churn_{of}"] for of in ("features", "head"))
    return (features / (features + head)).where(features + head > 0)


def with_shares(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with ``policy_share`` and ``value_share`` as metrics."""
    return dataset.assign({f"{part}_share": share(dataset, part) for part in PARTS})


def predicts(runs: xr.Dataset, part: str, last: float) -> str:
    """Kendall's τ over runs of the share and the return at the end of training, and its p-value."""
    pair = [stats.scores(runs, name, last).values.ravel() for name in (f"{part}_share", compared.RETURN)]
    both = np.isfinite(pair[0]) & np.isfinite(pair[1])
    if both.sum() < distributions.LEAST:
        return "–"
    found = scipy.stats.kendalltau(pair[0][both], pair[1][both])
    return f"τ = {found.statistic:.2f} (p = {found.pvalue:.2g}, {both.sum()} runs)"


def shares(study: Churn, seen: fair.Compared) -> tuple[str, dict[str, Figure]]:
    """The features' shares by arm, whether they go with the return within each arm's choosing runs, and boxes of the shares."""
    own = with_shares(seen.own)
    rows = []
    for name, choosing in seen.choosing.items():
        of_arm = [
            compared.interval_text(stats.scores(own, f"{part}_share", study.last).sel(arm=name).values)
            for part in PARTS
        ]
        rows.append([name, *of_arm, *(predicts(with_shares(choosing), part, study.last) for part in PARTS)])
    header = ("arm", *(f"features' share of {part} churn" for part in PARTS),
              *(f"{part} share with return, over rates and seeds that chose" for part in PARTS))  # fmt: skip
    text = "\nThe features' share of churn, and whether it goes with the return:\n\n" + compared.markdown(header, rows)
    figure = distributions.boxes(own, [f"{part}_share" for part in PARTS] + [compared.RETURN], last=study.last)
    return text, {"shares": figure}


def main(study: Churn) -> None:
    """Train, choose, report."""
    settings = {"num_epochs": study.num_epochs, "metrics": (churn.update_churn,)}
    arms = {name: fair.regime(name, study.env, **settings) for name in study.interventions}
    told = compared.Told(f"{study.env}, {study.num_epochs} epochs", study.interventions[0], COLUMNS)
    compared.report(arms, study, told, lambda seen: shares(study, seen))


if __name__ == "__main__":
    cli.run(main, __doc__, Churn)
