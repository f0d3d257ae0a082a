"""Solutions of notebook 06's exercises."""

from __future__ import annotations

import jax.numpy as jnp


def belief_update(belief, action, seen, transition, observation):
    ahead = (belief @ transition[:, action]) * (observation == seen)
    return ahead / ahead.sum()


def stack(obs, start, size):
    rows, row = [], None
    for now, begins in zip(obs, start, strict=True):
        row = [now] * size if begins else [*row[1:], now]
        rows.append(jnp.concatenate(row))
    return jnp.stack(rows)
