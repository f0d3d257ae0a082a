"""Testers of notebook 04's exercises."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from exercises import compare

REWARD = jnp.array([1.0, 1.0, 0.0])
ONLINE = jnp.array([[5.0, 1.0], [1.0, 5.0], [5.0, 1.0]])
TARGET = jnp.array([[2.0, 4.0], [8.0, 6.0], [2.0, 4.0]])
TERMINATED = jnp.array([False, False, True])


def epsilon_greedy(function: Callable) -> None:
    q = jnp.array([0.0, 3.0, 1.0, 2.0])
    compare(function, [0.05, 0.85, 0.05, 0.05], q=q, epsilon=0.2)
    compare(function, [0.25] * 4, q=q, epsilon=1.0)
    compare(function, [0.0, 1.0, 0.0, 0.0], q=q, epsilon=0.0)


def q_learning_target(function: Callable) -> None:
    compare(function, [3.0, 5.0, 0.0], reward=REWARD, next_q=TARGET, terminated=TERMINATED, gamma=0.5)


def double_q_target(function: Callable) -> None:
    given = {"reward": REWARD, "next_q_online": ONLINE, "next_q_target": TARGET, "terminated": TERMINATED}
    compare(function, [2.0, 4.0, 0.0], **given, gamma=0.5)


TESTS = {
    "epsilon_greedy": epsilon_greedy,
    "q_learning_target": q_learning_target,
    "double_q_target": double_q_target,
}
