"""Figures of a sweep: a metric against environment steps, a centre over seeds with an interval band; and of its end,
performance profiles and probabilities of improvement.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from purejaxrl_ext.analysis import stats
from purejaxrl_ext.errors import check, unknown_name

# Okabe & Ito (2008): told apart with every common colour vision, and in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
POINTS = 400  # per line; more cannot be seen, and each costs a bootstrap
FILE_DPI = 120  # of what is saved; what is shown follows matplotlib's "figure.dpi"

LABELS = {
    "episode_return": "return per episode",
    "eval_return": "return per greedy episode",
    "episode_length": "episode length (env steps)",
    "num_episodes": "episodes ended per update",
    "value": "mean state value",
    "entropy": "policy entropy (nats)",
    "approx_kl": "KL(old ‖ new), estimate (nats)",
    "kl": "KL(old ‖ new) after the update (nats)",
    "clip_fraction": "clip fraction (share of samples)",
    "policy_variance": "policy variance across states",
    "ratio_above": "mean ratio above 1 + ε",
    "ratio_below": "mean ratio below 1 − ε",
    "feature_loss": "feature drift (squared)",
    "grad_norm": "gradient norm",
}
REPRESENTATION_LABELS = {
    "rank": "feature rank (PCA, 99%)",
    "effective_rank": "effective rank",
    "srank": "srank",
    "feature_rank": "feature rank (σ/√N > 0.01)",
    "numerical_rank": "numerical rank",
    "dead_units": "dead units (count)",
    "preactivation_norm": "pre-activation norm (L2)",
}


def label(metric: str) -> str:
    """A metric's name for people, with its unit."""
    end = metric.endswith("_end")
    name = metric.removesuffix("_end")
    network, _, rest = name.partition("_")
    if network in ("actor", "critic") and rest in REPRESENTATION_LABELS:
        text = f"{network}: {REPRESENTATION_LABELS[rest]}"
    else:
        text = LABELS.get(name, name.replace("_", " "))
    return f"{text}, after the update" if end else text


def curves(
    dataset: xr.Dataset,
    metrics: Sequence[str] | str = ("episode_return",),
    *,
    by: str = "arm",
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
        by: the dimension that colours tell apart; the other ones get line styles.
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
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    known = [str(name) for name in dataset.data_vars if "update" in dataset[name].dims]
    check(len(metrics) > 0, "metrics", metrics, "at least one name")
    for metric in metrics:
        if metric not in known:
            raise ValueError(unknown_name("metric", metric, known))
    dataset = stats.whole(dataset)
    cells = [str(d) for d in dataset[metrics[0]].dims if d not in ("seed", "update")]
    check(by in cells, "by", by, f"one of {', '.join(map(repr, cells))}")
    check(center in stats.CENTERS, "center", center, f"one of {', '.join(map(repr, stats.CENTERS))}")
    check(interval in ("bootstrap", "minmax"), "interval", interval, "'bootstrap' or 'minmax'")
    check(smooth is None or 0.0 < smooth <= 1.0, "smooth", smooth, "None or in (0, 1]")

    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows + 0.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for panel in panels[len(metrics) :]:
        panel.set_visible(False)
    styles = _styles(dataset, cells, by)
    finished = stats.computed(dataset)
    for panel, metric in zip(panels, metrics, strict=False):
        for cell, style in styles:
            _draw(panel, dataset.sel(cell), finished.sel(arm=cell["arm"]), metric, center, interval, smooth, style)
        panel.set_ylabel(label(metric))
        panel.set_xlabel("environment steps")
        panel.xaxis.set_major_formatter(FuncFormatter(_short))
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.01)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    figure.suptitle(_title(dataset, center, interval, smooth), fontsize="medium")
    if path is not None:
        figure.savefig(path, dpi=FILE_DPI)
    return figure


def profiles(
    dataset: xr.Dataset,
    methods: Mapping[str, str | Sequence[str]] | None = None,
    metric: str = "episode_return",
    *,
    thresholds: Sequence[float] | None = None,
    num_resamples: int = 2000,
    path: str | Path | None = None,
    **options: Any,
) -> Figure:
    """Performance profiles: the share of runs that score above τ, with pointwise 95% bands (Agarwal et al. 2021, fig. 5).

    Args:
        dataset: of a sweep.
        methods: the arms of each method by its name; None: every arm is one.
        metric: what is scored.
        thresholds: τ, increasing; None: 101 from just below the worst run to the best.
        num_resamples: of the bootstrap.
        path: save the figure there as well.
        **options: ``last`` and ``bounds`` of :func:`purejaxrl_ext.analysis.stats.task_scores`.
    """
    runs = {
        m: stats.task_scores(dataset, a, metric, **options) for m, a in stats.named_methods(dataset, methods).items()
    }
    if thresholds is None:
        every = np.concatenate([x.ravel() for x in runs.values()])
        check(bool(np.isfinite(every).any()), "metric", metric, "one that a run which did not diverge has a score in")
        low, high = np.nanmin(every), np.nanmax(every)
        thresholds = np.linspace(low - 0.02 * (high - low) - 1e-9, high, 101).tolist()
    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    panel = figure.subplots()
    for i, (method, x) in enumerate(runs.items()):
        share, low, high = stats.performance_profile(x, thresholds, num_resamples=num_resamples)
        color = COLORS[i % len(COLORS)]
        panel.plot(thresholds, share, drawstyle="steps-post", linewidth=1.6, color=color, label=method)
        panel.fill_between(thresholds, low, high, step="post", color=color, alpha=0.18, linewidth=0)
    panel.set_xlabel(f"τ: {label(metric)}" + (" (scaled)" if options.get("bounds") is not None else ""))
    panel.set_ylabel("share of runs above τ")
    panel.set_ylim(-0.02, 1.02)
    return _finish(figure, panel, path)


