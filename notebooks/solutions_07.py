"""Solutions of notebook 07's exercises."""

from __future__ import annotations

import jax.numpy as jnp


def pca_rank(features):
    energy = jnp.linalg.svd(features, compute_uv=False) ** 2
    share = jnp.cumsum(energy) / energy.sum()
    return 1 + jnp.sum(share < 0.99)


def dead_units(features):
    return jnp.sum(jnp.all(features == 0.0, axis=0))


def feature_penalty(ppo_loss, preactivation, old_preactivation, feature_coef):
    return ppo_loss + feature_coef * jnp.mean((preactivation - old_preactivation) ** 2)
