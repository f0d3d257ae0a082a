"""Solutions of notebook 08's exercises."""

from __future__ import annotations

import jax.numpy as jnp


def pull_gradient(params, average, coef):
    return 2.0 * coef * (params - average)


def choose_and_report(scores):
    chosen = scores[:, ::2].mean(axis=1).argmax()
    return jnp.stack([chosen, scores[chosen, 1::2].mean()])


def probability_better(x, y):
    won = x[:, None] > y[None]
    tied = x[:, None] == y[None]
    return (won + 0.5 * tied).mean()
