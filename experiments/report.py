"""What the studies share: run arms over seeds, then a table, figures, and where they are."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console
from rich.table import Table

import purejaxrl_ext as prx
from purejaxrl_ext.analysis import panels, plots, stats
from purejaxrl_ext.sweeps import logs


@dataclass(frozen=True)
class Report:
    """Settings that every study has."""

    num_seeds: int = 8
    """seeds of each arm"""
    total_steps: int = 1_250_000
    """environment steps of each run"""
    out: Path | None = None
    """where results go, a new directory; default: runs/study-1, -2, ..."""
    resume: bool = False
    """go on with the run in --out from its last checkpoints, also to more seeds or steps; start it if there is none"""
    checkpoint_seconds: float = 60.0
    """between checkpoints"""
    wave_size: int | None = None
    """seeds that run at once, at most; default: as many as fit into memory"""
    tensorboard: bool = False
    """also write logs for TensorBoard, into --out"""
    wandb: str | None = None
    """also log to this project of Weights & Biases, offline"""
    distributed: bool = False
    """one of several processes, which JAX finds by itself (Slurm, Open MPI, Kubernetes) or by the next three"""
    coordinator: str | None = None
    """host:port of process 0"""
    num_processes: int | None = None
    """how many processes there are"""
    process_id: int | None = None
    """which of them this is, from 0"""
    center: Literal["mean", "iqm"] = "mean"
    """over seeds, in the table and the figures"""
    smooth: float | None = None
    """weight of each update in the curves' moving average (1: none); default: over about a twentieth of the run"""
    last: float = 0.1
    """share of training, at its end, that the table is about"""


def run_and_report(
    arms: Mapping[str, prx.Algorithm], study: Report, title: str, table_of: Sequence[str], figure_of: Sequence[str]
) -> None:
    """Train every arm with every seed; print the table, save table and figures beside the results."""
    check(study)
    began = time.perf_counter()
    out = study.out or fresh_directory(Path("runs"))
    print(f"{title}, {study.num_seeds} seeds, {study.total_steps:,} environment steps each, into {out}")
    dataset = trained(arms, study, out)
    if jax.process_index() > 0:
        return  # the first of several processes reports for all
    table = stats.summary(dataset, table_of, last=study.last, center=study.center)
    table.to_csv(out / "summary.csv")
    smooth = study.smooth or min(1.0, 20.0 / dataset.sizes["update"])
    figures = [out / "curves.png", out / "curves.pdf"]
    figure = plots.curves(dataset, figure_of, center=study.center, smooth=smooth, path=figures[0])
    figure.savefig(figures[1])
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(rich_table(table, table_of, title, study, dataset))
    for arm in dataset["arm"].values:
        lost = table.loc[(arm, table_of[0])]
        if lost["num_diverged"]:
            seeds = lost["diverged_seeds"]
            print(f"{arm}: {lost['num_diverged']} of {study.num_seeds} runs diverged and are left out: seeds {seeds}")
    print(f"figures: {figures[0]}, {figures[1]}")
    print(f"table:   {out / 'summary.csv'}")
    print(f"data:    {out}, read with purejaxrl_ext.load({str(out)!r})")
    print(f"took {time.perf_counter() - began:.0f} s")


def check(study: Report) -> None:
    """Raise ``ValueError`` where settings that every study has are not allowed."""
    for name, value in (("smooth", study.smooth), ("last", study.last)):
        if value is not None and not 0.0 < value <= 1.0:
            raise ValueError(f"{name}={value} is not allowed: it must be in (0, 1]")
    for name in ("resume", "distributed"):
        if getattr(study, name) and study.out is None:
            raise ValueError(f"{name}=True needs --out, the directory of the run")


def trained(arms: Mapping[str, prx.Algorithm], study: Report, out: Path) -> xr.Dataset:
    """The results of all arms in ``out``: of a new run, or of one that went on."""
    log = [logs.TensorBoard()] if study.tensorboard else []
    log += [logs.WandB(study.wandb)] if study.wandb else []
    settings = {
        "num_seeds": study.num_seeds,
        "total_steps": study.total_steps,
        "checkpoint_seconds": study.checkpoint_seconds,
        "log": log,
    }
    try:
        if study.resume and (out / "config.json").exists():
            return prx.resume(out, arms=arms, **settings)
        return prx.sweep(arms, out=out, wave_size=study.wave_size, **settings)
    except FileExistsError:
        go_on = "go on with it by --resume, or " if (out / "config.json").exists() else ""
        raise ValueError(f"--out {out} holds a run or other files already: {go_on}choose another --out") from None
    except KeyboardInterrupt:
        print(f"\n{stopped(out)}", file=sys.stderr)
        raise SystemExit(130) from None


def rich_table(table: pd.DataFrame, metrics: Sequence[str], title: str, study: Report, dataset: xr.Dataset) -> Table:
    """One row per arm: estimate [low, high] of each metric."""
    share = f"last {study.last:.0%} of {int(np.nanmax(dataset['env_step'])):,} steps"
    shown = Table(title=f"{title}, {share}: {panels.over_seeds(study.num_seeds, study.center)}")
    shown.add_column("arm")
    for metric in metrics:
        shown.add_column(plots.label(metric, dataset), justify="right")
    for arm in dataset["arm"].values:
        shown.add_row(str(arm), *(cell_text(table.loc[(arm, metric)]) for metric in metrics))
    return shown


def cell_text(row: Mapping[str, float] | pd.Series) -> str:
    """``estimate [low, high]``, as rich prints it."""
    if not np.isfinite(row["estimate"]):
        return "none"
    bounds = f"{row['low']:.4g}, {row['high']:.4g}" if np.isfinite(row["low"]) else "one seed"
    return f"{row['estimate']:.4g} \\[{bounds}]"


def stopped(out: Path) -> str:
    """What to say after Ctrl-C."""
    if not (out / "config.json").exists():
        return "stopped before anything was saved"
    return f"stopped; what was saved until then is in {out}: go on with the same command and --resume"


def fresh_directory(parent: Path) -> Path:
    """The first of study-1, study-2, ... that is not there."""
    return next(p for i in itertools.count(1) if not (p := parent / f"study-{i}").exists())
