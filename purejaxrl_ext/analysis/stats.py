"""Statistics of a sweep: each run's score at the end of training, tables with bootstrap intervals over seeds, and over
tasks and seeds the aggregates of rliable (Agarwal et al. 2021).

The dimensions ``seed`` and ``update`` are found by name; all others, whatever they are called, tell arms and grid cells
apart. A run whose loss was not finite (``diverged_at``) enters no statistic; it is counted and named beside it.
What works on arrays alone is in :mod:`purejaxrl_ext.analysis.centers` and :mod:`purejaxrl_ext.analysis.aggregates`, and can
be called from here too.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from purejaxrl_ext.analysis.aggregates import (
    AGGREGATES,
    Estimate,
    aggregate,
    optimality_gap,
    performance_profile,
    pooled_iqm,
    pooled_mean,
    probability_of_improvement,
    resample,
    task_median,
)
from purejaxrl_ext.analysis.centers import CENTERS, FEW, bootstrap, iqm, mean
from purejaxrl_ext.errors import check, unknown_name

__all__ = [
    "AGGREGATES",
    "CENTERS",
    "Estimate",
    "Table",
    "aggregate",
    "aggregates",
    "arm_dims",
    "bootstrap",
    "cells",
    "check_metrics",
    "computed",
    "diverged",
    "exists",
    "iqm",
    "mean",
    "methods_dim",
    "metric_names",
    "named_methods",
    "optimality_gap",
    "performance_profile",
    "pooled_iqm",
    "pooled_mean",
    "probability_of_improvement",
    "resample",
    "scores",
    "summary",
    "task_median",
    "task_scores",
    "whole",
]

SHOWN_SEEDS = 5  # of those that diverged, in a printed table


def metric_names(dataset: xr.Dataset) -> list[str]:
    """What was measured along the updates."""
    return [str(name) for name in dataset.data_vars if "update" in dataset[name].dims]


def whole(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with every dimension that a selection took away, then of length 1, and with ``diverged_at``.

    ``ds.sel(arm="ppo", gamma=0.9)`` has the dimensions arm, gamma, seed and update again. Where ``diverged_at`` was left
    out, as by ``ds[["episode_return"]]``, no run counts as diverged.

    Raises:
        ValueError: a dataset without metrics along ``update``, or without the coordinate ``env_step``.
    """
    names = metric_names(dataset)
    check(bool(names), "dataset", list(dataset.data_vars), "one of a sweep, with metrics along 'update'")
    check("env_step" in dataset.coords, "dataset", list(dataset.coords), "one of a sweep, with 'env_step' among them")
    arms = arm_dims(dataset)
    gone = [str(n) for n, x in dataset.coords.items() if x.ndim == 0 and n not in ("env_step", "seed", "update")]
    dataset = dataset.expand_dims([*gone, *({"seed"} - set(dataset.dims))])
    lost = {name: dataset[name].values for name in gone if name in arms}
    dataset = dataset.assign_coords(env_step=dataset["env_step"].drop_vars(gone, errors="ignore").expand_dims(lost))
    dataset = dataset.transpose(*arms, ..., "seed", "update")
    if "diverged_at" not in dataset:
        never = xr.full_like(dataset[names[0]].isel(update=0, drop=True), np.nan, np.float32)
        dataset = dataset.assign(diverged_at=never)
    return dataset


def arm_dims(dataset: xr.Dataset) -> list[str]:
    """The dimensions that tell arms apart, as far as they are still known: ``arm``, or those of ``sweep(dims=...)``.

    They are the dataset's ``attrs["dims"]``, a text; without that, those that its ``env_step`` has.
    """
    known = dataset.attrs.get("dims", ["arm", *(d for d in dataset["env_step"].dims if d != "update")])
    return [
        str(d)
        for d in dict.fromkeys(known.split(", ") if isinstance(known, str) else known)
        if d in [*dataset.coords, *dataset.dims]
    ]


