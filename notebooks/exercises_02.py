"""Testers of notebook 02's exercises."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from exercises import compare

from purejaxrl_ext.envs import mdps
from purejaxrl_ext.tabular import exact


def bellman_backup(function: Callable) -> None:
    robot = mdps.recycling_robot(alpha=0.8, beta=0.6)
    given = {"transition": robot.transition, "reward": robot.reward, "terminal": robot.terminal}
    # From v = 0: high searches for 2; low waits for 1 (searching brings 0.6 · 2 − 0.4 · 3 = 0).
    compare(function, [2.0, 1.0], **given, v=jnp.zeros(2), gamma=0.9)
    # High: 2 + 0.9 (0.8 · 10 + 0.2 · 5) = 10.1; low: recharge, 0.9 · 10 = 9.
    compare(function, [10.1, 9.0], **given, v=jnp.array([10.0, 5.0]), gamma=0.9)
    walk = mdps.random_walk(3)
    given = {"transition": walk.transition, "reward": walk.reward, "terminal": walk.terminal}
    # The end's value counts as 0, whatever v says.
    v = jnp.array([7.0, 1.0, 2.0, 3.0, 7.0])
    compare(function, [0.0, 1.0, 1.5, 1.0, 0.0], **given, v=v, gamma=0.5)


def greedy_actions(function: Callable) -> None:
    robot = mdps.recycling_robot(alpha=0.8, beta=0.6)
    given = {"transition": robot.transition, "reward": robot.reward}
    compare(function, [mdps.SEARCH, mdps.WAIT], **given, v=jnp.zeros(2), gamma=0.9)
    compare(function, [mdps.SEARCH, mdps.RECHARGE], **given, v=jnp.array([10.0, 5.0]), gamma=0.9)
    compare(function, [mdps.SEARCH, mdps.WAIT], **given, v=jnp.array([10.0, 5.0]), gamma=0.1)


def discounted_visits(function: Callable) -> None:
    chain, initial = jnp.array([[0.0, 1.0], [0.0, 0.0]]), jnp.array([1.0, 0.0])
    compare(function, [1.0, 0.5], chain=chain, initial=initial, gamma=0.5)
    robot = mdps.recycling_robot()
    searching = jnp.array([[1.0, 0.0, 0.0]] * 2)
    chain = jnp.einsum("sa,sat->st", searching, robot.transition)
    expected = exact.visitation(robot, searching, 0.9)
    compare(function, expected, chain=chain, initial=robot.initial, gamma=0.9)


TESTS = {
    "bellman_backup": bellman_backup,
    "greedy_actions": greedy_actions,
    "discounted_visits": discounted_visits,
}
