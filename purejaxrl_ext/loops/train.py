"""``train`` and ``evaluate``: one agent, as pure functions to jit and vmap."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.devices import isolated
from purejaxrl_ext.errors import check
from purejaxrl_ext.types import Algorithm, Array, Metrics, State


@isolated()
def train(algorithm: Algorithm, key: Array, total_steps: int, hparams: Any = None) -> tuple[State, Metrics]:
    """Train one agent from scratch: ``init``, then ``step`` by scan. Pure: jit it, vmap it over keys or hparams.

    Args:
        algorithm: from :func:`~purejaxrl_ext.algorithms.make.make`.
        key: ``jax.random.key(s)`` is what a sweep calls seed s.
        total_steps: environment steps over all environments; rounded up to whole updates.
        hparams: traced settings; None: ``algorithm.hparams``.

    Returns:
        the trained State, and metrics of shape ``[num_updates]`` each.
    """
    check(total_steps > 0, "total_steps", total_steps, "greater than 0")
    hparams = algorithm.hparams if hparams is None else hparams
    return _train(algorithm.loop, algorithm.num_updates(total_steps), key, hparams)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _train(loop: Any, num_updates: int, key: Array, hparams: Any) -> tuple[State, Metrics]:
    def update(state: State, i: Array) -> tuple[State, Metrics]:
        return loop.step(state, hparams, is_measured(i, num_updates - 1, loop.metrics_every))

    return jax.lax.scan(update, loop.init(key, hparams), jnp.arange(num_updates))


def is_measured(update: Array, last: Array | int, metrics_every: int) -> Array:
    """Whether an update computes the representation metrics: every k-th, the first and the last."""
    return (update % max(metrics_every, 1) == 0) | (update == last)
