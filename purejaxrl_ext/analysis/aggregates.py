"""Over several tasks and their runs: aggregates, performance profiles and the probability of improvement, as in rliable
(Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice").

Arrays ``[M, S]``: a task is an environment or a cell, a run is a seed. Of a DataArray the dimension ``seed`` are the runs,
all others together the tasks. Pure NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from purejaxrl_ext.analysis.centers import CELLS, iqm, mean, quantiles
from purejaxrl_ext.errors import check


class Estimate(NamedTuple):
    """A number, or an array of them, with its percentile bootstrap interval (NaN where there is none)."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


def pooled_iqm(x: Any) -> np.ndarray:
    """Interquartile mean of all runs of all tasks ``[..., M, S]``, together (section 4.3). Returns ``[...]``."""
    x = _seeds_last(x)
    return iqm(x.reshape(*x.shape[:-2], -1))


def pooled_mean(x: Any) -> np.ndarray:
    """Mean over tasks of the mean over runs ``[..., M, S]``. Returns ``[...]``."""
    return mean(mean(_seeds_last(x)))


def task_median(x: Any) -> np.ndarray:
    """Median over tasks of the mean over runs ``[..., M, S]``. Returns ``[...]``; NaN if no task has a run."""
    means = mean(_seeds_last(x))
    return quantiles(means.reshape(-1, means.shape[-1]), (0.5,))[0].reshape(means.shape[:-1])


def optimality_gap(x: Any, target: float = 1.0) -> np.ndarray:
    """target − mean of min(score, target) over ``[..., M, S]``: how far runs fall short of it (section 4.3)."""
    return target - pooled_mean(np.minimum(_seeds_last(x), target))


AGGREGATES: dict[str, Callable[[Any], np.ndarray]] = {
    "iqm": pooled_iqm,
    "mean": pooled_mean,
    "median": task_median,
    "optimality_gap": optimality_gap,
}


