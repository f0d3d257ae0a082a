"""Regenerative regularisation, or L2-init (Kumar et al. 2023, arXiv 2308.11958): parameters are drawn to where they began.

    L ← L + λ ‖θ − θ₀‖²

Three losses bear the name: this sum of squares over all parameters, which is the paper's; its root; and the mean of squares of each
layer. A λ of one means nothing to another.
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
    return hparams.l2_init_coef * optax.tree.norm(jax.tree.map(jnp.subtract, params, memory), squared=True), {}


L2_INIT = Intervention("l2_init", {"l2_init_coef": hparam(1e-3, 0.0)}, init=remember, penalty=penalty)
