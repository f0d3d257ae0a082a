"""What the loops ask of a network, with a memory or without: one step of a rollout, and all of its steps at once.

    step      h_t, Output_t = f(h_{t−1} (1 − start_t), o_t)                 while acting
    sequence  the same for t = 0 … T − 1 from the rollout's first h         while learning

``start_t`` says that o_t is the first observation of an episode: the flag of the *previous* step's end. Learning begins each
pass with the hidden state that the rollout began with, so that at the parameters that acted it says what acting said.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.devices import launches_cost
from purejaxrl_ext.types import Array, Output, PyTree


class Samples(NamedTuple):
    """A rollout as minibatches draw from it: leaves ``[B, ...]`` of transitions, or ``[N, T, ...]`` of whole sequences.

    Attributes:
        batch: what the rule aims at.
        start: whether an episode starts; () without a memory.
        carry: ``[N, ...]`` hidden states at the sequences' first observations; () without a memory.
    """

    batch: PyTree
    start: Any = ()
    carry: PyTree = ()


class FeedForward(NamedTuple):
    """A flax module from observations ``[B, ...]`` to an Output: the carry is (), and ``start`` means nothing."""

    network: Any

    def init(self, key: Array, obs: Array) -> PyTree:
        return self.network.init(key, obs)

    def initial_carry(self, num_envs: int) -> PyTree:
        """(): nothing is remembered."""
        return ()

    def step(self, params: PyTree, carry: PyTree, obs: Array, start: Array) -> tuple[PyTree, Output]:
        return carry, self.network.apply(params, obs)

    @property
    def whole(self) -> Any:
        """The network where all of its Output is wanted; see :class:`~purejaxrl_ext.networks.actor_critic.ActorCritic`."""
        batched = launches_cost() and hasattr(self.network, "together")
        return self.network.clone(together=True) if batched else self.network

    def sequence(self, params: PyTree, carry: PyTree, obs: Array, start: Array) -> Output:
        """The Output of all steps ``[T, N, ...]``."""
        output = self.whole.apply(params, flatten(obs))
        return jax.tree.map(lambda x: x.reshape(*obs.shape[:2], *x.shape[1:]), output)

    def samples(self, batch: PyTree, start: Array, carry: PyTree) -> Samples:
        """Of a batch ``[T, N, ...]``: its T · N transitions."""
        return Samples(jax.tree.map(flatten, batch))

    def evaluate(self, params: PyTree, part: Samples) -> tuple[Output, PyTree]:
        """The Output on some samples, and the rule's batch of them; leaves ``[B, ...]``."""
        return self.whole.apply(params, part.batch.obs), part.batch


class Recurrent(NamedTuple):
    """A flax module ``(obs [T, N, ...], carry [N, ...], start [T, N]) -> (carry, Output)``, whose Output has leaves
    ``[T, N, ...]``, with ``initial_carry(num_envs)``: the hidden state before an episode's first observation, zeros.
    """

    network: Any

    @property
    def whole(self) -> Any:
        """The network."""
        return self.network

    def init(self, key: Array, obs: Array) -> PyTree:
        carry = self.initial_carry(obs.shape[0])
        return self.network.init(key, obs[None], carry, jnp.zeros((1, obs.shape[0]), bool))

    def initial_carry(self, num_envs: int) -> PyTree:
        return self.network.initial_carry(num_envs)

    def step(self, params: PyTree, carry: PyTree, obs: Array, start: Array) -> tuple[PyTree, Output]:
        carry, output = self.network.apply(params, obs[None], carry, start[None])
        return carry, jax.tree.map(lambda x: x[0], output)

    def sequence(self, params: PyTree, carry: PyTree, obs: Array, start: Array) -> Output:
        """The Output of all steps ``[T, N, ...]``, from the hidden state before the first."""
        return self.network.apply(params, obs, carry, start)[1]

    def samples(self, batch: PyTree, start: Array, carry: PyTree) -> Samples:
        """Of a batch ``[T, N, ...]``: its N sequences."""
        batch, start = jax.tree.map(lambda x: x.swapaxes(0, 1), (batch, start))
        return Samples(batch, start, carry)

    def evaluate(self, params: PyTree, part: Samples) -> tuple[Output, PyTree]:
        """The Output on some sequences, and the rule's batch of them; leaves ``[B, ...]``, time first."""
        batch, start = jax.tree.map(lambda x: x.swapaxes(0, 1), (part.batch, part.start))
        output = self.sequence(params, part.carry, batch.obs, start)
        return jax.tree.map(flatten, (output, batch))


def adapt(network: Any) -> FeedForward | Recurrent:
    """A network as the loops use it; one with ``initial_carry`` has a memory."""
    return Recurrent(network) if hasattr(network, "initial_carry") else FeedForward(network)


def flatten(x: Array) -> Array:
    """``[T, N, ...]`` to ``[T · N, ...]``."""
    return x.reshape(-1, *x.shape[2:])
