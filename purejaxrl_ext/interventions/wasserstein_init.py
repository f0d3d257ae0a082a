"""Wasserstein regularisation (Lewandowski et al. 2023, arXiv 2312.00246): the distribution of each layer's weights is drawn to that
in which it began, and which weight is where is free.

    L ← L + λ Σ_l Σ_i (θ_l(i) − θ₀_l(i))²   θ_l(1) ≤ θ_l(2) ≤ … the parameters of an array, sorted

the squared 2-Wasserstein distance of the two empirical distributions times their size, so that λ is in the units of ``l2_init``,
which it never exceeds. ``wasserstein_init_coef`` is λ. A step sorts every array of parameters.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from purejaxrl_ext.interventions.base import Intervention
from purejaxrl_ext.types import Array, Metrics, Net, PyTree, hparam


def remember(key: Array, params: PyTree) -> PyTree:
    """θ₀, each array sorted."""
    return jax.tree.map(lambda x: jnp.sort(x.ravel()), params)


def penalty(
    net: Net, params: PyTree, memory: PyTree, part: PyTree, other: PyTree, hparams: Any
) -> tuple[Array, Metrics]:
    """λ Σ_l Σ_i (θ_l(i) − θ₀_l(i))²."""
    moved = jax.tree.map(lambda x, first: jnp.sort(x.ravel()) - first, params, memory)
    return hparams.wasserstein_init_coef * optax.tree.norm(moved, squared=True), {}


WASSERSTEIN_INIT = Intervention(
    "wasserstein_init", {"wasserstein_init_coef": hparam(1e-3, 0.0)}, init=remember, penalty=penalty
)
