"""Solutions of notebook 05's exercises."""

from __future__ import annotations

import jax.numpy as jnp


def reward_to_go(reward, gamma):
    total, out = 0.0, []
    for r in reward[::-1]:
        total = r + gamma * total
        out.append(total)
    return jnp.array(out[::-1])


def surrogate(ratio, advantage, clip_eps):
    clipped = jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)
    return jnp.minimum(ratio * advantage, clipped * advantage)


def gae(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    delta = reward + gamma * (1.0 - terminated) * next_value - value
    going = 1.0 - (terminated | truncated)
    later, out = 0.0, []
    for t in reversed(range(len(reward))):
        later = delta[t] + gamma * gae_lambda * going[t] * later
        out.append(later)
    return jnp.array(out[::-1])
