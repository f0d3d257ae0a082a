"""Networks with a memory, which take sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from purejaxrl_ext.networks.actor_critic import ActorCritic
from purejaxrl_ext.networks.init import initializers
from purejaxrl_ext.networks.structure import Layer, torso_layers
from purejaxrl_ext.types import Array, Output, PyTree, Representation


class GRU(nn.Module):
    """Gated recurrent units (Cho et al. 2014), as flax and cuDNN have them: the reset gate after the recurrent product.

        r = σ(W_r x + b_r + U_r h),  z = σ(W_z x + b_z + U_z h)
        n = W_n x + b_n + r (U_n h + c)
        h ← (1 − z) tanh(n) + z h

    The W x of a whole sequence are one matrix product, so that a step costs one more, U h.
    """

    size: int
    initializer: str = "orthogonal"

    @nn.compact
    def __call__(self, x: Array, carry: Array, start: Array) -> tuple[Array, Array, Array]:
        """A sequence ``[T, N, F]`` from ``carry [N, H]``, which is set to 0 before each step where ``start [T, N]``.

        Returns:
            the hidden state after it ``[N, H]``, those after each step ``[T, N, H]``, and the pre-activations that made
            each, r's, z's and n side by side, ``[T, N, 3H]``.
        """
        size, shape = self.size, (x.shape[-1], 3 * self.size)
        inner = initializers(self.initializer, size, 1.0)
        bias = self.param("bias", inner["bias_init"], (3 * size,))
        projected = x @ self.param("input_kernel", _by_gate(inner["kernel_init"]), shape) + bias[None, None]
        kernel = self.param("hidden_kernel", _by_gate(inner["kernel_init"]), (size, 3 * size))
        candidate_bias = self.param("candidate_bias", inner["bias_init"], (size,))

        def step(hidden: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            x_t, start_t = now
            hidden = jnp.where(start_t[:, None], 0.0, hidden)
            recurrent = hidden @ kernel
            gates = x_t[:, : 2 * size] + recurrent[:, : 2 * size]
            r, z = jnp.split(jax.nn.sigmoid(gates), 2, axis=-1)
            n = x_t[:, 2 * size :] + r * (recurrent[:, 2 * size :] + candidate_bias[None])
            hidden = (1.0 - z) * jnp.tanh(n) + z * hidden
            return hidden, (hidden, jnp.concatenate([gates, n], axis=-1))

        last, (hidden, preactivations) = jax.lax.scan(step, carry, (projected, start))
        return last, hidden, preactivations


def _by_gate(init: Callable[..., Array]) -> Callable[..., Array]:
    """Each of three gates' matrices drawn on its own."""

    def draw(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        keys = jax.random.split(key, 3)
        return jnp.concatenate([init(k, (shape[0], shape[1] // 3), dtype) for k in keys], axis=-1)

    return draw


class RecurrentActorCritic(ActorCritic):
    """A policy and a state value that remember: hidden layers, then a :class:`GRU` each, then the heads.

    Observations are sequences ``[T, N, ...]``, as :class:`~purejaxrl_ext.loops.memory.Recurrent` has them. The last features are
    the hidden states, and the last pre-activations all of those of gates and candidate, since they determine it: what
    drifts there, PFO's penalty sees.

    Attributes:
        memory_size: units.
    """

    memory_size: int = 64

    def layers(self, params: PyTree) -> tuple[Layer, ...]:
        """The hidden layers below the memory, whose outgoing weights are its input's."""
        found: list[Layer] = []
        for part in self.parts:
            outgoing = [("params", f"{part}_memory", "input_kernel")]
            found += torso_layers(params, part, f"{part}_torso", outgoing, self.torso.activation)
        return tuple(found)

    def initial_carry(self, num_envs: int) -> dict[str, Array]:
        return {part: jnp.zeros((num_envs, self.memory_size)) for part in self.parts}

    @nn.compact
    def __call__(self, obs: Array, carry: dict[str, Array], start: Array) -> tuple[dict[str, Array], Output]:  # type: ignore[override]
        lead = obs.shape[:2]
        after, seen = {}, []
        for part in self.parts:
            below = self.torso.clone(parent=self, name=f"{part}_torso")(obs.reshape(-1, *obs.shape[2:]))
            gru = GRU(self.memory_size, self.initializer, name=f"{part}_memory")
            features = below.features.reshape(*lead, -1)
            after[part], hidden, preactivations = gru(features, carry[part], start)
            hidden, preactivations = (x.reshape(-1, x.shape[-1]) for x in (hidden, preactivations))
            seen.append(Representation(hidden, (*below.preactivations, preactivations), "tanh"))
        output = self._heads(seen[0], seen[-1])
        return after, jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), output)