def cells(dataset: xr.Dataset) -> list[str]:
    """The dimensions that tell arms and grid cells apart: all but ``seed`` and ``update``, those of arms first."""
    return [str(d) for d in dataset[metric_names(dataset)[0]].dims if d not in ("seed", "update")]


def diverged(dataset: xr.Dataset) -> xr.DataArray:
    """Which runs' loss was not finite at some update: bool ``[arm, *grid, seed]``."""
    if "diverged_at" in dataset:
        return dataset["diverged_at"].notnull()
    return xr.zeros_like(dataset[metric_names(dataset)[0]].isel(update=0, drop=True), bool)


def exists(dataset: xr.Dataset) -> xr.DataArray:
    """Where there is an arm at all: bool over the arms' dimensions, of which not all combinations need be trained."""
    return dataset["env_step"].notnull().any("update")


def computed(dataset: xr.Dataset) -> xr.DataArray:
    """Which updates have been computed: bool ``[arm, update]``."""
    arms = dataset["env_step"].dims
    metrics = [dataset[name] for name in metric_names(dataset)]
    some = [x.notnull().any([d for d in x.dims if d not in arms]) for x in metrics]
    known = functools.reduce(operator.or_, some)
    # All updates up to the last with a number: one in between may lack every number.
    return known.isel(update=slice(None, None, -1)).cumsum("update").isel(update=slice(None, None, -1)) > 0


def scores(dataset: xr.Dataset, metric: str = "episode_return", last: float = 0.1) -> xr.DataArray:
    """Each run's mean of a metric over the last share ``last`` of its updates ``[arm, *grid, seed]``.

    Updates without a number (no episode ended, or the representation not measured) are left out. NaN: the run diverged,
    or had no number at all there.

    Raises:
        ValueError: an unknown metric, or ``last`` outside (0, 1].
    """
    check(0.0 < last <= 1.0, "last", last, "a share in (0, 1]")
    check_metrics(dataset, metric)
    # Each arm's own updates: shorter arms are padded, and a run may still be on its way.
    known_updates = computed(dataset)
    number = known_updates.cumsum("update")
    total = known_updates.sum("update")
    window = known_updates & (number > total - np.maximum(1, np.ceil(last * total)))
    return dataset[metric].where(window).mean("update", skipna=True).where(~diverged(dataset))


def check_metrics(dataset: xr.Dataset, *metrics: str) -> None:
    """Raise ``ValueError``, with the nearest names, where a metric is unknown."""
    known = metric_names(dataset)
    check(len(metrics) > 0, "metrics", metrics, "at least one name")
    for metric in metrics:
        if metric not in known:
            raise ValueError(unknown_name("metric", metric, known))


class Table(pd.DataFrame):
    """Estimates with their intervals, printed as ``estimate [low, high]`` so that a line fits a terminal.

    The columns are numbers, as in any frame: ``table.loc[("ppo", "episode_return"), "high"]``.
    """

    def compact(self) -> pd.DataFrame:
        """What is printed: one column of text, the number of runs, and which diverged where some did."""
        runs = "num_seeds" if "num_seeds" in self else "num_runs"
        rows = [row._asdict() for row in self.itertuples(index=False)]
        shown = pd.DataFrame({self.attrs.get("what", "estimate"): [_interval_text(row) for row in rows]}, self.index)
        shown[runs.removeprefix("num_")] = self[runs].to_numpy()
        if self["num_diverged"].any():
            shown["diverged"] = [_diverged_text(row) for row in rows]
        return shown

    def __repr__(self) -> str:
        return self.compact().to_string()

    def _repr_html_(self) -> str:
        return self.compact().to_html()


def _interval_text(row: Mapping[str, Any]) -> str:
    if not np.isfinite(row["estimate"]):
        return "none"
    bounds = f"{row['low']:.4g}, {row['high']:.4g}" if np.isfinite(row["low"]) else "one run"
    return f"{row['estimate']:.4g} [{bounds}]"


