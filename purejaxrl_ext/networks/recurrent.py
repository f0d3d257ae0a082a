"""Networks with a memory, which take sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from purejaxrl_ext.networks.actor_critic import ActorCritic
from purejaxrl_ext.networks.init import initializers
from purejaxrl_ext.networks.q_network import QNetwork
from purejaxrl_ext.networks.structure import Layer, torso_layers
from purejaxrl_ext.networks.torsos import Torso
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
        bias = self.param("bias", inner["bias_init"], (3 * size,), jnp.float32)
        projected = x @ self.param("input_kernel", _by_gate(inner["kernel_init"], 3), shape) + bias[None, None]
        kernel = self.param("hidden_kernel", _by_gate(inner["kernel_init"], 3), (size, 3 * size))
        candidate_bias = self.param("candidate_bias", inner["bias_init"], (size,), jnp.float32)

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

    def initial_carry(self, num_envs: int) -> Array:
        """The hidden state before an episode's first observation ``[N, H]``."""
        return jnp.zeros((num_envs, self.size), jnp.float32)


class LSTM(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; with the forget gate of Gers et al. 2000).

    i, f, o = σ(W x + b + U h) of their own each,  g = W_g x + b_g + U_g h
    c ← f c + i tanh(g)
    h ← o tanh(c)
    """

    size: int
    initializer: str = "orthogonal"

    @nn.compact
    def __call__(self, x: Array, carry: tuple[Array, Array], start: Array) -> tuple[PyTree, Array, Array]:
        """A sequence ``[T, N, F]`` from ``carry`` (c, h), each ``[N, H]``, as :class:`GRU` has it.

        Returns:
            c and h after it, h after each step ``[T, N, H]``, and the pre-activations that made it, i's, f's, g and o's side
            by side, ``[T, N, 4H]``.
        """
        size, shape = self.size, (x.shape[-1], 4 * self.size)
        inner = initializers(self.initializer, size, 1.0)
        bias = self.param("bias", inner["bias_init"], (4 * size,), jnp.float32)
        projected = x @ self.param("input_kernel", _by_gate(inner["kernel_init"], 4), shape) + bias[None, None]
        kernel = self.param("hidden_kernel", _by_gate(inner["kernel_init"], 4), (size, 4 * size))

        def step(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple, tuple]:
            x_t, start_t = now
            cell, hidden = (jnp.where(start_t[:, None], 0.0, part) for part in carry)
            gates = x_t + hidden @ kernel
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return (cell, hidden), (hidden, gates)

        last, (hidden, preactivations) = jax.lax.scan(step, carry, (projected, start))
        return last, hidden, preactivations

    def initial_carry(self, num_envs: int) -> tuple[Array, Array]:
        """c and h before an episode's first observation, each ``[N, H]``."""
        zeros = jnp.zeros((num_envs, self.size), jnp.float32)
        return zeros, zeros


# Memories by name; each is a module ``(size, initializer)`` as :class:`GRU`.
MEMORIES: dict[str, Any] = {"gru": GRU, "lstm": LSTM}


def _by_gate(init: Callable[..., Array], num_gates: int) -> Callable[..., Array]:
    """Each gate's matrix drawn on its own."""

    def draw(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        keys = jax.random.split(key, num_gates)
        return jnp.concatenate([init(k, (shape[0], shape[1] // num_gates), dtype) for k in keys], axis=-1)

    return draw


def remember(
    torso: Callable[[Array], Representation], memory: Any, obs: Array, carry: PyTree, start: Array
) -> tuple[PyTree, Representation]:
    """Hidden layers, then a memory, on a sequence: the carry after it, and the Representation with leaves ``[T · N, ...]``.

    The last features are the hidden states, and the last pre-activations all of those of gates and candidate, since they
    determine it: what drifts there, PFO's penalty sees.
    """
    below = torso(obs.reshape(-1, *obs.shape[2:]))
    carry, hidden, preactivations = memory(below.features.reshape(*obs.shape[:2], -1), carry, start)
    hidden, preactivations = (x.reshape(-1, x.shape[-1]) for x in (hidden, preactivations))
    return carry, Representation(hidden, (*below.preactivations, preactivations), "tanh")


def _layers_below(params: PyTree, torsos: dict[str, Torso]) -> tuple[Layer, ...]:
    """The hidden layers below the memory of each part, whose outgoing weights are its input's."""
    found: list[Layer] = []
    for part, torso in torsos.items():
        outgoing = [("params", f"{part}_memory", "input_kernel")]
        found += torso_layers(params, part, f"{part}_torso", outgoing, torso.activation)
    return tuple(found)


def _unflatten(output: Output, lead: tuple[int, ...]) -> Output:
    return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), output)


class RecurrentActorCritic(ActorCritic):
    """A policy and a state value that remember: hidden layers, then a memory each, then the heads.

    Observations are sequences ``[T, N, ...]``, as :class:`~purejaxrl_ext.loops.memory.Recurrent` has them; for the
    Representations see :func:`remember`.

    Attributes:
        memory: a name in ``MEMORIES``.
        memory_size: units.
    """

    memory: str = "gru"
    memory_size: int = 64

    def layers(self, params: PyTree) -> tuple[Layer, ...]:
        """The hidden layers below the memory."""
        return _layers_below(params, {part: self.torso_of(part) for part in self.parts})

    def initial_carry(self, num_envs: int) -> dict[str, PyTree]:
        """The hidden states before an episode's first observation, by part."""
        memory = MEMORIES[self.memory](self.memory_size, parent=None)
        return {part: memory.initial_carry(num_envs) for part in self.parts}

    @nn.compact
    def __call__(self, obs: Array, carry: dict[str, PyTree], start: Array) -> tuple[dict[str, PyTree], Output]:  # type: ignore[override]
        after, seen = {}, []
        for part in self.parts:
            torso = self.torso_of(part).clone(parent=self, name=f"{part}_torso")
            memory = MEMORIES[self.memory](self.memory_size, self.initializer, name=f"{part}_memory")
            after[part], representation = remember(torso, memory, obs, carry[part], start)
            seen.append(representation)
        return after, _unflatten(self._heads(seen[0], seen[-1]), obs.shape[:2])


class RecurrentQNetwork(QNetwork):
    """Action values that remember: hidden layers, a memory, and the heads; as :class:`RecurrentActorCritic`.

    Attributes:
        memory: a name in ``MEMORIES``.
        memory_size: units.
    """

    memory: str = "gru"
    memory_size: int = 64

    def layers(self, params: PyTree) -> tuple[Layer, ...]:
        """The hidden layers below the memory."""
        return _layers_below(params, {"critic": self.torso})

    def initial_carry(self, num_envs: int) -> PyTree:
        """The hidden state before an episode's first observation."""
        return MEMORIES[self.memory](self.memory_size, parent=None).initial_carry(num_envs)

    @nn.compact
    def __call__(self, obs: Array, carry: PyTree, start: Array) -> tuple[PyTree, Output]:  # type: ignore[override]
        torso = self.torso.clone(parent=self, name="critic_torso")
        memory = MEMORIES[self.memory](self.memory_size, self.initializer, name="critic_memory")
        carry, critic = remember(torso, memory, obs, carry, start)
        return carry, _unflatten(self._heads(critic), obs.shape[:2])
