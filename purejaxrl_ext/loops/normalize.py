"""Running statistics of observations and of returns; they live in the state, and evaluation uses them as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import struct

from purejaxrl_ext.rules import returns
from purejaxrl_ext.types import Array


class Statistics(struct.PyTreeNode):
    """Mean and variance of all that was seen; ``count`` 0 stands for mean 0, variance 1."""

    mean: Array
    variance: Array
    count: Array


class Normalizer(struct.PyTreeNode):
    """Statistics of a run. Unused parts are ``()``.

    Attributes:
        obs: per entry of an observation; entries after those that it has statistics of are not normalised.
        reward: of the discounted return.
        discounted_return: ``[N]`` the running sum Σ γ^k r_{t−k}.
        clip: normalised observations stay within ± this.
    """

    obs: Any = ()
    reward: Any = ()
    discounted_return: Any = ()
    clip: float = struct.field(pytree_node=False, default=10.0)


def empty(shape: tuple[int, ...]) -> Statistics:
    """Statistics of nothing, of entries of a ``shape``."""
    mean, variance = (jnp.full(shape, x, jnp.float32) for x in (0.0, 1.0))
    return Statistics(mean, variance, jnp.zeros((), jnp.float32))


def update(stats: Statistics, x: Array) -> Statistics:
    """Take in a batch ``[..., *shape]`` by the parallel formula (Chan, Golub & LeVeque 1979)."""
    x = x.astype(jnp.float32).reshape(-1, *stats.mean.shape)
    count = stats.count + x.shape[0]
    share = x.shape[0] / count
    delta = x.mean(0) - stats.mean
    # At count 0 the placeholder variance 1 has weight 0.
    variance = (1.0 - share) * stats.variance + share * x.var(0) + share * (1.0 - share) * jnp.square(delta)
    return Statistics(stats.mean + share * delta, variance, count)


def take_in(normalizer: Normalizer, obs: Array) -> Normalizer:
    """The normaliser with observations ``[..., *shape]`` in its statistics."""
    return normalizer.replace(obs=update(normalizer.obs, _measured(normalizer.obs, obs)))


def normalize_obs(normalizer: Normalizer | tuple, obs: Array) -> Array:
    """(o − mean) / √(variance + 1e-8), within ± clip; the observation itself where there are no statistics.

    An entry whose deviation is below 1e-5 of its mean is constant, as far as float32 can tell, and 0.
    """
    if not isinstance(normalizer, Normalizer) or not isinstance(normalizer.obs, Statistics):
        return obs
    stats = normalizer.obs
    lead = (1,) * (obs.ndim - stats.mean.ndim)
    mean, variance = (x.reshape(lead + x.shape) for x in (stats.mean, stats.variance))
    part = _measured(stats, obs)
    scaled = (part.astype(jnp.float32) - mean) / jnp.sqrt(variance + 1e-8)
    varies = variance > jnp.square(1e-5 * mean)
    scaled = jnp.where(varies, jnp.clip(scaled, -normalizer.clip, normalizer.clip), 0.0)
    rest = obs[..., part.shape[-1] :] if obs.ndim else obs
    return jnp.concatenate([scaled, rest.astype(jnp.float32)], axis=-1) if part.shape != obs.shape else scaled


def _measured(stats: Statistics, obs: Array) -> Array:
    """The entries that there are statistics of: the first ones of the last axis."""
    return obs[..., : stats.mean.shape[-1]] if stats.mean.ndim else obs


def scale_rewards(
    normalizer: Normalizer,
    reward: Array,
    done: Array,
    gamma: Array | float,
    gather: Callable[[Array], Array] = lambda x: x,
    clip: float = math.inf,
) -> tuple[Normalizer, Array]:
    """Rewards over the standard deviation of the discounted return (Engstrom et al. 2020), ``[T, N]``, within ± ``clip``.

    The statistics take in R_t = r_t + γ (1 − done_{t−1}) R_{t−1} of these rewards first; ``gather`` adds those of the
    run's environments on other devices.
    """
    # The same recursion, run forwards in time: reverse, and carry the last rollout's sum in at the front.
    began = jnp.concatenate([jnp.zeros_like(done[:1]), done[:-1]])[::-1]
    first = reward.at[0].add(gamma * normalizer.discounted_return)
    running = returns.discounted_sum(first[::-1], began, gamma)[::-1]
    stats = update(normalizer.reward, gather(running))
    carried = jnp.where(done[-1], 0.0, running[-1])
    scaled = jnp.clip(reward / jnp.sqrt(stats.variance + 1e-8), -clip, clip)
    return normalizer.replace(reward=stats, discounted_return=carried), scaled
