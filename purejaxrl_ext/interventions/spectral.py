"""Spectral regularisation (Lewandowski et al. 2024, arXiv 2406.06811): the largest singular value of a hidden layer stays near 1.

    L ← L + λ Σ_l (σ₁(W_l)² − 1)²

σ₁ = vᵀ W u by power iteration, one after each step of the optimiser (Miyato et al. 2018), u and v held fixed in the gradient.
``spectral_coef`` is λ. The paper draws biases to 0 besides, which :mod:`~purejaxrl_ext.interventions.l2` can.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.interventions.base import Context, Intervention
from purejaxrl_ext.networks.structure import get, put
from purejaxrl_ext.types import Array, Learner, Metrics, Net, PyTree, hparam

FIRST_ITERATIONS = 5


def begin(key: Array, params: PyTree) -> PyTree:
    """u ``[units]`` of every weight of two axes or more."""

    def first(w: Array) -> Array:
        if w.ndim < 2:
            return ()  # type: ignore[return-value]
        u = jax.random.normal(key, w.shape[-1:])
        for _ in range(FIRST_ITERATIONS):
            u = iterate(w, u)[1]
        return u

    return jax.tree.map(first, params)


def penalty(
    net: Net, params: PyTree, memory: PyTree, part: PyTree, other: PyTree, hparams: Any
) -> tuple[Array, Metrics]:
    """λ Σ_l (σ₁(W_l)² − 1)²."""
    total = jnp.zeros(())
    for layer in net.layers(params):
        w = get(params, layer.kernel)
        total += jnp.square(jnp.square(largest(w, get(memory, layer.kernel))) - 1.0)
    return hparams.spectral_coef * total, {}


def follow(net: Net, learner: Learner, context: Context) -> Learner:
    """One power iteration on the new weights."""
    memory = learner.memory
    for layer in net.layers(learner.params):
        u = iterate(get(learner.params, layer.kernel), get(memory, layer.kernel))[1]
        memory = put(memory, layer.kernel, u)
    return learner.replace(memory=memory)


def iterate(kernel: Array, u: Array) -> tuple[Array, Array]:
    """v = W u / ‖W u‖ and the next u = Wᵀ v / ‖Wᵀ v‖ of ``[..., units]``."""
    w = kernel.reshape(-1, kernel.shape[-1])
    v = w @ u
    v = v / (jnp.linalg.norm(v) + 1e-12)
    u = v @ w
    return v, u / (jnp.linalg.norm(u) + 1e-12)


def largest(kernel: Array, u: Array) -> Array:
    """σ₁ as u says; its gradient is v uᵀ."""
    v, u = jax.lax.stop_gradient(iterate(kernel, u))
    return v @ kernel.reshape(-1, kernel.shape[-1]) @ u


SPECTRAL = Intervention("spectral", {"spectral_coef": hparam(1e-3, 0.0)}, init=begin, penalty=penalty, each=follow)
