"""Action spaces, and where an observation keeps the mask of its legal actions.

A mask travels inside the observation, as entries after all others on its last axis, so that whatever keeps observations
(rollouts, replay, final observations, memories) keeps it: the environment's side appends it and the network's takes it off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Discrete:
    """Actions 0 … n − 1, int32 scalars."""

    n: int
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class MultiDiscrete:
    """Several discrete actions at once: int32 vectors, entry i in 0 … sizes[i] − 1."""

    sizes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an action."""
        return (len(self.sizes),)

    @property
    def n(self) -> int:
        """Choices of all entries together: logits side by side."""
        return sum(self.sizes)


@dataclass(frozen=True)
class Box:
    """Real vectors of ``shape`` between ``low`` and ``high`` (tuples of one number per entry; may be infinite)."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an action."""
        return (len(self.low),)

    @property
    def n(self) -> int:
        """Entries of an action."""
        return len(self.low)


def mask_width(lead: tuple[int, ...], num_actions: int) -> int:
    """Entries of the last axis that a mask of ``num_actions`` takes, behind axes ``lead``: 1 more plane of an image, or more."""
    return -(-num_actions // math.prod(lead))


def append_mask(obs: jax.Array, legal: jax.Array) -> jax.Array:
    """An observation with the mask of its legal actions, as a network of masked actions sees it.

    Args:
        obs: ``[...]`` of any shape; a scalar counts as ``[1]``.
        legal: ``[A]`` bool.

    Returns:
        ``[..., D + P]`` in the dtype of ``obs``: P entries more, which hold the mask row by row, then zeros.
    """
    obs = obs if obs.ndim else obs[None]
    lead = obs.shape[:-1]
    width = mask_width(lead, legal.shape[0])
    padded = jnp.pad(legal, (0, math.prod(lead) * width - legal.shape[0]))
    return jnp.concatenate([obs, padded.reshape(*lead, width).astype(obs.dtype)], axis=-1)


def split_mask(obs: jax.Array, num_actions: int, batch_axes: int = 1) -> tuple[jax.Array, jax.Array]:
    """Observations as they were, and the masks ``[B, A]`` bool that :func:`append_mask` put there.

    Args:
        obs: ``[B, ..., D + P]``.
        num_actions: A.
        batch_axes: how many axes come before those of one observation.
    """
    lead = obs.shape[batch_axes:-1]
    width = mask_width(lead, num_actions)
    flat = obs[..., -width:].reshape(*obs.shape[:batch_axes], -1)
    return obs[..., :-width], flat[..., :num_actions] > 0


def uniform_legal(unit: jax.Array, legal: jax.Array) -> jax.Array:
    """A legal action ``[...]`` int32, each as likely as the others, from uniform numbers ``[...]`` in [0, 1)."""
    rank = jnp.cumsum(legal, axis=-1, dtype=jnp.int32)
    count = rank[..., -1]
    nth = jnp.minimum((unit * count).astype(jnp.int32), count - 1)
    return jnp.argmax(rank > nth[..., None], axis=-1).astype(jnp.int32)
