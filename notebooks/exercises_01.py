"""Testers of notebook 01's exercises."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from exercises import compare

from purejaxrl_ext.envs import mdps
from purejaxrl_ext.tabular import exact


def discounted_return(function: Callable) -> None:
    reward = jnp.array([1.0, 2.0, 4.0])
    compare(function, 3.0, reward=reward, gamma=0.5)  # 1 + 2/2 + 4/4
    compare(function, 7.0, reward=reward, gamma=1.0)
    compare(function, 1.0, reward=reward, gamma=0.0)


def returns_to_go(function: Callable) -> None:
    reward = jnp.array([1.0, 2.0, 4.0, 8.0])
    never = jnp.zeros(4, bool)
    compare(function, [4.0, 6.0, 8.0, 8.0], reward=reward, terminated=never, gamma=0.5)
    second = never.at[1].set(True)
    compare(function, [2.0, 2.0, 8.0, 8.0], reward=reward, terminated=second, gamma=0.5)


def state_chain(function: Callable) -> None:
    robot = mdps.recycling_robot(alpha=0.8, beta=0.6)
    compare(function, [[0.8, 0.2], [0.4, 0.6]], transition=robot.transition, policy=jnp.array([[1.0, 0, 0]] * 2))
    # Low: search 1/2 (0.4, 0.6), recharge 1/2 (1, 0).
    policy = jnp.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])
    compare(function, [[0.9, 0.1], [0.7, 0.3]], transition=robot.transition, policy=policy)
    walk = mdps.random_walk(3)
    expected = jnp.einsum("sa,sat->st", exact.uniform(walk), walk.transition)
    compare(function, expected, transition=walk.transition, policy=exact.uniform(walk))


TESTS = {"discounted_return": discounted_return, "returns_to_go": returns_to_go, "state_chain": state_chain}
