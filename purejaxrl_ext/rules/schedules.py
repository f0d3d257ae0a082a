"""Schedules: a setting as a function of the environment steps so far."""

from __future__ import annotations

import jax.numpy as jnp

from purejaxrl_ext.types import Array


def anneal(value: Array, anneal_steps: Array, env_steps: Array) -> Array:
    """x · max(0, 1 − env_steps / anneal_steps); x where ``anneal_steps`` is 0."""
    share = jnp.maximum(0.0, 1.0 - env_steps / jnp.maximum(anneal_steps, 1.0))
    return value * jnp.where(anneal_steps > 0, share, 1.0)
