"""Policies over actions: a record of distribution parameters, made into a distrax distribution where one is needed.

An action is kept as the distribution drew it, together with its log-probability there; :func:`to_env` turns it into what
the environment takes. So clipping to bounds never corrupts a log-probability.

A Box action u is drawn in units of its own, entry by entry; ``TanhGaussian`` draws the number before tanh, and u is its tanh.

    bounds        u in [-1, 1] spans           beyond it
    both          low to high                  clipped
    low alone     low to low + 2               below low clipped, no bound above
    high alone    high − 2 to high             above high clipped, no bound below
    none          -1 to 1: u is the action     no bound

Random actions (:func:`uniform_actions`) are uniform for u in [-1, 1]. An entry whose bounds lie further apart than float32 can
say counts as one without.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxrl_ext.errors import check
from purejaxrl_ext.networks import short_axis
from purejaxrl_ext.types import Array, Box, Discrete, MultiDiscrete

# Widths s_k and weights w_k of the normals whose mixture is sech²(u)/2: a least-squares fit of tanh and log cosh on [0, 14].
_SECH_SQUARED = (
    (0.418386975, 0.567115669, 0.764101083, 1.032585177, 1.395162376, 1.894938141),
    (0.021731387, 0.189497420, 0.383313811, 0.303074481, 0.095398522, 0.006984378),
)

# An illegal action's logit or value: its probability is exactly 0 beside any other, and no sum or slope with it overflows.
ILLEGAL = -1e9


class Categorical(struct.PyTreeNode):
    """Policy over ``A`` discrete actions; ``logits [..., A]``."""

    logits: Array


class MultiCategorical(struct.PyTreeNode):
    """Independent policies over K discrete actions of ``sizes``; ``logits [..., A]`` side by side, A their sum."""

    logits: Array
    sizes: tuple[int, ...] = struct.field(pytree_node=False)

    def parts(self, noise: Array | float = 0.0) -> Array:
        """Logits plus ``noise [..., A]``, an action each: ``[..., K, M]``, M the largest size, the rest ``ILLEGAL``."""
        x, largest, ends = self.logits + noise, max(self.sizes), np.cumsum(self.sizes)[:-1].tolist()
        lead = [(0, 0)] * (x.ndim - 1)
        rows = jnp.split(x, ends, axis=-1)
        padded = [jnp.pad(row, [*lead, (0, largest - row.shape[-1])], constant_values=ILLEGAL) for row in rows]
        return jnp.stack(padded, axis=-2)


class Gaussian(struct.PyTreeNode):
    """Independent normals; ``loc [..., A]``, ``scale [..., A]`` > 0."""

    loc: Array
    scale: Array


class TanhGaussian(struct.PyTreeNode):
    """tanh of independent normals with parameters ``loc [..., A]``, ``scale [..., A]``."""

    loc: Array
    scale: Array


# The policies over each kind of action.
KINDS: dict[type, tuple[type, ...]] = {
    Discrete: (Categorical,),
    MultiDiscrete: (MultiCategorical,),
    Box: (Gaussian, TanhGaussian),
}


def distribution(policy: Any) -> Any:
    """The distrax distribution of the actions as they are stored (for ``TanhGaussian``: before tanh)."""
    # Its import takes longer than those of all else: not before it is needed.
    import distrax

    if isinstance(policy, Categorical):
        return distrax.Categorical(logits=policy.logits)
    if isinstance(policy, MultiCategorical):
        return distrax.Independent(distrax.Categorical(logits=policy.parts()), 1)
    return distrax.MultivariateNormalDiag(policy.loc, policy.scale)


def noise(key: Array, shape: tuple[int, ...], space: Discrete | MultiDiscrete | Box) -> Array:
    """Randomness from which :func:`sample` makes actions: Gumbel ``[*shape, A]`` or normal ``[*shape, A]``."""
    if not isinstance(space, Box):
        return jax.random.gumbel(key, (*shape, space.n), jnp.float32)
    return jax.random.normal(key, (*shape, *space.shape), jnp.float32)


def uniform_actions(key: Array, shape: tuple[int, ...], space: Discrete | MultiDiscrete | Box) -> Array:
    """Random actions of leading ``shape`` as the environment takes them, within the span of the module's table."""
    if isinstance(space, Discrete):
        return jax.random.randint(key, shape, 0, space.n, jnp.int32)
    if isinstance(space, MultiDiscrete):
        sizes = np.asarray(space.sizes, np.int32).reshape((1,) * len(shape) + (-1,))
        return jax.random.randint(key, (*shape, *space.shape), 0, sizes, jnp.int32)
    unit = jax.random.uniform(key, (*shape, *space.shape), jnp.float32)
    _, low, high = (x.reshape((1,) * len(shape) + x.shape) for x in _span(space))
    return jnp.clip(low + unit * (high - low), low, high)