def resample(x: Any, num_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Stratified bootstrap of ``[M, S]``: every task's runs drawn with replacement, as many as it has; ``[R, M, S]``.

    A NaN is no run: a task of n numbers gets n drawn numbers, and NaN in the other places.
    """
    x = np.sort(np.where(np.isfinite(x), x, np.nan), axis=-1)  # NaNs last
    count = np.isfinite(x).sum(-1, keepdims=True)
    index = (rng.random((num_resamples, *x.shape)) * count).astype(int)
    drawn = np.take_along_axis(np.broadcast_to(x, index.shape), index, axis=-1)
    return np.where(np.arange(x.shape[-1]) < count, drawn, np.nan)


def aggregate(
    x: Any,
    of: str | Callable[[Any], np.ndarray] = "iqm",
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    rng_seed: int = 0,
) -> Estimate:
    """One number for all runs of all tasks, with its stratified bootstrap interval.

    Args:
        x: ``[M, S]`` scores of S runs on each of M tasks (rliable's transposed), of like scale; NaN: no run. Of a
            DataArray the dimension ``seed`` are the runs, all others together the tasks.
        of: a name in ``AGGREGATES``, or a function ``[R, M, S] -> [R]``, as
            ``lambda x: stats.optimality_gap(x, target=200.0)``.
        level: of the interval.
        num_resamples: R.
        rng_seed: of the resampling.

    Raises:
        ValueError: a shape, aggregate or level that is not allowed.
    """
    x = _tasks(x, "x")
    if isinstance(of, str):
        check(of in AGGREGATES, "of", of, f"a function or one of {', '.join(map(repr, AGGREGATES))}")
        of = AGGREGATES[of]
    estimate = of(x[None])[0]
    return _interval(estimate, lambda parts: of(parts[0]), [x], x.size, level, num_resamples, rng_seed)


def performance_profile(
    x: Any, thresholds: Any, *, level: float = 0.95, num_resamples: int = 2000, rng_seed: int = 0
) -> Estimate:
    """Share of runs that score above each τ, over all tasks: P̂(X > τ) = Σ_m Σ_s 1[x_ms > τ] / (M S) (eq. 2).

    Args:
        x: ``[M, S]``; NaN: no run. Tasks weigh the same, however many runs each has.
        thresholds: τ, ``[K]``.
        level, num_resamples, rng_seed: as in :func:`aggregate`; the band is pointwise.

    Returns:
        three times ``[K]``.
    """
    x, thresholds = _tasks(x, "x"), np.asarray(thresholds, np.float64)
    check(thresholds.ndim == 1 and thresholds.size > 0, "thresholds", thresholds.shape, "a list of numbers")

    def share(parts: list[np.ndarray]) -> np.ndarray:
        (runs,) = parts
        above = [pooled_mean(np.where(np.isnan(runs), np.nan, runs > tau)) for tau in thresholds]
        return np.stack(above, axis=-1)

    return _interval(share([x[None]])[0], share, [x], x.size, level, num_resamples, rng_seed)


def probability_of_improvement(
    x: Any, y: Any, *, level: float = 0.95, num_resamples: int = 2000, rng_seed: int = 0
) -> Estimate:
    """P(X > Y): how likely a run of x beats one of y on a task drawn at random (section 4.3).

    Mean over tasks of U / (S_x S_y), with the Mann–Whitney U = Σ_i Σ_j S(x_i, y_j), S being 1 for x > y and ½ for a tie.

    Args:
        x: ``[M, S_x]``; y: ``[M, S_y]``, of the same tasks; NaN: no run.
        level, num_resamples, rng_seed: as in :func:`aggregate`; runs of x and y are drawn independently.
    """
    x, y = _tasks(x, "x"), _tasks(y, "y")
    check(len(x) == len(y), "y", y.shape, f"of as many tasks as x, {len(x)}")

    def wins(parts: list[np.ndarray]) -> np.ndarray:
        a, b = parts[0][..., :, None], parts[1][..., None, :]
        won = np.where(np.isnan(a) | np.isnan(b), np.nan, (a > b) + 0.5 * (a == b))
        return pooled_mean(won.reshape(*won.shape[:-2], -1))

    size = x.size * y.shape[-1]
    return _interval(wins([x[None], y[None]])[0], wins, [x, y], size, level, num_resamples, rng_seed)


def _seeds_last(x: Any) -> np.ndarray:
    """float64, what is not finite as NaN; the seeds of a DataArray moved to the last axis."""
    if isinstance(x, xr.DataArray):
        check("seed" in x.dims, "x.dims", x.dims, "with a dimension 'seed'")
        x = x.transpose(..., "seed").values
    x = np.asarray(x, np.float64)
    return np.where(np.isfinite(x), x, np.nan)


def _tasks(x: Any, name: str) -> np.ndarray:
    """``[M, S]``; a single task may leave its axis out, and a DataArray have several that are not its seeds'."""
    several = isinstance(x, xr.DataArray)
    x = _seeds_last(x)
    x = x.reshape(-1, x.shape[-1]) if several or x.ndim == 1 else x
    check(x.ndim == 2 and x.size > 0, name, x.shape, "of shape [tasks, runs]")
    return x


def _interval(
    estimate: np.ndarray,
    of: Callable[[list[np.ndarray]], np.ndarray],
    parts: list[np.ndarray],
    size: int,
    level: float,
    num_resamples: int,
    rng_seed: int,
) -> Estimate:
    """Quantiles of ``of`` over stratified resamples of ``parts``; ``size`` numbers are held per resample."""
    check(0.0 < level < 1.0, "level", level, "in (0, 1)")
    check(num_resamples > 0, "num_resamples", num_resamples, "greater than 0")
    if min(np.isfinite(x).sum(-1).max() for x in parts) < 2:
        # No task with two runs: nothing varies.
        return Estimate(estimate, np.full_like(estimate, np.nan), np.full_like(estimate, np.nan))
    rng = np.random.default_rng(rng_seed)
    step = max(1, CELLS // size)
    counts = [min(step, num_resamples - i) for i in range(0, num_resamples, step)]
    drawn = np.concatenate([of([resample(x, n, rng) for x in parts]) for n in counts])
    low, high = np.quantile(drawn, ((1.0 - level) / 2.0, (1.0 + level) / 2.0), axis=0)
    return Estimate(estimate, low, high)
