"""Solutions of notebook 01's exercises."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def discounted_return(reward, gamma):
    return jnp.sum(gamma ** jnp.arange(len(reward)) * reward)


def returns_to_go(reward, terminated, gamma):
    def backward(later, now):
        reward, terminated = now
        total = reward + gamma * jnp.where(terminated, 0.0, later)
        return total, total

    return jax.lax.scan(backward, 0.0, (reward, terminated), reverse=True)[1]


def state_chain(transition, policy):
    return jnp.einsum("sa,sat->st", policy, transition)
