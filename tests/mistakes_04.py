"""Wrong answers to notebook 04's exercises."""

import jax
import jax.numpy as jnp


def _swapped(reward, next_q_online, next_q_target, terminated, gamma):
    value = next_q_online[jnp.arange(len(reward)), next_q_target.argmax(-1)]
    return reward + gamma * jnp.where(terminated, 0.0, value)


def _largest(reward, next_q_online, next_q_target, terminated, gamma):
    return reward + gamma * jnp.where(terminated, 0.0, next_q_target.max(-1))


def _always_bootstraps(reward, next_q_online, next_q_target, terminated, gamma):
    return reward + gamma * next_q_target[jnp.arange(len(reward)), next_q_online.argmax(-1)]


MISTAKES = {
    "epsilon_greedy": [
        lambda q, epsilon: (1.0 - epsilon) * jax.nn.one_hot(q.argmax(), len(q)),
        lambda q, epsilon: jnp.where(jnp.arange(len(q)) == q.argmax(), 1.0 - epsilon, epsilon / (len(q) - 1)),
        lambda q, epsilon: epsilon * jax.nn.one_hot(q.argmax(), len(q)) + (1.0 - epsilon) / len(q),
    ],
    "q_learning_target": [
        lambda reward, next_q, terminated, gamma: reward + gamma * next_q.max(-1),
        lambda reward, next_q, terminated, gamma: reward + gamma * jnp.where(terminated, 0.0, next_q.mean(-1)),
        lambda reward, next_q, terminated, gamma: jnp.where(terminated, 0.0, reward + next_q.max(-1)),
    ],
    "double_q_target": [_swapped, _largest, _always_bootstraps],
}
