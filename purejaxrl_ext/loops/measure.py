"""What is logged of an update: its episodes, and its network's representation where that is due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.envs.vector import Transition
from purejaxrl_ext.loops.memory import Samples
from purejaxrl_ext.representation import metrics
from purejaxrl_ext.types import Array, Metrics, PyTree

EPISODES = ("episode_return", "episode_length", "num_episodes")


def episode_metrics(transition: Transition) -> Metrics:
    """Means over the episodes that ended in ``[T, N]`` transitions: sums over counts, NaN where none ended."""
    return episode_means(episode_sums(transition))


def episode_sums(transition: Transition) -> Metrics:
    """Sums over the episodes that ended in transitions of any leading shape, and their number."""
    return {
        "episode_return": transition.finished_return.sum(),
        "episode_length": transition.finished_length.sum().astype(jnp.float32),
        "num_episodes": jnp.sum(transition.terminated | transition.truncated).astype(jnp.float32),
    }


def episode_means(sums: Metrics) -> Metrics:
    """Means of such sums."""
    count = sums["num_episodes"]
    some = jnp.where(count > 0, count, jnp.nan)
    return {name: x if name == "num_episodes" else x / some for name, x in sums.items()}


def mean_and_std(name: str, x: Array) -> Metrics:
    """Mean and standard deviation of ``[B]`` in one pass, about the first of them, which keeps the digits of a small deviation."""
    first = x[:1]
    away, squares = (x - first).mean(), jnp.square(x - first).mean()
    return {name: first[0] + away, f"{name}_std": jnp.sqrt(jnp.maximum(squares - jnp.square(away), 0.0))}


def measured(
    loop: Any, due: Array, before: PyTree, after: PyTree, sample: Callable[[], Samples], hparams: Any
) -> Metrics:
    """The representation at the start and (suffix ``_end``) at the end of an update, what the rule and added metrics say of
    it, on a sample of its data; NaN unless ``due``.

    Args:
        loop: a :class:`~purejaxrl_ext.loops.base.Loop`.
        due: bool scalar, the same for all seeds.
        before, after: parameters.
        sample: gives some of the update's data.
        hparams: of the update.
    """

    def measure() -> Metrics:
        part = sample()
        (start, batch), (end, _) = (loop.agent.evaluate(params, part) for params in (before, after))
        logged = metrics.outputs_metrics({"": start, "_end": end})
        logged |= loop.rule.diagnose(start, end, batch, hparams)
        for function in loop.metrics:
            logged |= function(loop.net, before, after, part, hparams)
        return {name: jnp.asarray(value, jnp.float32) for name, value in logged.items()}

    skipped = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), jax.eval_shape(measure))
    return jax.lax.cond(due, measure, lambda: skipped)


def spread(num_samples: int, num_envs: int, most: int) -> Array:
    """Indices of at most ``most`` (0: all) of the samples t · N + n of T steps of N environments, as equal in number as can be
    for every environment, and evenly over time.

    A stride over the flattened samples would see only some of the environments: those that its common factor with N leaves.
    """
    count = min(most or num_samples, num_samples)
    if count == num_samples:
        return jnp.arange(num_samples)
    num_steps = num_samples // num_envs
    i = jnp.arange(count)
    if count < num_envs:
        return (i * num_steps // count) * num_envs + i * num_envs // count
    # Rounds over all environments, spread over time, each environment's a little later than the one before.
    env, rounds = i % num_envs, -(-count // num_envs)
    time = ((i // num_envs) * num_steps + env * num_steps // num_envs) // rounds
    return time * num_envs + env
