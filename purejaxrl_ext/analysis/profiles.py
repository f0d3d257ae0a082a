"""Figures of many runs' ends, as in rliable (Agarwal et al. 2021): performance profiles, probabilities of improvement."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from purejaxrl_ext.analysis import stats
from purejaxrl_ext.analysis.centers import FEW
from purejaxrl_ext.analysis.panels import COLORS, dress, finish, heading, label
from purejaxrl_ext.errors import check


def profiles(
    dataset: xr.Dataset,
    methods: Mapping[str, Any] | None = None,
    metric: str = "episode_return",
    *,
    by: str | None = None,
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
        by: the dimension whose labels are methods; the other ones are tasks. None: the first.
        thresholds: τ, increasing; None: 101 from just below the worst run to the best.
        num_resamples: of the bootstrap.
        path: save the figure there as well.
        **options: ``last`` and ``bounds`` of :func:`purejaxrl_ext.analysis.stats.task_scores`.
    """
    arms = stats.named_methods(dataset, methods, by)
    runs = {name: stats.task_scores(dataset, a, metric, by=by, **options) for name, a in arms.items()}
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
    panel.set_xlabel(f"τ: {label(metric, dataset)}" + (" (scaled)" if options.get("bounds") is not None else ""))
    panel.set_ylabel("share of runs above τ")
    panel.set_ylim(-0.02, 1.02)
    dress(panel)
    return finish(figure, panel, path, heading(dataset, _runs(runs)))


def improvement(
    dataset: xr.Dataset,
    pairs: Sequence[tuple[str, str]],
    methods: Mapping[str, Any] | None = None,
    metric: str = "episode_return",
    *,
    by: str | None = None,
    num_resamples: int = 2000,
    path: str | Path | None = None,
    **options: Any,
) -> Figure:
    """Probability that a run of X scores above one of Y, with 95% intervals; one row per pair (X, Y).

    Args:
        dataset: of a sweep.
        pairs: names of methods.
        methods, metric, by, num_resamples, path, **options: as in :func:`profiles`.

    Raises:
        ValueError: pairs that are none, or a method that is unknown.
    """
    arms = stats.named_methods(dataset, methods, by)
    check(len(pairs) > 0 and all(len(p) == 2 for p in pairs), "pairs", pairs, "pairs of names of methods")
    for name in itertools.chain(*pairs):
        check(name in arms, "pairs", name, f"among {', '.join(map(repr, arms))}")
    wanted = {*itertools.chain(*pairs)}
    runs = {name: stats.task_scores(dataset, arms[name], metric, by=by, **options) for name in wanted}
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
    panel.set_xlabel(f"P(X > Y): {label(metric, dataset)}")
    dress(panel)
    return finish(figure, panel, path, heading(dataset, _runs(runs)))


def _runs(scores: Mapping[str, np.ndarray]) -> str:
    """How many runs the intervals stand on."""
    seeds = max(x.shape[-1] for x in scores.values())
    text = f"{seeds} seeds a task, 95% bootstrap intervals" if seeds > 1 else "one seed a task"
    return f"{text} (of so few they are too narrow)" if 1 < seeds <= FEW else text
