"""Policies over actions: a record of distribution parameters, made into a distrax distribution where one is needed.

An action is kept as the distribution drew it, together with its log-probability there; :func:`to_env` turns it into what
the environment takes. So clipping to bounds never corrupts a log-probability.

A Box action is drawn in units in which [-1, 1] spans the environment's bounds. ``Gaussian`` clips there; ``TanhGaussian``
squashes by tanh, the drawn action being the one before tanh.
"""

from __future__ import annotations

from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxrl_ext.types import Array, Box, Discrete


class Categorical(struct.PyTreeNode):
    """Policy over ``A`` discrete actions; ``logits [..., A]``."""

    logits: Array


class Gaussian(struct.PyTreeNode):
    """Independent normals; ``loc [..., A]``, ``scale [..., A]`` > 0."""

    loc: Array
    scale: Array


class TanhGaussian(struct.PyTreeNode):
    """tanh of independent normals with parameters ``loc [..., A]``, ``scale [..., A]``."""

    loc: Array
    scale: Array


def distribution(policy: Any) -> Any:
    """The distrax distribution of the actions as they are stored (for ``TanhGaussian``: before tanh)."""
    if isinstance(policy, Categorical):
        return distrax.Categorical(logits=policy.logits)
    return distrax.MultivariateNormalDiag(policy.loc, policy.scale)


def noise(key: Array, shape: tuple[int, ...], space: Discrete | Box) -> Array:
    """Randomness from which :func:`sample` makes actions: Gumbel ``[*shape, A]`` or normal ``[*shape, A]``."""
    if isinstance(space, Discrete):
        return jax.random.gumbel(key, (*shape, space.n))
    return jax.random.normal(key, (*shape, *space.shape))


def uniform_actions(key: Array, shape: tuple[int, ...], space: Discrete | Box) -> Array:
    """Random actions of leading ``shape`` as the environment takes them; a side without bound is taken as ±1."""
    if isinstance(space, Discrete):
        return jax.random.randint(key, shape, 0, space.n)
    low = jnp.asarray(np.where(np.isfinite(space.low), space.low, -1.0), jnp.float32)
    high = jnp.asarray(np.where(np.isfinite(space.high), space.high, 1.0), jnp.float32)
    unit = jax.random.uniform(key, (*shape, *space.shape))
    low, high = (x.reshape((1,) * len(shape) + x.shape) for x in (low, high))
    return low + unit * (high - low)


def sample(policy: Any, noise: Array | None) -> Array:
    """Action ``[...]`` int32 or ``[..., A]`` float32 from parameters and noise; the mode if ``noise`` is None.

    Categorical: argmax(logits + Gumbel), which has exactly the policy's distribution (Gumbel 1954; Maddison et al. 2014).
    """
    if isinstance(policy, Categorical):
        return jnp.argmax(policy.logits if noise is None else policy.logits + noise, axis=-1).astype(jnp.int32)
    return policy.loc if noise is None else policy.loc + policy.scale * noise


def log_prob(policy: Any, action: Array) -> Array:
    """log π(action) ``[...]``; for ``TanhGaussian`` the density of tanh(action): log N(u) − Σ log(1 − tanh²u)."""
    if isinstance(policy, Categorical):
        # The same number as distrax's, through a gather that vmap keeps cheap.
        logits = jax.nn.log_softmax(policy.logits)
        return jnp.take_along_axis(logits, action[..., None], axis=-1)[..., 0]
    base = distribution(policy).log_prob(action)
    return base - _log_tanh_slope(action).sum(-1) if isinstance(policy, TanhGaussian) else base


def entropy(policy: Any) -> Array:
    """Entropy ``[...]`` in nats.

    ``TanhGaussian`` has no closed form: H = H(N) + Σ E[log(1 − tanh²u)], the expectation by 16-point Gauss–Hermite
    quadrature, deterministic and differentiable.
    """
    base = distribution(policy).entropy()
    if not isinstance(policy, TanhGaussian):
        return base
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    points = jnp.asarray(nodes, jnp.float32).reshape((1,) * policy.loc.ndim + (-1,))
    u = policy.loc[..., None] + policy.scale[..., None] * points
    return base + (_log_tanh_slope(u) @ (weights / weights.sum()).astype(np.float32)).sum(-1)


def kl_divergence(old: Any, new: Any) -> Array:
    """KL(old ‖ new) ``[...]`` in nats; tanh is a bijection, so it leaves the divergence of its base unchanged."""
    return distribution(old).kl_divergence(distribution(new))


def variance(policy: Any) -> Array:
    """Variance over states of each action probability (or of each loc and scale), averaged: a scalar.

    Zero when the policy says the same in every state. Leading axes of the policy are all states (Moalla et al. 2024, 4).
    """
    if isinstance(policy, Categorical):
        parameters = jax.nn.softmax(policy.logits)
    else:
        parameters = jnp.concatenate([policy.loc, policy.scale], axis=-1)
    return jnp.var(parameters.reshape(-1, parameters.shape[-1]), axis=0).mean()


def to_env(policy: Any, action: Array, space: Discrete | Box) -> Array:
    """The action as the environment takes it: within its bounds."""
    if isinstance(space, Discrete):
        return action
    if isinstance(policy, TanhGaussian):
        action = jnp.tanh(action)
    lead = (1,) * (action.ndim - 1)
    low, high = (jnp.asarray(x, jnp.float32).reshape(*lead, -1) for x in (space.low, space.high))
    if not np.isfinite([*space.low, *space.high]).all():
        return jnp.clip(action, low, high)
    unit = (jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0
    return low + unit * (high - low)


def _log_tanh_slope(u: Array) -> Array:
    # log(1 − tanh²u) without the cancellation: 2 (log 2 − u − softplus(−2u))
    return 2.0 * (np.log(2.0).astype(np.float32) - u - jax.nn.softplus(-2.0 * u))