def _diverged_text(row: Mapping[str, Any]) -> str:
    seeds = str(row.get("diverged_seeds", "")).split(", ")
    some = ", ".join(seeds[:SHOWN_SEEDS]) + ", …" * (len(seeds) > SHOWN_SEEDS)
    return f"{row['num_diverged']}" + f" (seed {some})" * (some != "")


def summary(
    dataset: xr.Dataset,
    metrics: Sequence[str] | str = ("episode_return",),
    *,
    last: float = 0.1,
    center: str = "mean",
    level: float = 0.95,
    num_resamples: int = 10_000,
) -> Table:
    """The end of training per arm, grid cell and metric, with bootstrap intervals over seeds.

    Args:
        dataset: of a sweep; select with ``dataset.sel(...)`` to show less.
        metrics: names.
        last: share of the updates, at the end, that each run's score is the mean of.
        center: ``"mean"`` or ``"iqm"`` over seeds.
        level: of the intervals.
        num_resamples: of the bootstrap.

    Returns:
        a table indexed by arm, every swept setting and metric, with columns ``estimate``, ``low``, ``high``,
        ``num_seeds`` (that entered), ``num_diverged`` and ``diverged_seeds`` (that did not, and which). It prints as
        one column ``estimate [low, high]``. Combinations of the arms' dimensions that have no arm have no row.

    Raises:
        ValueError: an unknown metric or centre.
    """
    dataset, metrics = whole(dataset), (metrics,) if isinstance(metrics, str) else tuple(metrics)
    check_metrics(dataset, *metrics)
    dims = cells(dataset)
    rows = []
    for metric in metrics:
        values = scores(dataset, metric, last).transpose(*dims, "seed")
        lost = diverged(dataset).transpose(*dims, "seed").values
        there = exists(dataset).broadcast_like(values.isel(seed=0, drop=True)).transpose(*dims).values
        of = bootstrap(values.values, center, level=level, num_resamples=num_resamples)
        for where in map(tuple, np.argwhere(there)):
            cell = {d: values[d].values[i] for d, i in zip(dims, where, strict=True)} | {"metric": metric}
            interval = dict(zip(Estimate._fields, (x[where] for x in of), strict=True))
            seeds = values["seed"].values[lost[where]]
            counts = {"num_seeds": int(np.isfinite(values.values[where]).sum()), "num_diverged": len(seeds)}
            rows.append(cell | interval | counts | {"diverged_seeds": ", ".join(map(str, seeds))})
    few = 1 < dataset.sizes["seed"] <= FEW and level >= 0.95
    return _table(rows, [*dims, "metric"], f"{center} [{'range' if few else f'{level:.0%} interval'}]")


def _table(rows: list[dict[str, Any]], index: list[str], what: str) -> Table:
    table = Table(pd.DataFrame(rows).set_index(index))
    table.attrs["what"] = what
    return table


def methods_dim(dataset: xr.Dataset, by: str | None = None) -> str:
    """The dimension whose labels are methods: ``by``, or the first: ``arm`` where arms have one."""
    dims = cells(dataset)
    check(bool(dims) and (by is None or by in dims), "by", by, f"None or one of {', '.join(map(repr, dims))}")
    return by or dims[0]


def named_methods(
    dataset: xr.Dataset, methods: Mapping[str, Any] | None = None, by: str | None = None
) -> dict[str, Any]:
    """``methods``, or every label of the dimension ``by`` under its own name."""
    if methods is not None:
        return dict(methods)
    dataset = whole(dataset)
    return {str(label): label for label in dataset[methods_dim(dataset, by)].values.tolist()}


