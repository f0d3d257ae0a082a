"""Testers of notebook 05's exercises; see ``exercises.py``. Numbers worked out by hand."""

from __future__ import annotations

import jax.numpy as jnp
from exercises import Tester, compare


def reward_to_go(function):
    compare(function, [1.0 + 0.5 * 4.0, 2.0 + 0.5 * 4.0, 4.0], reward=jnp.array([1.0, 2.0, 4.0]), gamma=0.5)
    compare(function, [6.0, 6.0, 4.0], reward=jnp.array([0.0, 2.0, 4.0]), gamma=1.0)


def surrogate(function):
    ratio = jnp.array([1.5, 0.5, 1.5, 0.5, 1.1])
    advantage = jnp.array([2.0, 2.0, -2.0, -2.0, 3.0])
    # A good action's ratio stops to count above 1.2, a bad one's below 0.8; the wrong way round all of it counts.
    compare(function, [2.4, 1.0, -3.0, -1.6, 3.3], ratio=ratio, advantage=advantage, clip_eps=0.2)


def gae(function):
    no = jnp.zeros(3, bool)
    third = jnp.array([False, False, True])
    second = jnp.array([False, True, False])
    data = {
        "reward": jnp.array([1.0, 2.0, 3.0]),
        "value": jnp.array([1.0, 1.0, 2.0]),
        "next_value": jnp.array([1.0, 2.0, 4.0]),
    }
    # γ = 0.5: δ = 0.5, 2, 3; without what follows δ_2 = 1 and δ_3 = 1.
    both = {"gamma": 0.5, "gae_lambda": 0.5}
    compare(function, [1.1875, 2.75, 3.0], **data, terminated=no, truncated=no, **both)
    compare(function, [1.0625, 2.25, 1.0], **data, terminated=third, truncated=no, **both)
    compare(function, [1.0, 2.0, 3.0], **data, terminated=no, truncated=second, **both)
    compare(function, [0.75, 1.0, 3.0], **data, terminated=second, truncated=no, **both)


TESTS: dict[str, Tester] = {"reward_to_go": reward_to_go, "surrogate": surrogate, "gae": gae}
