"""Normalise and project (Lyle et al. 2024, arXiv 2407.01800): behind a LayerNorm a weight's size means nothing to what is said, and
is the step's: it is kept.

    W_l ← W_l ‖W_l at the start‖ / ‖W_l‖   after each step, for hidden layers (each with a LayerNorm before its activation)

``normalize_project_share`` c is how much of that is done, W ← (1 − c + c ρ₀ / ρ) W: 1 is the paper's, 0 nothing. Heads, whose size
does matter, and LayerNorm's own scales and offsets are free; the paper draws those to their first values.

Raises:
    ValueError: a hidden layer without LayerNorm.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from purejaxrl_ext.errors import check
from purejaxrl_ext.interventions.base import Context, Intervention
from purejaxrl_ext.networks.structure import get, put
from purejaxrl_ext.types import Array, Learner, Net, PyTree, hparam


def remember(key: Array, params: PyTree) -> PyTree:
    """‖W at the start‖ of every array."""
    return jax.tree.map(jnp.linalg.norm, jax.tree.map(jnp.ravel, params))


def project(net: Net, learner: Learner, context: Context) -> Learner:
    """Hidden layers at their first norms."""
    params, share = learner.params, context.hparams.normalize_project_share
    for layer in net.layers(params):
        has_norm = any("LayerNorm" in part for path in layer.scales for part in path)
        check(has_norm, "interventions", "normalize_project", "used with layer_norm=True")
        w = get(params, layer.kernel)
        factor = 1.0 + share * (get(learner.memory, layer.kernel) / (jnp.linalg.norm(w.ravel()) + 1e-12) - 1.0)
        params = put(params, layer.kernel, factor * w)
    return learner.replace(params=params)


NORMALIZE_PROJECT = Intervention(
    "normalize_project", {"normalize_project_share": hparam(1.0, 0.0, 1.0)}, init=remember, each=project
)
