"""Solutions of notebook 02's exercises."""

from __future__ import annotations

import jax.numpy as jnp


def bellman_backup(transition, reward, terminal, v, gamma):
    goes_on = jnp.where(terminal, 0.0, v)
    q = jnp.sum(transition * (reward + gamma * goes_on[None, None]), axis=-1)
    return q.max(axis=-1)


def greedy_actions(transition, reward, v, gamma):
    q = jnp.sum(transition * (reward + gamma * v[None, None]), axis=-1)
    return q.argmax(axis=-1)


def discounted_visits(chain, initial, gamma):
    return jnp.linalg.solve(jnp.eye(len(initial)) - gamma * chain.T, initial)
