"""TRAC (Muppidi et al. 2024, arXiv 2405.16642): how far from the start the optimiser's walk takes the weights is itself learned.

    Δ ← Δ + u                                   u the optimiser's own step; Δ its whole walk so far
    h = −⟨g, Δ⟩,  v_j ← β_j² v_j + h²,  σ_j ← β_j σ_j + h        g the gradient, Δ before the step
    s_j = s₀ erfi( σ_j / (√(2 v_j) + 10⁻⁸) ) / erfi(1/√2)        β = .9, .99, …, .999999
    θ = θ₀ + (Σ_j s_j) Δ

``trac_scale`` is s₀, 10⁻⁸ in the paper: the scale grows from there as soon as steps help. What else changes the weights from
outside (resets, clipping) lasts until the next step, which is reckoned from θ₀; so TRAC goes with what works by the gradient alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from purejaxrl_ext.interventions import moments
from purejaxrl_ext.interventions.base import Intervention
from purejaxrl_ext.types import Array, PyTree, hparam

DECAYS = tuple(1.0 - 10.0**-n for n in range(1, 7))
EPSILON = 1e-8
# ∫₀¹ of exp(x² t²) by as many points, which is exact to float32 for |x| ≤ LARGEST, beyond which exp overflows.
POINTS, LARGEST = 64, 9.0


class TracState(NamedTuple):
    """θ₀ and Δ as tuples of leaves (a tree of the parameters' structure would be taken for a moment), v and σ ``[6]``, and the
    optimiser's own state."""

    first: tuple[Array, ...]
    walk: tuple[Array, ...]
    variance: Array
    sigma: Array
    inner: PyTree


def erfi(x: Array) -> Array:
    """2/√π ∫₀ˣ exp(t²) dt = 2x/√π ∫₀¹ exp(x² t²) dt, by Gauss and Legendre; x within ± ``LARGEST``."""
    points, weights = np.polynomial.legendre.leggauss(POINTS)
    at = jnp.asarray((points + 1.0) / 2.0, jnp.float32).reshape((1,) * x.ndim + (-1,))
    x = jnp.clip(x, -LARGEST, LARGEST)
    return x / np.float32(np.sqrt(np.pi)) * (jnp.exp(jnp.square(x[..., None] * at)) @ jnp.asarray(weights, jnp.float32))


def tuned(optimizer: optax.GradientTransformation, scale: Array) -> optax.GradientTransformation:
    """TRAC around an optimiser."""

    def init(params: PyTree) -> TracState:
        leaves = tuple(jax.tree.leaves(params))
        zeros = jnp.zeros(len(DECAYS))
        return TracState(leaves, tuple(map(jnp.zeros_like, leaves)), zeros, zeros, optimizer.init(params))

    def update(grads: PyTree, state: TracState, params: PyTree = None) -> tuple[PyTree, TracState]:
        steps, inner = optimizer.update(grads, state.inner, params)
        decays = jnp.asarray(DECAYS, jnp.float32)
        products = [jnp.vdot(g, w) for g, w in zip(jax.tree.leaves(grads), state.walk, strict=True)]
        h = -functools.reduce(jnp.add, products)
        variance, sigma = jnp.square(decays) * state.variance + jnp.square(h), decays * state.sigma + h
        unit = erfi(sigma / (jnp.sqrt(2.0 * variance) + EPSILON)) / erfi(jnp.sqrt(jnp.full((1,), 0.5)))
        total = scale * unit.sum()
        walk = tuple(w + u for w, u in zip(state.walk, jax.tree.leaves(steps), strict=True))
        moved = [first + total * w for first, w in zip(state.first, walk, strict=True)]
        to = jax.tree.unflatten(jax.tree.structure(grads), moved)
        return jax.tree.map(jnp.subtract, to, params), TracState(state.first, walk, variance, sigma, inner)

    return optax.GradientTransformation(init, update)


def wrap(optimizer: Callable[..., Any]) -> Callable[..., Any]:
    """The optimiser of an algorithm, tuned."""
    return moments.around(optimizer, lambda inner, hparams: tuned(inner, hparams.trac_scale))


TRAC = Intervention("trac", {"trac_scale": hparam(1e-8, 0.0, open_low=True)}, optimizer=wrap)