def task_scores(
    dataset: xr.Dataset,
    arms: Any,
    metric: str = "episode_return",
    *,
    by: str | None = None,
    last: float = 0.1,
    bounds: Sequence[tuple[float, float]] | tuple[float, float] | None = None,
) -> np.ndarray:
    """Scores ``[M, S]`` of one method: a task is an arm, or where there are further dimensions one of their cells.

    Args:
        dataset: of a sweep.
        arms: the method's arms, one per environment: ``"ppo"``, or ``["ppo Breakout", "ppo Asterix"]``.
        metric: its mean over the last share ``last`` of the updates is a run's score (:func:`scores`).
        by: the dimension whose labels ``arms`` are; None: the first, ``arm`` or the first of ``dims``.
        last: see there.
        bounds: (low, high) which become 0 and 1, one pair for all, per arm, or per task: returns of different
            environments have no common scale otherwise. None: as they are.

    Raises:
        ValueError: an arm or a metric that the dataset does not have, or bounds that do not fit.
    """
    dataset = whole(dataset)
    by = methods_dim(dataset, by)
    names = [arms] if isinstance(arms, str) or not isinstance(arms, Sequence | np.ndarray) else list(arms)
    known = dataset[by].values.tolist()
    fits = len(names) > 0 and all(name in known for name in names)
    check(fits, "arms", arms, f"among {', '.join(map(repr, known))}")
    raw = scores(dataset, metric, last).sel({by: names}).transpose(by, ..., "seed").values
    tasks = raw.reshape(-1, raw.shape[-1])
    limits = np.asarray((0.0, 1.0) if bounds is None else bounds, np.float64)
    fits = limits.shape in ((2,), (len(names), 2), (len(tasks), 2)) and bool((limits[..., 0] != limits[..., 1]).all())
    allowed = f"None, a pair of different numbers, or {len(names)} (or {len(tasks)}) such pairs"
    check(fits, "bounds", bounds, allowed)
    if limits.shape == (len(names), 2):
        limits = np.repeat(limits, len(tasks) // len(names), axis=0)
    low, high = limits[..., :1], limits[..., 1:]
    return (tasks - low) / (high - low)


def aggregates(
    dataset: xr.Dataset,
    methods: Mapping[str, Any] | None = None,
    metric: str = "episode_return",
    *,
    by: str | None = None,
    target: float | None = None,
    level: float = 0.95,
    num_resamples: int = 2000,
    **options: Any,
) -> Table:
    """IQM, mean, median and, where there is a target, optimality gap of every method, with stratified bootstrap intervals.

    Args:
        dataset: of a sweep.
        methods: the arms of each method by its name (see :func:`task_scores`); None: every arm is one.
        metric: what is scored.
        by: the dimension whose labels are methods; the other ones are tasks. None: the first.
        target: of the optimality gap, the score at which a task counts as solved. None: 1 where ``bounds`` are given,
            which make it that; raw returns have no such number, and the gap is left out.
        level, num_resamples: of the intervals.
        **options: ``last`` and ``bounds`` of :func:`task_scores`.

    Returns:
        a table indexed by method and aggregate, with columns ``estimate``, ``low``, ``high``, ``num_runs`` (that
        entered) and ``num_diverged`` (that did not).
    """
    dataset = whole(dataset)
    by = methods_dim(dataset, by)
    target = 1.0 if target is None and options.get("bounds") is not None else target
    functions = {name: of for name, of in AGGREGATES.items() if name != "optimality_gap"}
    if target is not None:
        functions["optimality_gap"] = functools.partial(optimality_gap, target=target)
    rows, lost = [], diverged(dataset)
    for method, arms in named_methods(dataset, methods, by).items():
        x = task_scores(dataset, arms, metric, by=by, **options)
        counts = {"num_runs": int(np.isfinite(x).sum()), "num_diverged": int(lost.sel({by: arms}).sum())}
        for name, of in functions.items():
            row = aggregate(x, of, level=level, num_resamples=num_resamples)._asdict()
            rows.append({"method": method, "aggregate": name, **row, **counts})
    return _table(rows, ["method", "aggregate"], f"estimate [{level:.0%} interval]")
