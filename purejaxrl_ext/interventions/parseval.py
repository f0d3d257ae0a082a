"""Parseval regularisation (Chung et al. 2024, arXiv 2412.07224): a hidden layer's weights stay orthogonal, up to a scale.

    L ← L + λ Σ_l ‖W_l W_lᵀ − s I‖²_F      of hidden layers; heads are free

Rows of W are units; of a layer with more units than inputs, which cannot be orthogonal to each other, the columns are, W_lᵀ W_l.
``parseval_coef`` is λ, ``parseval_scale`` s; the default 2 is that of ``initializer="orthogonal"``, whose gain is √2.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from purejaxrl_ext.interventions.base import Intervention
from purejaxrl_ext.networks.structure import hidden_kernels
from purejaxrl_ext.types import Array, Metrics, Net, PyTree, hparam


def penalty(
    net: Net, params: PyTree, memory: PyTree, part: PyTree, other: PyTree, hparams: Any
) -> tuple[Array, Metrics]:
    """λ Σ_l ‖W_l W_lᵀ − s I‖²_F."""
    far = [distance(w, hparams.parseval_scale) for w in hidden_kernels(net.layers(params), params)]
    return hparams.parseval_coef * sum(far, jnp.zeros(())), {}


def distance(kernel: Array, scale: Array | float) -> Array:
    """‖G − s I‖²_F for the smaller Gram matrix G of ``[inputs, units]``."""
    gram = kernel @ kernel.T if kernel.shape[0] < kernel.shape[1] else kernel.T @ kernel
    return jnp.square(gram - scale * jnp.eye(len(gram))).sum()


PARSEVAL = Intervention(
    "parseval", {"parseval_coef": hparam(1e-3, 0.0), "parseval_scale": hparam(2.0, 0.0, open_low=True)}, penalty=penalty
)
