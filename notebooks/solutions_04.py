"""Solutions of notebook 04's exercises."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def epsilon_greedy(q, epsilon):
    return epsilon / len(q) + (1.0 - epsilon) * jax.nn.one_hot(q.argmax(), len(q))


def q_learning_target(reward, next_q, terminated, gamma):
    return reward + gamma * jnp.where(terminated, 0.0, next_q.max(axis=-1))


def double_q_target(reward, next_q_online, next_q_target, terminated, gamma):
    best = next_q_online.argmax(axis=-1)
    value = jnp.take_along_axis(next_q_target, best[:, None], axis=-1)[:, 0]
    return reward + gamma * jnp.where(terminated, 0.0, value)
