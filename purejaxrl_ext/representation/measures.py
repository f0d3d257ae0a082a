"""Measures of an update for ``metrics=``: of its units and of its weights, layer by layer. Those of features are in ``metrics``.

    prx.make("ppo", "CartPole-v1", metrics=(measures.units, measures.weights, churn.update_churn))

Each is of the end of the update, on its sample of the update's data, and by network: ``actor_``, ``critic_`` or ``shared_``.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from purejaxrl_ext.networks.structure import get, unit_outputs
from purejaxrl_ext.types import Array, Metrics, Net, PyTree, Representation

POWER_ITERATIONS = 30


def scores(said: Array) -> Array:
    """s_i = E|h_i| / mean_j E|h_j| ``[F]`` of what units said ``[B, P, F]`` (Sokar et al. 2023, eq. 1); 0 where all are silent."""
    loudness = jnp.abs(said).mean((0, 1))
    return loudness / (loudness.mean() + 1e-9)


def linearised(said: Array, activation: str) -> Array:
    """``[F]``: whether a ReLU is on, or a leaky ReLU on one side, for all of ``[B, P, F]``: its unit is a linear one (Lyle et al.
    2024, arXiv 2402.18762). NaN of others, which are linear nowhere."""
    on, off = (said > 0).all((0, 1)), (said < 0).all((0, 1))
    kinds = {"relu": on, "leaky_relu": on | off}
    return kinds.get(activation, jnp.full(on.shape, jnp.nan)).astype(jnp.float32)


def units(net: Net, before: PyTree, after: PyTree, samples: PyTree, hparams: Any) -> Metrics:
    """Shares of all hidden units: ``dormant_025`` and ``dormant_100``, whose score is at most 0.025 and 0.1; ``linearised``. And
    ``feature_norm``, the mean length of the last features."""
    output, found = net.evaluate(after, samples)[0], net.layers(after)
    shares: dict[str, list[Array]] = {}
    for layer, said in zip(found, unit_outputs(output, found, after), strict=True):
        score = scores(said)
        for name, share in (
            ("dormant_025", (score <= 0.025).astype(jnp.float32)),
            ("dormant_100", (score <= 0.1).astype(jnp.float32)),
            ("linearised", linearised(said, layer.activation)),
        ):
            shares.setdefault(f"{layer.network}_{name}", []).append(share)
    logged = {name: jnp.concatenate(parts).mean() for name, parts in shares.items()}
    for network, part in (("actor", output.actor), ("critic", output.critic)):
        if isinstance(part, Representation):
            logged[f"{network}_feature_norm"] = jnp.linalg.norm(part.features, axis=-1).mean()
    return logged


def weights(net: Net, before: PyTree, after: PyTree, samples: PyTree, hparams: Any) -> Metrics:
    """Of each hidden layer l: ``<l>_orthogonality`` ‖WᵀW − I‖_F and ``<l>_spectral_norm`` σ₁, by power iteration."""
    logged = {}
    for layer in net.layers(after):
        w = get(after, layer.kernel)
        w, name = w.reshape(-1, w.shape[-1]), f"{layer.network}_{layer.depth}"
        logged[f"{name}_orthogonality"] = jnp.linalg.norm((w.T @ w - jnp.eye(w.shape[-1])).ravel())
        logged[f"{name}_spectral_norm"] = spectral_norm(w)
    return logged


def spectral_norm(w: Array) -> Array:
    """σ₁ of ``[inputs, units]``, from below. No SVD: batched factorisations can hang (see ``metrics.singular_values``)."""
    # A start that is unlikely to be at a right angle to the first singular vector, and the same always.
    u = jnp.cos(jnp.arange(w.shape[-1], dtype=w.dtype))
    for _ in range(POWER_ITERATIONS):
        u = (w @ u) @ w
        u = u / (jnp.linalg.norm(u) + 1e-30)
    return jnp.linalg.norm(w @ u)
