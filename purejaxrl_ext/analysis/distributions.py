"""Figures of single runs: boxes by arm at the end of training, one metric against another along training, and Kendall's τ of the
two.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purejaxrl_ext.analysis import stats
from purejaxrl_ext.analysis.panels import axis_label, dress, finish, heading, label, lines

LEAST = 5  # pairs of numbers that a rank correlation stands on, at least
LETTERS = 24  # of a line below a box's panel
WIDE = 100.0  # a metric whose runs span more than this factor has a logarithmic axis


def boxes(
    dataset: xr.Dataset,
    metrics: Sequence[str] | str = ("episode_return",),
    *,
    last: float = 0.1,
    path: str | Path | None = None,
) -> Figure:
    """One panel per metric; a box per arm and grid cell: median, quartiles, whiskers to 1.5 times their distance; runs as points.

    Args:
        dataset: of a sweep. A variable without ``update`` is each run's number itself.
        metrics: names; of the others a run's number is the mean over the last share ``last`` of its updates.
        last: see there.
        path: save the figure there as well; its suffix says the format.

    Raises:
        ValueError: an unknown metric.
    """
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    numbers = {m: dataset[m] for m in metrics if m in dataset and "update" not in dataset[m].dims}
    whole = stats.whole(dataset.drop_vars(list(numbers)))
    found = lines(whole, stats.cells(whole), None)
    numbers |= {m: stats.scores(whole, m, last) for m in metrics if m not in numbers}
    figure = Figure(figsize=(0.9 + 2.2 * len(metrics), 1.9 + 0.32 * len(found)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(metrics), sharey=True)).tolist()
    for panel, metric in zip(panels, metrics, strict=True):
        runs = [
            _finite(numbers[metric].isel({d: i for d, i in line.cell.items() if d in numbers[metric].dims}))
            for line in found
        ]
        panel.boxplot(runs, orientation="horizontal", widths=0.6, showfliers=False, medianprops={"color": "#D55E00"})
        for row, values in enumerate(runs, 1):
            panel.plot(values, np.full(values.shape, row), ".", color="#0072B2", alpha=0.6, markersize=5)
        _scale(panel, np.concatenate(runs))
        panel.set_xlabel(textwrap.fill(label(metric, dataset), LETTERS), fontsize="small")
        dress(panel)
    panels[0].set_yticks(range(1, len(found) + 1), [line.label for line in found])
    panels[0].invert_yaxis()
    text = f"last {last:.0%} of training, {whole.sizes['seed']} seeds"
    return finish(figure, panels[0], path, heading(dataset, text))


def scatter(dataset: xr.Dataset, x: str, y: str, *, path: str | Path | None = None) -> Figure:
    """Metric ``y`` against metric ``x``: a point per run and update at which both were measured, coloured by arm.

    The legend has Kendall's τ along each run (:func:`kendall`), its mean over the runs of the arm.

    Raises:
        ValueError: an unknown metric.
    """
    whole = stats.whole(dataset)
    tau = kendall(whole, x, y)
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    panel = figure.subplots()
    for line in lines(whole, stats.cells(whole), next(iter(stats.cells(whole)), None)):
        runs, mean = whole.isel(line.cell), _finite(tau.isel(line.cell))
        told = f"{line.label}, τ = {mean.mean():.2f}" if len(mean) else line.label
        panel.plot(
            runs[x].values.ravel(), runs[y].values.ravel(), ".", color=line.color, alpha=0.4, markersize=4, label=told
        )
    panel.set_xlabel(label(x, dataset))
    panel.set_ylabel(axis_label(y, dataset))
    dress(panel)
    return finish(figure, panel, path, heading(dataset, f"{whole.sizes['seed']} seeds, a point per measured update"))


def kendall(dataset: xr.Dataset, x: str, y: str) -> xr.DataArray:
    """Kendall's τ_b of two metrics over the updates of each run at which both were measured, ``[arm, *grid, seed]``.

    NaN of a run with fewer than 5 of them, or in which one does not vary.

    Raises:
        ValueError: an unknown metric.
    """
    dataset = stats.whole(dataset)
    stats.check_metrics(dataset, x, y)
    return xr.apply_ufunc(_tau, *xr.broadcast(dataset[x], dataset[y]), input_core_dims=[["update"]] * 2, vectorize=True)


def _tau(x: np.ndarray, y: np.ndarray) -> float:
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < LEAST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    import scipy.stats  # not above: it takes a while

    return float(scipy.stats.kendalltau(x, y).statistic)


def _finite(x: xr.DataArray) -> np.ndarray:
    values = np.asarray(x.values, np.float64).ravel()
    return values[np.isfinite(values)]


def _scale(panel: Axes, values: np.ndarray) -> None:
    if len(values) and values.min() > 0 and values.max() > WIDE * values.min():
        panel.set_xscale("log")
