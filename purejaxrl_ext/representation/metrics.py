"""Representation metrics: how rich, how alive and how large a network's features are (Moalla et al. 2024, section 2 and
appendix). Pure functions of a batch of features Φ ``[N, F]``, not centred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.networks import policies
from purejaxrl_ext.types import Array, Metrics, Output, Representation

RANKS = ("rank", "effective_rank", "srank", "feature_rank", "numerical_rank")


@jax.custom_batching.sequential_vmap
def singular_values(features: Array) -> Array:
    """σ ``[F]`` of Φ ``[N, F]``, N ≥ F, largest first: those of R in Φ = QR, which is small.

    Not from ΦᵀΦ, which costs half the digits: a collapsed Φ would get a tail of noise. One after another under vmap, since
    batched factorisations can hang (see ``networks.orthogonal``).
    """
    return jnp.linalg.svd(jnp.linalg.qr(features, mode="r"), compute_uv=False)


def pca_rank(sigma: Array) -> Array:
    """The smallest k with Σ_{i≤k} σ_i² ≥ 0.99 Σ σ_i²: the headline rank (0 for Φ = 0)."""
    return _smallest_k(jnp.square(sigma))


def srank(sigma: Array) -> Array:
    """The smallest k with Σ_{i≤k} σ_i ≥ 0.99 Σ σ_i (Kumar et al. 2021, eq. 3)."""
    return _smallest_k(sigma)


def effective_rank(sigma: Array) -> Array:
    """exp(H(p)), p = σ / Σσ, 0 · log 0 = 0 (Roy & Vetterli 2007)."""
    p = sigma / jnp.maximum(sigma.sum(), jnp.finfo(sigma.dtype).tiny)
    return jnp.exp(-jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0)))


def feature_rank(sigma: Array, num_samples: int) -> Array:
    """#{σ / √N > 0.01} (Lyle et al. 2022, section 3)."""
    return jnp.sum(sigma / np.sqrt(num_samples) > 0.01).astype(jnp.float32)


def numerical_rank(sigma: Array, shape: tuple[int, int]) -> Array:
    """#{σ > σ_max · max(N, F) · ε}, the rule of ``numpy.linalg.matrix_rank``."""
    return jnp.sum(sigma > sigma.max() * max(shape) * jnp.finfo(sigma.dtype).eps).astype(jnp.float32)


def dead_units(features: Array, activation: str) -> Array:
    """How many units say nothing on this batch ``[N, F]``.

    ReLU: exactly 0 on every sample; leaky ReLU: negative on every sample; tanh and other smooth ones: their standard
    deviation over the batch is below 0.001.
    """
    if activation == "relu":
        dead = jnp.all(features == 0, axis=0)
    elif activation == "leaky_relu":
        dead = jnp.all(features < 0, axis=0)
    else:
        dead = jnp.std(features, axis=0) < 0.001
    return dead.sum().astype(jnp.float32)


def preactivation_norm(preactivation: Array) -> Array:
    """Mean over samples of the Euclidean norm of ``[N, F]`` pre-activations."""
    return jnp.linalg.norm(preactivation, axis=-1).mean()


def representation_metrics(representation: Representation) -> Metrics:
    """All of the above for one network's last hidden layer; the ranks are NaN where N < F, as they mean nothing there."""
    features = representation.features
    num_samples, width = features.shape
    ranks: Metrics = dict.fromkeys(RANKS, jnp.full((), jnp.nan))
    if num_samples >= width:
        sigma = singular_values(features)
        ranks = {
            "rank": pca_rank(sigma),
            "effective_rank": effective_rank(sigma),
            "srank": srank(sigma),
            "feature_rank": feature_rank(sigma, num_samples),
            "numerical_rank": numerical_rank(sigma, (num_samples, width)),
        }
    return ranks | {
        "dead_units": dead_units(features, representation.activation),
        "preactivation_norm": preactivation_norm(representation.preactivations[-1]),
    }


def output_metrics(output: Output) -> Metrics:
    """:func:`representation_metrics` of the actor and the critic, prefixed by which, and the policy's variance."""
    return outputs_metrics({"": output})


def outputs_metrics(outputs: Mapping[str, Output]) -> Metrics:
    """:func:`output_metrics` of several outputs, by the suffix of their metrics' names.

    What is alike in shape goes through one computation side by side, which compiles in a fraction of the time of several."""
    alike: dict[Any, list[tuple[str, str, Representation]]] = {}
    metrics: Metrics = {}
    for suffix, output in outputs.items():
        for name, part in (("actor", output.actor), ("critic", output.critic)):
            if isinstance(part, Representation):
                kind = (part.features.shape, part.preactivations[-1].shape, part.activation)
                alike.setdefault(kind, []).append((name, suffix, part))
        if output.policy != ():
            metrics[f"policy_variance{suffix}"] = policies.variance(output.policy)
    for parts in alike.values():
        last = [part.replace(preactivations=part.preactivations[-1:]) for _, _, part in parts]
        found = jax.vmap(representation_metrics)(jax.tree.map(lambda *x: jnp.stack(x), *last))
        for i, (name, suffix, _) in enumerate(parts):
            metrics |= {f"{name}_{k}{suffix}": v[i] for k, v in found.items()}
    return metrics


def _smallest_k(mass: Array) -> Array:
    total = mass.sum()
    enough = jnp.cumsum(mass) >= 0.99 * total
    return jnp.where(total > 0, jnp.argmax(enough) + 1, 0).astype(jnp.float32)
