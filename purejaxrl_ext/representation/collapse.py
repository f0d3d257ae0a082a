"""Whether a run has collapsed, and how far its trust region failed: of whole curves of metrics, after training.

    excess ratio   (mean of the ratios above 1 + ε) / (mean of those below 1 − ε), per update;  its mean over the last 5% of
                   training that has 10 updates with both                                        (Moalla et al. 2024, section 4)
    collapsed      rank ≤ max(2, 0.02 D), dead units ≥ 0.99 D and policy variance < 10⁻⁴, from some update to the end

The last axis of every array is updates; NaN where nothing was measured. The flag is this project's: the paper has none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

LAST, LEAST = 0.05, 10
BOUNDS = (1e-12, 1e12)


def excess_ratio(above: ArrayLike, below: ArrayLike, last: float = LAST, least: int = LEAST) -> np.ndarray:
    """Mean excess ratio ``[...]`` of ``ratio_above`` and ``ratio_below [..., U]``.

    Over the latest window of ``last`` U updates in which ``least`` have both; NaN where no window has.
    """
    high, low = (np.clip(np.asarray(x, float), *BOUNDS) for x in (above, below))
    ratio = high / low
    return np.apply_along_axis(_last_mean, -1, ratio, max(int(np.ceil(last * ratio.shape[-1])), 1), least)


def _last_mean(ratio: np.ndarray, width: int, least: int) -> float:
    for end in range(len(ratio), 0, -1):
        window = ratio[max(end - width, 0) : end]
        window = window[np.isfinite(window)]
        if len(window) >= min(least, width):
            return float(window.mean())
    return float("nan")


def collapsed_since(rank: ArrayLike, dead_units: ArrayLike, policy_variance: ArrayLike, width: int) -> np.ndarray:
    """The update ``[...]`` from which a run stayed collapsed to its end; NaN of one that did not end so.

    Args:
        rank, dead_units, policy_variance: ``[..., U]``; updates without a measurement are passed over.
        width: D, how many features there are.
    """
    r, d, v = (np.asarray(x, float) for x in (rank, dead_units, policy_variance))
    measured = np.isfinite(r) & np.isfinite(d) & np.isfinite(v)
    fits = (r <= max(2.0, 0.02 * width)) & (d >= 0.99 * width) & (v < 1e-4)

    def since(whole: np.ndarray) -> float:
        seen = np.flatnonzero(whole[0])
        bad = [i for i in seen if not whole[1][i]]
        after = seen[seen > (bad[-1] if bad else -1)]
        return float(after[0]) if len(after) else float("nan")

    both = np.stack([measured, fits], axis=-2).reshape(-1, 2, r.shape[-1])
    return np.array([since(x) for x in both]).reshape(r.shape[:-1])
