"""Testers of notebook 06's exercises; see ``exercises.py``. Numbers worked out by hand."""

from __future__ import annotations

import jax.numpy as jnp
from exercises import Tester, compare


def belief_update(function):
    # Three states of which the first two look alike. Action 0 stays; 1 goes on by one, from state 0 with 0.8 and from 1 with 0.5.
    stay = jnp.eye(3)
    on = jnp.array([[0.2, 0.8, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    model = {"transition": jnp.stack([stay, on], axis=1), "observation": jnp.array([0, 0, 1])}
    half = jnp.array([0.5, 0.5, 0.0])
    compare(function, [0.5, 0.5, 0.0], belief=half, action=0, seen=0, **model)
    compare(function, [0.1 / 0.75, 0.65 / 0.75, 0.0], belief=half, action=1, seen=0, **model)
    compare(function, [0.0, 0.0, 1.0], belief=half, action=1, seen=1, **model)


def stack(function):
    obs = jnp.array([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0], [4.0, -4.0]])
    start = jnp.array([True, False, True, False])
    two = [[1, -1, 1, -1], [1, -1, 2, -2], [3, -3, 3, -3], [3, -3, 4, -4]]
    compare(function, two, obs=obs, start=start, size=2)
    three = [[1, -1, 1, -1, 1, -1], [1, -1, 1, -1, 2, -2], [1, -1, 2, -2, 3, -3], [2, -2, 3, -3, 4, -4]]
    compare(function, three, obs=obs, start=jnp.array([True, False, False, False]), size=3)


TESTS: dict[str, Tester] = {"belief_update": belief_update, "stack": stack}