def legal_only(x: Array, legal: Array) -> Array:
    """Logits or action values ``[..., A]``, those of illegal actions ``ILLEGAL``, whatever they were and without a slope.

    Raises:
        ValueError: no action is legal somewhere. In a compiled program such a row is NaN, by which a run counts as diverged;
            after a termination, where no action follows, nothing reads it.
    """
    some = legal.any(axis=-1, keepdims=True)
    if not isinstance(some, jax.core.Tracer):
        check(bool(some.all()), "legal", "none", "at least one action in each state")
    return jnp.where(some, jnp.where(legal, x, jnp.asarray(ILLEGAL, x.dtype)), jnp.nan)


def sample(policy: Any, noise: Array | None) -> Array:
    """Action ``[...]`` int32, ``[..., K]`` int32 or ``[..., A]`` float32 from parameters and noise; the mode if ``noise`` is None.

    Categorical: argmax(logits + Gumbel), which has exactly the policy's distribution (Gumbel 1954; Maddison et al. 2014).
    """
    if isinstance(policy, Categorical):
        return short_axis.argmax(policy.logits if noise is None else policy.logits + noise)
    if isinstance(policy, MultiCategorical):
        return jnp.argmax(policy.parts(0.0 if noise is None else noise), axis=-1).astype(jnp.int32)
    return policy.loc if noise is None else policy.loc + policy.scale * noise


def log_prob(policy: Any, action: Array) -> Array:
    """log π(action) ``[...]``; for ``TanhGaussian`` the density of tanh(action): log N(u) − Σ log(1 − tanh²u)."""
    if isinstance(policy, Categorical):
        if short_axis.is_short(policy.logits):
            return short_axis.pick_entry(short_axis.log_softmax_entries(policy.logits), action)
        # The same number as distrax's, through a gather that vmap keeps cheap.
        return short_axis.pick(jax.nn.log_softmax(policy.logits), action)
    if isinstance(policy, MultiCategorical):
        return short_axis.pick(jax.nn.log_softmax(policy.parts()), action).sum(-1)
    base = distribution(policy).log_prob(action)
    return base - _log_tanh_slope(action).sum(-1) if isinstance(policy, TanhGaussian) else base


def entropy(policy: Any) -> Array:
    """Entropy ``[...]`` in nats.

    ``TanhGaussian``: H = H(N) + Σ E[log(1 − tanh²u)] = H(N) − 2 Σ E[log cosh u]. The slope of log cosh, tanh, is that of a
    distribution function whose density, sech²(u)/2, is a logistic one and so a mixture of normals of mean 0 (Stefanski 1991);
    six are within 2e-7 of it. So log cosh u + log 2 = Σ_k w_k E|u + s_k ε| with ε standard normal, and under u ~ N(μ, σ²)

        E[log cosh u] + log 2 = Σ_k w_k E|N(μ, σ² + s_k²)|,    E|N(μ, τ²)| = τ √(2/π) exp(−μ²/2τ²) + μ erf(μ / τ√2)

    which errs by less than 2e-7 nats for every μ and σ, and by as little in its slopes.
    """
    if isinstance(policy, Categorical) and short_axis.is_short(policy.logits):
        return -functools.reduce(jnp.add, [jnp.exp(x) * x for x in short_axis.log_softmax_entries(policy.logits)])
    if isinstance(policy, Categorical):
        return -_expected(log_p := jax.nn.log_softmax(policy.logits), log_p)
    if isinstance(policy, MultiCategorical):
        return -_expected(log_p := jax.nn.log_softmax(policy.parts()), log_p).sum(-1)
    base = distribution(policy).entropy()
    if not isinstance(policy, TanhGaussian):
        return base
    lead = (1,) * policy.loc.ndim
    width, weight = (jnp.asarray(x, jnp.float32).reshape(*lead, -1) for x in _SECH_SQUARED)
    loc, spread = policy.loc[..., None], jnp.sqrt(jnp.square(policy.scale[..., None]) + jnp.square(width))
    unit = loc / spread
    folded = spread * np.float32(np.sqrt(2.0 / np.pi)) * jnp.exp(-0.5 * jnp.square(unit))
    folded += loc * jax.lax.erf(unit * np.float32(np.sqrt(0.5)))
    return base + 2.0 * (np.float32(np.log(2.0)) - (weight * folded).sum(-1)).sum(-1)


