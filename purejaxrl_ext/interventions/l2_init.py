"""Regenerative regularisation, or L2-init (Kumar et al. 2023, arXiv 2308.11958): parameters are drawn to where they began.

    l2_init        L ← L + λ ‖θ − θ₀‖²                          the paper's: the sum of squares over all parameters
    l2_init_mean   L ← L + λ Σ_l mean_i (θ_li − θ₀_li)²         the mean of squares of each array of parameters, added up
    l2_init_norm   L ← L + λ ‖θ − θ₀‖                           the root, whose pull does not grow with the distance

All three bear the name in published code. A λ of one means nothing to another: the mean divides by a layer's size, and the root's
gradient is as long as λ everywhere (0 at θ₀). ``<name>_coef`` is λ.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from purejaxrl_ext.interventions.base import Intervention
from purejaxrl_ext.types import Array, Metrics, Net, PyTree, hparam


def remember(key: Array, params: PyTree) -> PyTree:
    """θ₀."""
    return params


def penalty(
    net: Net, params: PyTree, memory: PyTree, part: PyTree, other: PyTree, hparams: Any
) -> tuple[Array, Metrics]:
    """λ ‖θ − θ₀‖²."""
    return hparams.l2_init_coef * optax.tree.norm(_moved(params, memory), squared=True), {}


def mean_penalty(
    net: Net, params: PyTree, memory: PyTree, part: PyTree, other: PyTree, hparams: Any
) -> tuple[Array, Metrics]:
    """λ Σ_l mean_i (θ_li − θ₀_li)²."""
    means = [jnp.square(x).mean() for x in jax.tree.leaves(_moved(params, memory))]
    return hparams.l2_init_mean_coef * sum(means, jnp.zeros(())), {}


def norm_penalty(
    net: Net, params: PyTree, memory: PyTree, part: PyTree, other: PyTree, hparams: Any
) -> tuple[Array, Metrics]:
    """λ ‖θ − θ₀‖; its gradient at θ₀ is 0."""
    squared = optax.tree.norm(_moved(params, memory), squared=True)
    away = squared > 0
    return hparams.l2_init_norm_coef * jnp.where(away, jnp.sqrt(jnp.where(away, squared, 1.0)), 0.0), {}


def _moved(params: PyTree, memory: PyTree) -> PyTree:
    return jax.tree.map(jnp.subtract, params, memory)


L2_INIT = Intervention("l2_init", {"l2_init_coef": hparam(1e-3, 0.0)}, init=remember, penalty=penalty)
L2_INIT_MEAN = Intervention(
    "l2_init_mean", {"l2_init_mean_coef": hparam(1.0, 0.0)}, init=remember, penalty=mean_penalty
)
L2_INIT_NORM = Intervention(
    "l2_init_norm", {"l2_init_norm_coef": hparam(1e-2, 0.0)}, init=remember, penalty=norm_penalty
)
