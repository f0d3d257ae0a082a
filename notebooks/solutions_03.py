"""Solutions of notebook 03's exercises."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def td_update(v, state, reward, next_state, terminated, alpha, gamma):
    delta = reward + gamma * jnp.where(terminated, 0.0, v[next_state]) - v[state]
    return v.at[state].add(alpha * delta)


def lambda_return(reward, next_value, terminated, gamma, lambda_):
    def backward(later, now):
        reward, next_value, terminated = now
        goes_on = (1.0 - lambda_) * next_value + lambda_ * later
        total = reward + gamma * jnp.where(terminated, 0.0, goes_on)
        return total, total

    # After the last step follows its value: G_T = V(S_T).
    return jax.lax.scan(backward, next_value[-1], (reward, next_value, terminated), reverse=True)[1]
