"""Testers of notebook 07's exercises; see ``exercises.py``. Numbers worked out by hand."""

from __future__ import annotations

import jax.numpy as jnp
from exercises import Tester, compare


def pca_rank(function):
    def features(*sigma):
        # Columns at right angles, of these lengths: singular values.
        return jnp.eye(6)[:, : len(sigma)] * jnp.array(sigma)[None]

    compare(function, 3, features=features(1.0, 1.0, 1.0))
    # Of 101 the first has 100, more than 99%; of 104 it has 96% and needs the second. Plain sums of σ would say 3.
    compare(function, 1, features=features(10.0, 1.0, 0.0))
    compare(function, 2, features=features(10.0, 2.0, 0.3))
    # Not centred: the constant column is nearly all there is.
    constant = jnp.array([[10.0, 0.5, 0.0], [10.0, -0.5, 0.0], [10.0, 0.0, 0.5], [10.0, 0.0, -0.5]])
    compare(function, 1, features=constant)


def dead_units(function):
    # The first is dead; the second speaks once, the third always, the fourth says the same each time.
    compare(function, 1, features=jnp.array([[0.0, 0.0, 1.0, 2.0], [0.0, 3.0, 2.0, 2.0], [0.0, 0.0, 1.0, 2.0]]))
    compare(function, 3, features=jnp.zeros((2, 3)))


def feature_penalty(function):
    new, old = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1.0, 0.0], [0.0, 4.0]])
    # A mean over samples and dimensions: (4 + 9) / 4.
    for coef, expected in ((0.0, 0.5), (1.0, 3.75), (2.0, 7.0)):
        compare(function, expected, ppo_loss=0.5, preactivation=new, old_preactivation=old, feature_coef=coef)


TESTS: dict[str, Tester] = {"pca_rank": pca_rank, "dead_units": dead_units, "feature_penalty": feature_penalty}
