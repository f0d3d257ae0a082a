"""Centres over seeds and their bootstrap intervals, of arrays ``[..., S]`` and of DataArrays with a dimension ``seed``.

Pure NumPy. The seeds of a plain array are its last axis; those of a DataArray are found by name, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from purejaxrl_ext.errors import check

CELLS = 4_000_000  # resampled numbers held at once
FEW = 3  # seeds of which a 95% bootstrap interval is no more than the range: the lowest alone is drawn once in 27 times


def mean(x: Any, dim: str = "seed") -> Any:
    """Mean over the seeds of ``[..., S]`` of what is not NaN; NaN where nothing is. Returns ``[...]``."""
    return over(_mean, x, dim)


def iqm(x: Any, dim: str = "seed") -> Any:
    """Interquartile mean over the seeds of ``[..., S]``: the mean without the ⌊n / 4⌋ lowest and highest numbers.

    From Agarwal et al. 2021, section 4. What is not finite is left out, n counts the others. Returns ``[...]``.
    """
    return over(_iqm, x, dim)


CENTERS = {"mean": mean, "iqm": iqm}


def bootstrap(
    x: Any,
    center: str = "mean",
    *,
    dim: str = "seed",
    level: float = 0.95,
    num_resamples: int = 2000,
    rng_seed: int = 0,
) -> tuple[Any, Any, Any]:
    """A centre over seeds and its percentile bootstrap interval, seeds drawn with replacement.

    Args:
        x: one number per seed, ``[..., S]``, or a DataArray with the dimension ``dim``; NaN: none.
        center: ``"mean"`` or ``"iqm"``.
        dim: the dimension of a DataArray that is resampled; of plain arrays it is the last axis.
        level: of the interval.
        num_resamples: drawn once, and the same for every entry of the other axes.
        rng_seed: of the resampling.

    Returns:
        estimate, low, high: ``[...]`` each, DataArrays where ``x`` is one. Where fewer than two seeds have a number there
        is no interval: NaN. Of two or three seeds a 95% interval is their whole range.

    Raises:
        ValueError: an unknown centre, a level outside (0, 1), or a DataArray without ``dim``.

    Example::

        estimate, low, high = bootstrap(returns, "iqm")  # returns [S]
    """
    check(center in CENTERS, "center", center, f"one of {', '.join(map(repr, CENTERS))}")
    check(0.0 < level < 1.0, "level", level, "in (0, 1)")
    check(num_resamples > 0, "num_resamples", num_resamples, "greater than 0")

    def interval(x: np.ndarray) -> tuple[np.ndarray, ...]:
        return _bootstrap(x, CENTERS[center], level, num_resamples, rng_seed)

    return over(interval, x, dim, outputs=3)


def over(of: Callable[[np.ndarray], Any], x: Any, dim: str, outputs: int = 1) -> Any:
    """``of``, a function over the last axis of float64, of an array, or of a DataArray over ``dim``."""
    if not isinstance(x, xr.DataArray):
        return of(np.asarray(x, np.float64))
    check(dim in x.dims, "dim", dim, f"a dimension of the array: {', '.join(map(repr, x.dims))}")
    return xr.apply_ufunc(of, x.astype(np.float64), input_core_dims=[[dim]], output_core_dims=[[]] * outputs)


def quantiles(x: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Linear quantiles ``[Q, M]`` over the last axis of ``[M, R]`` without the NaNs (``np.nanquantile`` loops)."""
    x = np.sort(x, axis=-1)
    count = np.isfinite(x).sum(-1)
    out = []
    for share in shares:
        at = share * np.maximum(count - 1, 0)
        below = np.floor(at).astype(int)
        above = np.minimum(below + 1, np.maximum(count - 1, 0))
        low, high = (np.take_along_axis(x, i[:, None], axis=-1)[:, 0] for i in (below, above))
        out.append(low + (at - below) * (high - low))
    return np.array(out)


def _mean(x: np.ndarray) -> np.ndarray:
    count = np.isfinite(x).sum(-1)
    total = np.where(np.isfinite(x), x, 0.0).sum(-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _iqm(x: np.ndarray) -> np.ndarray:
    x = np.sort(np.where(np.isfinite(x), x, np.nan), axis=-1)  # NaNs last
    count = np.isfinite(x).sum(-1, keepdims=True)
    cut = count // 4
    place = np.arange(x.shape[-1])
    return _mean(np.where((place >= cut) & (place < count - cut), x, np.nan))


def _bootstrap(
    x: np.ndarray, of: Callable[[Any], Any], level: float, num_resamples: int, rng_seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lead, num_seeds = x.shape[:-1], x.shape[-1]
    flat = np.where(np.isfinite(x), x, np.nan).reshape(-1, num_seeds)
    drawn = np.random.default_rng(rng_seed).integers(num_seeds, size=(num_resamples, num_seeds))
    rows = max(1, CELLS // drawn.size)
    tails = (1.0 - level) / 2.0, (1.0 + level) / 2.0
    bounds = [quantiles(of(flat[i : i + rows][:, drawn]), tails) for i in range(0, len(flat), rows)]
    low, high = np.concatenate(bounds, axis=1) if bounds else np.empty((2, 0))
    some = np.isfinite(flat).sum(-1) > 1
    low, high = np.where(some, low, np.nan), np.where(some, high, np.nan)
    return of(flat).reshape(lead), low.reshape(lead), high.reshape(lead)
