"""Statistics over seeds: means and interquartile means with bootstrap intervals, and the table of a sweep; over tasks and
seeds, aggregates, performance profiles and the probability of improvement as in rliable (Agarwal et al. 2021, "Deep RL at
the edge of the statistical precipice").

Pure NumPy. A run whose loss was not finite (``diverged_at``) enters no statistic; it is counted and named beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from purejaxrl_ext.errors import check, unknown_name

_CELLS = 4_000_000  # resampled numbers held at once


def mean(x: Any) -> np.ndarray:
    """Mean over the last axis of ``[..., S]`` of what is not NaN; NaN where nothing is. Returns ``[...]``."""
    x = np.asarray(x, np.float64)
    count = np.isfinite(x).sum(-1)
    total = np.where(np.isfinite(x), x, 0.0).sum(-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def iqm(x: Any) -> np.ndarray:
    """Interquartile mean over the last axis of ``[..., S]``: the mean without the ⌊n / 4⌋ lowest and highest numbers.

    From Agarwal et al. 2021, section 4. What is not finite is left out, n counts the others. Returns ``[...]``.
    """
    x = np.asarray(x, np.float64)
    x = np.sort(np.where(np.isfinite(x), x, np.nan), axis=-1)  # NaNs last
    count = np.isfinite(x).sum(-1, keepdims=True)
    cut = count // 4
    place = np.arange(x.shape[-1])
    return mean(np.where((place >= cut) & (place < count - cut), x, np.nan))


CENTERS = {"mean": mean, "iqm": iqm}


def bootstrap(
    x: Any, center: str = "mean", *, level: float = 0.95, num_resamples: int = 2000, rng_seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A centre over the last axis of ``[..., S]`` and its percentile bootstrap interval, seeds drawn with replacement.

    Args:
        x: one number per seed; NaN: none.
        center: ``"mean"`` or ``"iqm"``.
        level: of the interval.
        num_resamples: drawn once, and the same for every entry of the leading axes.
        rng_seed: of the resampling.

    Returns:
        estimate, low, high: ``[...]`` each. Where fewer than two seeds have a number there is no interval: NaN.

    Example::

        estimate, low, high = bootstrap(returns, "iqm")  # returns [S]
    """
    check(center in CENTERS, "center", center, f"one of {', '.join(map(repr, CENTERS))}")
    check(0.0 < level < 1.0, "level", level, "in (0, 1)")
    x = np.asarray(x, np.float64)
    lead, num_seeds = x.shape[:-1], x.shape[-1]
    flat = np.where(np.isfinite(x), x, np.nan).reshape(-1, num_seeds)
    of = CENTERS[center]
    drawn = np.random.default_rng(rng_seed).integers(num_seeds, size=(num_resamples, num_seeds))
    rows = max(1, _CELLS // drawn.size)
    tails = (1.0 - level) / 2.0, (1.0 + level) / 2.0
    bounds = [_quantiles(of(flat[i : i + rows][:, drawn]), tails) for i in range(0, len(flat), rows)]
    low, high = np.concatenate(bounds, axis=1) if bounds else np.empty((2, 0))
    some = np.isfinite(flat).sum(-1) > 1
    low, high = np.where(some, low, np.nan), np.where(some, high, np.nan)
    return of(flat).reshape(lead), low.reshape(lead), high.reshape(lead)


def whole(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with the dimensions arm and seed also where one of them has been selected: then of length 1."""
    for name in ("arm", "seed"):
        if name not in dataset.dims:
            dataset = dataset.expand_dims(name)
    if "arm" not in dataset["env_step"].dims:
        dataset = dataset.assign_coords(env_step=dataset["env_step"].expand_dims(arm=dataset["arm"].values))
    return dataset


def diverged(dataset: xr.Dataset) -> xr.DataArray:
    """Which runs' loss was not finite at some update: bool ``[arm, *grid, seed]``."""
    return dataset["diverged_at"].notnull()


def scores(dataset: xr.Dataset, metric: str, last: float = 0.1) -> xr.DataArray:
    """Each run's mean of a metric over the last share ``last`` of its updates ``[arm, *grid, seed]``.

    Updates without a number (no episode ended, or the representation not measured) are left out. NaN: the run diverged,
    or had no number at all there.

    Raises:
        ValueError: an unknown metric, or ``last`` outside (0, 1].
    """
    check(0.0 < last <= 1.0, "last", last, "a share in (0, 1]")
    known = [str(name) for name in dataset.data_vars if "update" in dataset[name].dims]
    if metric not in known:
        raise ValueError(unknown_name("metric", metric, known))
    # Each arm's own updates: shorter arms are padded, and a run may still be on its way.
    known_updates = computed(dataset)
    number = known_updates.cumsum("update")
    total = known_updates.sum("update")
    window = known_updates & (number > total - np.maximum(1, np.ceil(last * total)))
    return dataset[metric].where(window).mean("update", skipna=True).where(~diverged(dataset))


def computed(dataset: xr.Dataset) -> xr.DataArray:
    """Which updates have been computed: bool ``[arm, update]``."""
    names = [name for name in dataset.data_vars if "update" in dataset[name].dims]
    others = [d for d in dataset[names[0]].dims if d not in ("arm", "update")]
    some = xr.concat([dataset[name].notnull().any(others) for name in names], "metric", coords="minimal").any("metric")
    # All updates up to the last with a number: one in between may lack every number.
    return some.isel(update=slice(None, None, -1)).cumsum("update").isel(update=slice(None, None, -1)) > 0


def summary(
    dataset: xr.Dataset,
    metrics: Sequence[str] = ("episode_return",),
    *,
    last: float = 0.1,
    center: str = "mean",
    level: float = 0.95,
    num_resamples: int = 10_000,
) -> pd.DataFrame:
    """The end of training per arm, grid cell and metric, with bootstrap intervals over seeds.

    Args:
        dataset: of a sweep.
        metrics: names.
        last: share of the updates, at the end, that each run's score is the mean of.
        center: ``"mean"`` or ``"iqm"`` over seeds.
        level: of the intervals.
        num_resamples: of the bootstrap.

    Returns:
        a table indexed by arm, every swept setting and metric, with columns ``estimate``, ``low``, ``high``,
        ``num_seeds`` (that entered), ``num_diverged`` and ``diverged_seeds`` (that did not, and which).

    Raises:
        ValueError: an unknown metric or centre.
    """
    dataset = whole(dataset)
    lost = diverged(dataset)
    cells = [str(d) for d in lost.dims if d != "seed"]
    rows = []
    for metric in metrics:
        values = scores(dataset, metric, last).transpose(*cells, "seed")
        estimate, low, high = bootstrap(values.values, center, level=level, num_resamples=num_resamples)
        for where in np.ndindex(*estimate.shape):
            cell = {d: values[d].values[i] for d, i in zip(cells, where, strict=True)}
            seeds = values["seed"].values[lost.transpose(*cells, "seed").values[where]]
            row: dict[str, Any] = {
                "metric": metric,
                "estimate": estimate[where],
                "low": low[where],
                "high": high[where],
            }
            row |= {"num_seeds": int(np.isfinite(values.values[where]).sum())}
            rows.append(cell | row | {"num_diverged": len(seeds), "diverged_seeds": ", ".join(map(str, seeds))})
    return pd.DataFrame(rows).set_index([*cells, "metric"])


# ---------------------------------------------------------------------------------------------------------------------
# Over several tasks (Agarwal et al. 2021, as in their package rliable; a run is a seed, a task an environment or a cell)
# ---------------------------------------------------------------------------------------------------------------------


class Estimate(NamedTuple):
    """A number, or an array of them, with its percentile bootstrap interval (NaN where there is none)."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


def pooled_iqm(x: Any) -> np.ndarray:
    """Interquartile mean of all runs of all tasks ``[..., M, S]``, together (section 4.3). Returns ``[...]``."""
    return iqm(_pool(x))


def pooled_mean(x: Any) -> np.ndarray:
    """Mean over tasks of the mean over runs ``[..., M, S]``. Returns ``[...]``."""
    return mean(mean(x))


def task_median(x: Any) -> np.ndarray:
    """Median over tasks of the mean over runs ``[..., M, S]``. Returns ``[...]``; NaN if no task has a run."""
    means = mean(x)
    return _quantiles(means.reshape(-1, means.shape[-1]), (0.5,))[0].reshape(means.shape[:-1])


def optimality_gap(x: Any, target: float = 1.0) -> np.ndarray:
    """target − mean of min(score, target) over ``[..., M, S]``: how far runs fall short of it (section 4.3)."""
    return target - pooled_mean(np.minimum(np.asarray(x, np.float64), target))


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
        x: ``[M, S]`` scores of S runs on each of M tasks (rliable's transposed), of like scale; NaN: no run.
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


def task_scores(
    dataset: xr.Dataset,
    arms: str | Sequence[str],
    metric: str = "episode_return",
    *,
    last: float = 0.1,
    bounds: Sequence[tuple[float, float]] | tuple[float, float] | None = None,
) -> np.ndarray:
    """Scores ``[M, S]`` of one method: a task is an arm, or with a grid one of its cells.

    Args:
        dataset: of a sweep.
        arms: the method's arms, one per environment: ``"ppo"``, or ``["ppo Breakout", "ppo Asterix"]``.
        metric: its mean over the last share ``last`` of the updates is a run's score (:func:`scores`).
        last: see there.
        bounds: (low, high) which become 0 and 1, one pair per arm or one for all: returns of different environments
            have no common scale otherwise. None: as they are.

    Raises:
        ValueError: an arm or a metric that the dataset does not have, or bounds that do not fit.
    """
    names = [arms] if isinstance(arms, str) else list(arms)
    values = scores(whole(dataset), metric, last)
    known = values["arm"].values.tolist()
    check(len(names) > 0 and set(names) <= set(known), "arms", arms, f"among {', '.join(map(repr, known))}")
    limits = np.asarray((0.0, 1.0) if bounds is None else bounds, np.float64)
    fits = limits.shape in ((2,), (len(names), 2)) and bool((limits[..., 0] != limits[..., 1]).all())
    check(fits, "bounds", bounds, f"None, a pair of different numbers, or {len(names)} such pairs")
    limits = np.broadcast_to(limits, (len(names), 2))
    raw = values.sel(arm=names).transpose("arm", ..., "seed").values
    raw = raw.reshape(len(names), -1, raw.shape[-1])
    low, high = limits[:, :1, None], limits[:, 1:, None]
    return ((raw - low) / (high - low)).reshape(-1, raw.shape[-1])


def aggregates(
    dataset: xr.Dataset,
    methods: Mapping[str, str | Sequence[str]] | None = None,
    metric: str = "episode_return",
    *,
    target: float = 1.0,
    level: float = 0.95,
    num_resamples: int = 2000,
    **options: Any,
) -> pd.DataFrame:
    """IQM, mean, median and optimality gap of every method, with stratified bootstrap intervals.

    Args:
        dataset: of a sweep.
        methods: the arms of each method by its name (see :func:`task_scores`); None: every arm is one.
        metric: what is scored.
        target: of the optimality gap.
        level, num_resamples: of the intervals.
        **options: ``last`` and ``bounds`` of :func:`task_scores`.

    Returns:
        a table indexed by method and aggregate, with columns ``estimate``, ``low``, ``high``, ``num_runs`` (that
        entered) and ``num_diverged`` (that did not).
    """
    rows, lost = [], diverged(whole(dataset))
    for method, arms in named_methods(dataset, methods).items():
        x = task_scores(dataset, arms, metric, **options)
        counts = {"num_runs": int(np.isfinite(x).sum()), "num_diverged": int(lost.sel(arm=arms).sum())}
        for name, of in (AGGREGATES | {"optimality_gap": lambda x: optimality_gap(x, target)}).items():
            row = aggregate(x, of, level=level, num_resamples=num_resamples)._asdict()
            rows.append({"method": method, "aggregate": name, **row, **counts})
    return pd.DataFrame(rows).set_index(["method", "aggregate"])


def named_methods(
    dataset: xr.Dataset, methods: Mapping[str, str | Sequence[str]] | None
) -> dict[str, str | Sequence[str]]:
    """``methods``, or every arm under its own name."""
    return dict(methods) if methods is not None else {str(a): str(a) for a in whole(dataset)["arm"].values}


def _quantiles(x: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Linear quantiles ``[Q, M]`` over the last axis of ``[M, R]`` without the NaNs (``np.nanquantile`` loops)."""
    x = np.sort(x, axis=-1)
    count = np.isfinite(x).sum(-1)
    out = []
    for quantile in quantiles:
        at = quantile * np.maximum(count - 1, 0)
        below = np.floor(at).astype(int)
        above = np.minimum(below + 1, np.maximum(count - 1, 0))
        low, high = (np.take_along_axis(x, i[:, None], axis=-1)[:, 0] for i in (below, above))
        out.append(low + (at - below) * (high - low))
    return np.array(out)


def _tasks(x: Any, name: str) -> np.ndarray:
    """``[M, S]`` of float64, what is not finite as NaN; a single task may leave its axis out."""
    x = np.asarray(x, np.float64)
    x = x[None] if x.ndim == 1 else x
    check(x.ndim == 2 and x.size > 0, name, x.shape, "of shape [tasks, runs]")
    return np.where(np.isfinite(x), x, np.nan)


def _pool(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x.reshape(*x.shape[:-2], -1)


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
    step = max(1, _CELLS // size)
    counts = [min(step, num_resamples - i) for i in range(0, num_resamples, step)]
    drawn = np.concatenate([of([resample(x, n, rng) for x in parts]) for n in counts])
    low, high = np.quantile(drawn, ((1.0 - level) / 2.0, (1.0 + level) / 2.0), axis=0)
    return Estimate(estimate, low, high)
