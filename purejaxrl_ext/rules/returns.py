"""Returns and advantages: pure functions of arrays ``[T, ...]``, time first, any further axes being independent.

All take ``terminated`` (the episode ended, nothing follows) and ``truncated`` (it was cut here, but its value goes on), and
``next_value``, the value of each step's true successor: at an episode's end that of the final observation.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from purejaxrl_ext.types import Array


def td_error(reward: Array, value: Array, next_value: Array, terminated: Array, gamma: Array | float) -> Array:
    """δ_t = r_t + γ (1 − terminated_t) V(s'_t) − V(s_t) (Sutton & Barto 2018, eq. 6.5), all of one shape."""
    chex.assert_equal_shape([reward, value, next_value, terminated])
    return reward + gamma * jnp.where(terminated, 0.0, next_value) - value


def gae(
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    gamma: Array | float,
    gae_lambda: Array | float,
) -> Array:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16).

    A_t = δ_t + γλ (1 − (terminated_t or truncated_t)) A_{t+1}, with δ of :func:`td_error` and A_T = 0.

    A truncated step keeps its bootstrap in δ; only the sum over later steps stops there, since they are another episode's.

    Args:
        reward, value, next_value: ``[T, ...]`` float.
        terminated, truncated: ``[T, ...]`` bool.

    Returns:
        ``[T, ...]`` advantages. The λ-return is ``gae(...) + value``.
    """
    delta = td_error(reward, value, next_value, terminated, gamma)
    return discounted_sum(delta, terminated | truncated, gamma * gae_lambda)


def lambda_return(
    reward: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    gamma: Array | float,
    lambda_: Array | float,
) -> Array:
    """λ-returns (Sutton & Barto 2018, eq. 12.20).

    G_t = r_t + γ [(1 − λ) V(s'_t) + λ G_{t+1}], with G_{t+1} replaced by V(s'_t) at a truncation and at the rollout's last
    step, and by 0 at a termination. λ = 0: TD(0) targets; λ = 1: Monte Carlo, bootstrapped where the data end.

    Shapes as in :func:`gae`.
    """
    chex.assert_equal_shape([reward, next_value, terminated, truncated])
    bootstrap = jnp.where(terminated, 0.0, next_value)
    last = jnp.zeros_like(terminated).at[-1].set(True)
    ends = terminated | truncated | last
    # Where the sum ends the whole weight is on the bootstrap.
    start = reward + gamma * bootstrap * jnp.where(ends, 1.0, 1.0 - lambda_)
    return discounted_sum(start, ends, gamma * lambda_)


def n_step_return(
    reward: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    gamma: Array | float,
    n: Array | int,
) -> Array:
    """n-step returns (Sutton & Barto 2018, eq. 7.1).

    G_t = r_t + γ r_{t+1} + … + γ^{n−1} r_{t+n−1} + γ^n V(s'_{t+n−1}): after n steps, or at the first truncation or the rollout's
    last step before, V of the true successor follows; after a termination 0. n = 1: TD(0) targets; n = T: as λ = 1.

    n ≥ 1 may be traced. Shapes as in :func:`gae`.
    """
    chex.assert_equal_shape([reward, next_value, terminated, truncated])
    bootstrap = jnp.where(terminated, 0.0, next_value)
    ends = (terminated | truncated).at[-1].set(True)

    def one_more(_: Array, shorter: Array) -> Array:
        # G of k steps is r and γ G of the k − 1 steps after it; at the rollout's end the roll brings in what is not read.
        return reward + gamma * jnp.where(ends, bootstrap, jnp.roll(shorter, -1, axis=0))

    return jax.lax.fori_loop(1, n, one_more, reward + gamma * bootstrap)


def n_step_last(terminated: Array, truncated: Array, n: Array | int) -> Array:
    """The index ``[T, ...]`` of the last step that enters each n-step return: t + n − 1, or that of the first end before."""
    chex.assert_equal_shape([terminated, truncated])
    ends = (terminated | truncated).at[-1].set(True)
    time = jnp.arange(ends.shape[0]).reshape(-1, *(1,) * (ends.ndim - 1))
    first_end = jax.lax.cummin(jnp.where(ends, time, ends.shape[0]), axis=0, reverse=True)
    return jnp.minimum(time + n - 1, first_end)


def first_episode(ends: Array) -> Array:
    """Which steps ``[T, ...]`` bool belong to the first episode: those up to and with the first of ``ends``."""
    return jnp.cumsum(ends, axis=0) - ends == 0


def discounted_sum(x: Array, ends: Array, discount: Array | float) -> Array:
    """y_t = x_t + discount · (1 − ends_t) · y_{t+1}, y_T = 0; over axis 0 of ``[T, ...]``."""
    chex.assert_equal_shape([x, ends])
    weight = discount * (1.0 - ends.astype(x.dtype))

    def backward(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        x_t, weight_t = now
        y = x_t + weight_t * later
        return y, y

    # Unrolled: the body is two operations, less than a loop's own cost.
    _, sums = jax.lax.scan(backward, jnp.zeros_like(x[0]), (x, weight), reverse=True, unroll=8)
    return sums
