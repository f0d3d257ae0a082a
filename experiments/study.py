"""PPO against PFO: learning curves and representation curves over several seeds, ending in a table and figures."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cli
import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console
from rich.table import Table

import purejaxrl_ext as prx
from purejaxrl_ext import plots, stats

TABLE = ("episode_return", "actor_rank", "actor_dead_units", "actor_preactivation_norm")
FIGURE = (*TABLE, "policy_variance", "clip_fraction")


@dataclass(frozen=True)
class Study:
    """Settings of the study."""

    env: str = "Breakout-MinAtar"
    """gymnax's name, or "brax:" and Brax's"""
    num_seeds: int = 8
    """seeds of each arm"""
    total_steps: int = 1_250_000
    """environment steps of each run"""
    out: Path | None = None
    """where results go, a new directory; default: runs/study-1, -2, ..."""
    num_envs: int = 64
    """environments side by side"""
    num_steps: int = 128
    """steps of each environment per update"""
    num_epochs: int = 4
    """passes over an update's data; more of them bring collapse on sooner"""
    num_minibatches: int = 8
    """minibatches of a pass"""
    network: Literal["mlp", "default"] = "mlp"
    """dense layers on the flattened observation, or what the package takes for it (images: a CNN, slower on a CPU)"""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """widths of the dense layers"""
    activation: Literal["relu", "tanh", "leaky_relu", "elu", "gelu", "silu"] = "relu"
    learning_rate: float = 1e-3
    entropy_coef: float = 0.01
    clip_eps: float = 0.2
    """clip range of PPO's ratio"""
    feature_coef: float = 1.0
    """PFO's coefficient"""
    feature_layers: Literal["last", "all"] = "last"
    """PFO's layers"""
    metrics_every: int = 5
    """updates between measurements of the representation"""
    center: Literal["mean", "iqm"] = "mean"
    """over seeds, in the table and the figures"""
    smooth: float | None = None
    """weight of each update in the curves' moving average (1: none); default: over about a twentieth of the run"""
    last: float = 0.1
    """share of training, at its end, that the table is about"""


def main(study: Study) -> None:
    began = time.perf_counter()
    shared = {
        "num_envs": study.num_envs,
        "num_steps": study.num_steps,
        "num_epochs": study.num_epochs,
        "num_minibatches": study.num_minibatches,
        "conv_layers": () if study.network == "mlp" else None,
        "hidden_sizes": study.hidden_sizes,
        "activation": study.activation,
        "learning_rate": study.learning_rate,
        "entropy_coef": study.entropy_coef,
        "clip_eps": study.clip_eps,
        "metrics_every": study.metrics_every,
    }
    if study.network == "mlp" and not study.hidden_sizes:
        raise ValueError("hidden_sizes=() is not allowed: the study is about hidden layers")
    if study.metrics_every < 1:
        raise ValueError(f"metrics_every={study.metrics_every} is not allowed: the study is about what it measures")
    for name, value in (("smooth", study.smooth), ("last", study.last)):
        if value is not None and not 0.0 < value <= 1.0:
            raise ValueError(f"{name}={value} is not allowed: it must be in (0, 1]")
    arms = {
        "ppo": prx.make("ppo", study.env, **shared),
        "pfo": prx.make(
            "pfo", study.env, **shared, feature_coef=study.feature_coef, feature_layers=study.feature_layers
        ),
    }
    out = study.out or fresh_directory(Path("runs"))
    print(
        f"{study.env}: PPO and PFO, {study.num_seeds} seeds, {study.total_steps:,} environment steps each, into {out}"
    )
    try:
        dataset = prx.sweep(arms, num_seeds=study.num_seeds, total_steps=study.total_steps, out=out)
    except KeyboardInterrupt:
        print(f"\n{stopped(out)}", file=sys.stderr)
        raise SystemExit(130) from None

    table = stats.summary(dataset, TABLE, last=study.last, center=study.center)
    table.to_csv(out / "summary.csv")
    smooth = study.smooth or min(1.0, 20.0 / dataset.sizes["update"])
    figures = [out / "curves.png", out / "curves.pdf"]
    figure = plots.curves(dataset, FIGURE, center=study.center, smooth=smooth, path=figures[0])
    figure.savefig(figures[1])
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(rich_table(table, study, dataset))
    for arm in dataset["arm"].values:
        lost = table.loc[(arm, TABLE[0])]
        if lost["num_diverged"]:
            seeds = lost["diverged_seeds"]
            print(f"{arm}: {lost['num_diverged']} of {study.num_seeds} runs diverged and are left out: seeds {seeds}")
    print(f"figures: {figures[0]}, {figures[1]}")
    print(f"table:   {out / 'summary.csv'}")
    print(f"data:    {out}, read with purejaxrl_ext.load({str(out)!r})")
    print(f"took {time.perf_counter() - began:.0f} s")


def rich_table(table: pd.DataFrame, study: Study, dataset: xr.Dataset) -> Table:
    """One row per arm: estimate [low, high] of each metric."""
    share = f"last {study.last:.0%} of {int(np.nanmax(dataset['env_step'])):,} steps"
    center = {"mean": "mean", "iqm": "interquartile mean"}[study.center]
    shown = Table(title=f"{study.env}, {share}: {center} over {study.num_seeds} seeds [95% bootstrap interval]")
    shown.add_column("arm")
    for metric in TABLE:
        shown.add_column(plots.label(metric), justify="right")
    for arm in dataset["arm"].values:
        shown.add_row(str(arm), *(cell_text(table.loc[(arm, metric)]) for metric in TABLE))
    return shown


def cell_text(row: pd.Series) -> str:
    if not np.isfinite(row["estimate"]):
        return "none"
    bounds = f"{row['low']:.4g}, {row['high']:.4g}" if np.isfinite(row["low"]) else "one seed"
    return f"{row['estimate']:.4g} \\[{bounds}]"


def stopped(out: Path) -> str:
    """What to say after Ctrl-C."""
    if not (out / "config.json").exists():
        return "stopped before anything was saved"
    return f"stopped: what was saved until then is in {out}; read it with purejaxrl_ext.load({str(out)!r})"


def fresh_directory(parent: Path) -> Path:
    """The first of study-1, study-2, ... that is not there."""
    return next(p for i in itertools.count(1) if not (p := parent / f"study-{i}").exists())


if __name__ == "__main__":
    cli.run(main, __doc__, Study)
