"""Statistics over seeds: means and interquartile means with bootstrap intervals, and the table of a sweep.

Pure NumPy. A run whose loss was not finite (``diverged_at``) enters no statistic; it is counted and named beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

    From Agarwal et al. 2021, section 4. NaNs are left out, n counts the others. Returns ``[...]``.
    """
    x = np.sort(np.asarray(x, np.float64), axis=-1)  # NaNs last
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
