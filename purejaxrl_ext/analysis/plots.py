"""Figures of a sweep: a metric against environment steps, or at the end of training against a setting, a centre over seeds
with an interval band; performance profiles and probabilities of improvement.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from purejaxrl_ext.analysis import stats
from purejaxrl_ext.analysis.distributions import boxes, scatter
from purejaxrl_ext.analysis.panels import (
    COLORS,
    FILE_DPI,
    LINES,
    Line,
    axis_label,
    dress,
    finish,
    heading,
    label,
    lines,
    over_seeds,
)
from purejaxrl_ext.analysis.profiles import improvement, profiles
from purejaxrl_ext.errors import check

__all__ = [
    "COLORS",
    "FILE_DPI",
    "LINES",
    "POINTS",
    "against",
    "boxes",
    "curves",
    "improvement",
    "label",
    "profiles",
    "scatter",
]

POINTS = 400  # per line; more cannot be seen, and each costs a bootstrap
TICKS = 12  # values of a dimension that are all written below its axis, at most


class Kind(NamedTuple):
    """What a line and its band stand for; see :func:`curves`."""

    center: str
    interval: str
    smooth: float | None


def curves(
    dataset: xr.Dataset,
    metrics: Sequence[str] | str = ("episode_return",),
    *,
    by: str | None = None,
    center: str = "mean",
    interval: str = "bootstrap",
    smooth: float | None = None,
    path: str | Path | None = None,
) -> Figure:
    """One panel per metric; one line per arm and grid cell, over seeds.

    Args:
        dataset: of a sweep; select with ``dataset.sel(...)`` to show less. What has not been computed yet is left out,
            and so is a run from the update on at which its loss was not finite (the legend says of how many).
        metrics: names.
        by: the dimension that colours tell apart; the other ones get line styles. None: the first that has several
            values, ``arm`` before others.
        center: ``"mean"`` or ``"iqm"`` over seeds.
        interval: ``"bootstrap"`` (95%, over seeds) or ``"minmax"``.
        smooth: α of an exponential moving average per update, in (0, 1]; None or 1: none. Metrics that are measured
            every few updates are smoothed over as many updates as the others.
        path: save the figure there as well; its suffix says the format.

    Returns:
        the figure.

    Raises:
        ValueError: an unknown metric, dimension or option.
    """
    dataset, metrics = stats.whole(dataset), (metrics,) if isinstance(metrics, str) else tuple(metrics)
    stats.check_metrics(dataset, *metrics)
    check(interval in ("bootstrap", "minmax"), "interval", interval, "'bootstrap' or 'minmax'")
    check(smooth is None or 0.0 < smooth <= 1.0, "smooth", smooth, "None or in (0, 1]")
    shown = lines(dataset, *_dims(dataset, by, center))
    kind, finished = Kind(center, interval, smooth), stats.computed(dataset)
    figure, panels = _panels(len(metrics))
    for panel, metric in zip(panels, metrics, strict=True):
        for line in shown:
            of_arm = {d: i for d, i in line.cell.items() if d in finished.dims}
            _draw(panel, dataset.isel(line.cell), finished.isel(of_arm), metric, kind, line)
        panel.set_ylabel(axis_label(metric, dataset))
        panel.set_xlabel("environment steps")
        panel.xaxis.set_major_formatter(FuncFormatter(_short))
        panel.margins(x=0.01)
        dress(panel)
    text = over_seeds(dataset.sizes["seed"], center, interval)
    if smooth not in (None, 1.0):
        text = f"{text}; moving average, α = {smooth:.2g} per update"
    return finish(figure, panels[0], path, heading(dataset, text))


def against(
    dataset: xr.Dataset,
    x: str,
    metric: str = "episode_return",
    *,
    by: str | None = None,
    center: str = "mean",
    last: float = 0.1,
    path: str | Path | None = None,
) -> Figure:
    """The end of training against a setting: a dimension of names or numbers along the axis, intervals over seeds.

    Args:
        dataset: of a sweep with a ``grid``, or whose arms have dimensions (``dims=``).
        x: the dimension along the axis, which is logarithmic where positive numbers span more than a factor of ten.
        metric: of which each run's score is the mean over the last share ``last`` of its updates.
        by: the dimension that colours tell apart; the other ones get line styles. None: the first that has several
            values and is not ``x``.
        center: ``"mean"`` or ``"iqm"`` over seeds; the bars are its 95% bootstrap interval.
        last: see ``metric``.
        path: save the figure there as well; its suffix says the format.

    Raises:
        ValueError: an unknown metric, dimension or option.

    Example::

        plots.against(ds, x="num_epochs", metric="actor_rank", by="algorithm")
    """
    dataset = stats.whole(dataset)
    dims = stats.cells(dataset)
    check(x in dims, "x", x, f"one of {', '.join(map(repr, dims))}")
    values = stats.scores(dataset, metric, last)
    shown = lines(dataset, *_dims(dataset, by, center, x))
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    panel = figure.subplots()
    for i, line in enumerate(shown):
        _bars(panel, dataset[x], stats.bootstrap(values.isel(line.cell), center), line, i - (len(shown) - 1) / 2)
    _axis(panel, dataset[x])
    panel.set_xlabel(label(x, dataset))
    panel.set_ylabel(axis_label(metric, dataset))
    dress(panel)
    text = f"last {last:.0%} of training, {over_seeds(dataset.sizes['seed'], center)}"
    return finish(figure, panel, path, heading(dataset, text))


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows + 0.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel().tolist()
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


def _dims(dataset: xr.Dataset, by: str | None, center: str, x: str | None = None) -> tuple[list[str], str | None]:
    """The dimensions that tell lines apart, and of these the one that colours do."""
    check(center in stats.CENTERS, "center", center, f"one of {', '.join(map(repr, stats.CENTERS))}")
    dims = [d for d in stats.cells(dataset) if d != x]
    check(by is None or by in dims, "by", by, f"None or one of {', '.join(map(repr, dims))}")
    several = [d for d in dims if dataset.sizes[d] > 1]
    return dims, by or next(iter([*several, *dims]), None)


def _bars(panel: Axes, x: xr.DataArray, interval: tuple[xr.DataArray, ...], line: Line, beside: float) -> None:
    """Points with intervals over ``x``; ``beside`` counts the lines from the middle one."""
    middle, low, high = (e.values for e in interval)
    there = np.isfinite(middle)
    reach = np.nan_to_num(np.stack([middle - low, high - middle]))  # one seed has no interval
    place, style = x.values, line.style
    if not _is_number(x):
        # Names have no between: no line joins them, and bars beside each other don't hide one another.
        place, style = np.arange(x.size) + 0.12 * beside, style | {"linestyle": "none"}
    panel.errorbar(place[there], middle[there], reach[:, there], marker=line.marker, capsize=3, linewidth=1.4, **style)


def _is_number(x: xr.DataArray) -> bool:
    return x.dtype.kind in "iuf"


def _axis(panel: Axes, x: xr.DataArray) -> None:
    """Every value of a dimension below the axis, where there are not too many."""
    if not _is_number(x):
        panel.set_xticks(range(x.size), [str(v) for v in x.values])
        panel.set_xlim(-0.5, x.size - 0.5)
        return
    if x.min() > 0 and x.max() > 10 * x.min():
        panel.set_xscale("log")
    if x.size <= TICKS:
        panel.set_xticks(x.values, [f"{v:g}" for v in x.values])
        panel.xaxis.set_minor_formatter(NullFormatter())


def _draw(panel: Axes, runs: xr.Dataset, finished: xr.DataArray, metric: str, kind: Kind, line: Line) -> None:
    """One line: ``runs`` has the dimensions seed and update alone."""
    values = runs[metric].transpose("update", "seed").values.astype(np.float64)
    steps, update = runs["env_step"].values, runs["update"].values
    stop = np.where(np.isnan(runs["diverged_at"].values), np.inf, runs["diverged_at"].values)
    # An update without a number in any seed was not measured: no point there.
    measured = np.isfinite(values).any(-1) & finished.values
    values, steps, update = values[measured], steps[measured], update[measured]
    values = np.where(update[:, None] < stop, _smooth(_fill(values), update, kind.smooth), np.nan)
    keep = np.unique(np.linspace(0, len(values) - 1, min(len(values), POINTS)).round().astype(int))
    values, steps = values[keep], steps[keep]
    if len(values) == 0:
        panel.plot([], [], linewidth=1.6, **line.style)
        return
    if kind.interval == "bootstrap":
        middle, low, high = stats.bootstrap(values, kind.center, num_resamples=1000)
    else:
        middle = stats.CENTERS[kind.center](values)
        low, high = np.fmin.reduce(values, axis=-1), np.fmax.reduce(values, axis=-1)
    marker = "o" if len(values) == 1 else None
    panel.plot(steps, middle, linewidth=1.6, marker=marker, **line.style)
    panel.fill_between(steps, low, high, color=line.color, alpha=0.18, linewidth=0)


def _fill(values: np.ndarray) -> np.ndarray:
    """A seed's last number stands until its next one (``[U, S]``): an update in which no episode ended has none."""
    index = np.where(np.isfinite(values), np.arange(len(values))[:, None], -1)
    last = np.maximum.accumulate(index, axis=0) if len(values) else index
    return (
        np.where(last >= 0, np.take_along_axis(values, np.maximum(last, 0), axis=0), np.nan) if len(values) else values
    )


def _smooth(values: np.ndarray, update: np.ndarray, alpha: float | None) -> np.ndarray:
    """Exponential moving average over updates of ``[U, S]``, without the bias of its start."""
    if alpha is None or alpha == 1.0 or len(values) == 0:
        return values
    out = np.empty_like(values)
    total, weight = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for i, gap in enumerate(np.diff(update, prepend=update[0])):
        kept = (1.0 - alpha) ** gap
        here = np.isfinite(values[i])
        total = kept * total + np.where(here, values[i], 0.0)
        weight = kept * weight + here
        out[i] = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
    return out


def _short(steps: float, _: Any) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(steps) >= size:
            return f"{steps / size:g}{suffix}"
    return f"{steps:g}"
