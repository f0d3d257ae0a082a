"""Testers of notebook 03's exercises."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from exercises import compare

from purejaxrl_ext.rules import returns


def td_update(function: Callable) -> None:
    v = jnp.array([1.0, 2.0, 3.0])
    given = {"v": v, "state": 0, "reward": 0.5, "next_state": 2, "alpha": 0.1, "gamma": 0.9}
    # δ = 0.5 + 0.9 · 3 − 1 = 2.2
    compare(function, [1.22, 2.0, 3.0], **given, terminated=False)
    # δ = 0.5 − 1
    compare(function, [0.95, 2.0, 3.0], **given, terminated=True)


def lambda_return(function: Callable) -> None:
    reward, next_value = jnp.array([1.0, 2.0, 4.0]), jnp.array([10.0, 20.0, 30.0])
    given = {"reward": reward, "next_value": next_value, "gamma": 0.5}
    for lambda_ in (0.0, 1.0, 0.5):
        for terminated in (False, True):
            ends = jnp.zeros(3, bool).at[-1].set(terminated)
            expected = returns.lambda_return(reward, next_value, ends, jnp.zeros(3, bool), 0.5, lambda_)
            compare(function, expected, **given, terminated=ends, lambda_=lambda_)


TESTS = {"td_update": td_update, "lambda_return": lambda_return}
