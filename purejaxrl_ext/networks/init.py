"""Initialisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.types import Array

INITIALIZERS = ("orthogonal", "fan_in", "he_normal")


def orthogonal(scale: float) -> Callable[..., Array]:
    """Orthogonal initialiser (Saxe et al. 2014), one seed's QR factorisation after another under vmap.

    jaxlib 0.10.2 can hang on a machine of few cores in batched QR: each waits for its own sub-tasks on a pool of as many
    threads as cores.
    """

    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        @jax.custom_batching.sequential_vmap
        def draw(data: Array) -> Array:
            return jax.nn.initializers.orthogonal(scale)(jax.random.wrap_key_data(data, impl=impl), shape, dtype)

        impl = jax.random.key_impl(key)
        return draw(jax.random.key_data(key))

    return init


def fan_in_uniform(fan_in: int) -> Callable[..., Array]:
    """U(−1/√fan_in, 1/√fan_in), for weights and biases (PyTorch's default, and so the PFO paper's)."""
    bound = 1.0 / np.sqrt(fan_in)

    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def initializers(kind: str, fan_in: int, scale: float) -> dict[str, Any]:
    """Weight and bias initialisers; ``scale`` is that of the orthogonal and the normal kind, the other has none.

    "he_normal" is a normal, cut at two deviations, of standard deviation scale/√fan_in: with a hidden layer's √2 that of He et
    al. 2015 (eq. 10), with a head's 1 that of LeCun et al. 1998, as PQN's code has them. Biases are 0, but for "fan_in".
    """
    zeros = nn.initializers.zeros_init()
    if kind == "orthogonal":
        return {"kernel_init": orthogonal(scale), "bias_init": zeros}
    if kind == "he_normal":
        return {
            "kernel_init": nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal"),
            "bias_init": zeros,
        }
    return {"kernel_init": fan_in_uniform(fan_in), "bias_init": fan_in_uniform(fan_in)}
