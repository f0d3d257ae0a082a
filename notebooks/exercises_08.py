"""Testers of notebook 08's exercises; see ``exercises.py``. Numbers worked out by hand."""

from __future__ import annotations

import jax.numpy as jnp
from exercises import Tester, compare


def pull_gradient(function):
    params, average = jnp.array([1.0, -2.0, 3.0]), jnp.array([1.0, 0.0, 4.0])
    compare(function, [0.0, -2.0, -1.0], params=params, average=average, coef=0.5)
    compare(function, [0.0, -0.4, -0.2], params=params, average=average, coef=0.1)
    compare(function, [0.0, 0.0, 0.0], params=params, average=average, coef=0.0)


def choose_and_report(function):
    # The best of seeds 0 and 2 is the second setting; its other two seeds say 3. The best overall is the first, by seed 1.
    scores = jnp.array([[1.0, 20.0, 2.0, 4.0], [5.0, 2.0, 7.0, 4.0], [0.0, 9.0, 3.0, 9.0]])
    compare(function, [1.0, 3.0], scores=scores)
    scores = jnp.array([[0.0, 9.0, 1.0, 9.0], [9.0, 1.0, 9.0, 1.0], [10.0, 4.0, 10.0, 6.0]])
    compare(function, [2.0, 5.0], scores=scores)


def probability_better(function):
    compare(function, 0.5, x=jnp.array([1.0, 4.0]), y=jnp.array([2.0, 3.0]))
    # Of six pairs two are won and two are ties.
    compare(function, 0.5, x=jnp.array([2.0, 3.0]), y=jnp.array([2.0, 3.0, 2.5]))
    compare(function, 0.75, x=jnp.array([2.0, 9.0]), y=jnp.array([2.0, 2.0]))
    compare(function, 0.0, x=jnp.array([1.0]), y=jnp.array([2.0, 3.0]))


TESTS: dict[str, Tester] = {
    "pull_gradient": pull_gradient,
    "choose_and_report": choose_and_report,
    "probability_better": probability_better,
}