def kl_divergence(old: Any, new: Any) -> Array:
    """KL(old ‖ new) ``[...]`` in nats; tanh is a bijection, so it leaves the divergence of its base unchanged."""
    if isinstance(old, Categorical):
        return _kl(old.logits, new.logits)
    if isinstance(old, MultiCategorical):
        return _kl(old.parts(), new.parts()).sum(-1)
    return distribution(old).kl_divergence(distribution(new))


def _kl(old: Array, new: Array) -> Array:
    log_p, log_q = jax.nn.log_softmax(old), jax.nn.log_softmax(new)
    return _expected(log_p - log_q, log_p)


def _expected(x: Array, log_p: Array) -> Array:
    """Σ_a p_a x_a of ``[..., A]``, 0 where p_a is, whatever x_a."""
    p = jnp.exp(log_p)
    return jnp.sum(jnp.where(p == 0, 0.0, x) * p, axis=-1)


def variance(policy: Any) -> Array:
    """Variance over states of each action probability (or of each loc and scale), averaged: a scalar.

    Zero when the policy says the same in every state. Leading axes of the policy are all states (Moalla et al. 2024, 4).
    """
    if isinstance(policy, Categorical):
        parameters = jax.nn.softmax(policy.logits)
    elif isinstance(policy, MultiCategorical):
        rows = jnp.split(policy.logits, np.cumsum(policy.sizes)[:-1].tolist(), axis=-1)
        parameters = jnp.concatenate([jax.nn.softmax(row) for row in rows], axis=-1)
    else:
        parameters = jnp.concatenate([policy.loc, policy.scale], axis=-1)
    return jnp.var(parameters.reshape(-1, parameters.shape[-1]), axis=0).mean()


def to_env(policy: Any, action: Array, space: Discrete | MultiDiscrete | Box) -> Array:
    """The action as the environment takes it: within its bounds, each entry as the module's table says."""
    if not isinstance(space, Box):
        return action
    if isinstance(policy, TanhGaussian):
        action = jnp.tanh(action)
    lead = (1,) * (action.ndim - 1)
    scaled, low, high = (x.reshape(*lead, -1) for x in _span(space))
    unit = (jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0
    spanned = low + unit * (high - low)
    if scaled.all():
        return spanned
    least, most = (np.asarray(x, np.float32).reshape(*lead, -1) for x in (space.low, space.high))
    return jnp.where(scaled, spanned, jnp.clip(action + (low + high) / 2.0, least, most))


def _span(space: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``[A]`` each: whether both bounds are there, and what −1 and 1 stand for; the module's table."""
    least, most = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)
    # Half of the largest number, so that their difference is one too.
    has_low, has_high = (np.abs(x) < np.finfo(np.float32).max / 2 for x in (least, most))
    low = np.where(has_low, least, np.where(has_high, most - 2, -1))
    high = np.where(has_high, most, np.where(has_low, least + 2, 1))
    return has_low & has_high, low.astype(np.float32), high.astype(np.float32)


def _log_tanh_slope(u: Array) -> Array:
    # log(1 − tanh²u) without the cancellation: 2 (log 2 − u − softplus(−2u))
    return 2.0 * (np.log(2.0).astype(np.float32) - u - jax.nn.softplus(-2.0 * u))