def improvement(
    dataset: xr.Dataset,
    pairs: Sequence[tuple[str, str]],
    methods: Mapping[str, str | Sequence[str]] | None = None,
    metric: str = "episode_return",
    *,
    num_resamples: int = 2000,
    path: str | Path | None = None,
    **options: Any,
) -> Figure:
    """Probability that a run of X scores above one of Y, with 95% intervals; one row per pair (X, Y).

    Args:
        dataset: of a sweep.
        pairs: names of methods.
        methods, metric, num_resamples, path, **options: as in :func:`profiles`.

    Raises:
        ValueError: pairs that are none, or a method that is unknown.
    """
    arms = stats.named_methods(dataset, methods)
    check(len(pairs) > 0 and all(len(p) == 2 for p in pairs), "pairs", pairs, "pairs of names of methods")
    for name in itertools.chain(*pairs):
        check(name in arms, "pairs", name, f"among {', '.join(map(repr, arms))}")
    runs = {name: stats.task_scores(dataset, arms[name], metric, **options) for name in {*itertools.chain(*pairs)}}
    figure = Figure(figsize=(4.8, 1.1 + 0.4 * len(pairs)), layout="constrained")
    panel = figure.subplots()
    for row, (x, y) in enumerate(pairs):
        middle, low, high = stats.probability_of_improvement(runs[x], runs[y], num_resamples=num_resamples)
        panel.plot([middle], [row], marker="o", color=COLORS[0])
        panel.plot([low, high], [row, row], color=COLORS[0], linewidth=4, alpha=0.35, solid_capstyle="butt")
    panel.axvline(0.5, color="0.5", linestyle=":", linewidth=1.0)
    panel.set_yticks(range(len(pairs)), [f"{x} > {y}" for x, y in pairs])
    panel.set_ylim(len(pairs) - 0.5, -0.5)
    panel.set_xlim(-0.02, 1.02)
    panel.set_xlabel(f"P(X > Y): {label(metric)}")
    return _finish(figure, panel, path)


def _finish(figure: Figure, panel: Axes, path: str | Path | None) -> Figure:
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    if path is not None:
        figure.savefig(path, dpi=FILE_DPI)
    return figure


def _styles(dataset: xr.Dataset, cells: list[str], by: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every cell's coordinates, and how its line looks."""
    values = dataset[by].values.tolist()
    if len(values) <= len(COLORS):
        colors: list[Any] = list(COLORS)
    else:
        colors = [colormaps["viridis"](x) for x in np.linspace(0.0, 0.95, len(values))]
    others = [d for d in cells if d != by]
    combinations = list(itertools.product(*(dataset[d].values.tolist() for d in others)))
    styles = []
    for (i, value), (j, rest) in itertools.product(enumerate(values), enumerate(combinations)):
        cell = {by: value, **dict(zip(others, rest, strict=True))}
        # What all lines share needs no mention; an arm is named by its value alone.
        shown = [f"{v}" if d == "arm" else f"{d}={v:g}" for d, v in cell.items() if dataset.sizes[d] > 1 or d == by]
        lost = int(stats.diverged(dataset).sel(cell).sum())
        note = f" ({lost} of {dataset.sizes['seed']} diverged)" if lost else ""
        styles.append(
            (cell, {"color": colors[i], "linestyle": LINES[j % len(LINES)], "label": ", ".join(shown) + note})
        )
    return styles


def _draw(
    panel: Axes,
    runs: xr.Dataset,
    finished: xr.DataArray,
    metric: str,
    center: str,
    interval: str,
    smooth: float | None,
    style: dict[str, Any],
) -> None:
    """One line: ``runs`` has the dimensions seed and update alone."""
    values = runs[metric].transpose("update", "seed").values.astype(np.float64)
    steps, update = runs["env_step"].values, runs["update"].values
    stop = np.where(np.isnan(runs["diverged_at"].values), np.inf, runs["diverged_at"].values)
    # An update without a number in any seed was not measured: no point there.
    measured = np.isfinite(values).any(-1) & finished.values
    values, steps, update = values[measured], steps[measured], update[measured]
    values = np.where(update[:, None] < stop, _smooth(_fill(values), update, smooth), np.nan)
    keep = np.unique(np.linspace(0, len(values) - 1, min(len(values), POINTS)).round().astype(int))
    values, steps = values[keep], steps[keep]
    if len(values) == 0:
        panel.plot([], [], linewidth=1.6, **style)
        return
    if interval == "bootstrap":
        middle, low, high = stats.bootstrap(values, center, num_resamples=1000)
    else:
        middle = stats.CENTERS[center](values)
        low, high = np.fmin.reduce(values, axis=-1), np.fmax.reduce(values, axis=-1)
    marker = "o" if len(values) == 1 else None
    panel.plot(steps, middle, linewidth=1.6, marker=marker, **style)
    panel.fill_between(steps, low, high, color=style["color"], alpha=0.18, linewidth=0)


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


def _title(dataset: xr.Dataset, center: str, interval: str, smooth: float | None) -> str:
    seeds = dataset.sizes["seed"]
    middle = {"mean": "mean", "iqm": "interquartile mean"}[center]
    band = {"bootstrap": "95% bootstrap interval", "minmax": "minimum to maximum"}[interval]
    text = f"{middle} over {seeds} seeds, {band}" if seeds > 1 else "one seed"
    return text if smooth in (None, 1.0) else f"{text}; moving average, α = {smooth:.2g} per update"


def _short(steps: float, _: Any) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(steps) >= size:
            return f"{steps / size:g}{suffix}"
    return f"{steps:g}"
