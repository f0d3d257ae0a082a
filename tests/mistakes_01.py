"""Wrong answers to notebook 01's exercises."""

import jax.numpy as jnp

from purejaxrl_ext.rules import returns

MISTAKES = {
    "discounted_return": [
        lambda reward, gamma: jnp.sum(reward),
        lambda reward, gamma: jnp.sum(gamma ** (1 + jnp.arange(len(reward))) * reward),
        lambda reward, gamma: -jnp.sum(gamma ** jnp.arange(len(reward)) * reward),
        lambda reward, gamma: gamma ** jnp.arange(len(reward)) * reward,
    ],
    "returns_to_go": [
        lambda reward, terminated, gamma: returns.discounted_sum(reward, jnp.zeros_like(terminated), gamma),
        lambda reward, terminated, gamma: returns.discounted_sum(reward, jnp.roll(terminated, -1), gamma),
        lambda reward, terminated, gamma: returns.discounted_sum(reward[::-1], terminated, gamma)[::-1],
    ],
    "state_chain": [
        lambda transition, policy: transition.mean(1),
        lambda transition, policy: jnp.einsum("sa,sat->ts", policy, transition),
        lambda transition, policy: transition[jnp.arange(len(policy)), policy.argmax(1)],
    ],
}
