"""Wrong answers to notebook 02's exercises."""

import jax.numpy as jnp


def _q(transition, reward, v, gamma):
    return jnp.sum(transition * (reward + gamma * v[None, None]), axis=-1)


def _no_terminal(transition, reward, terminal, v, gamma):
    return _q(transition, reward, v, gamma).max(-1)


def _mean(transition, reward, terminal, v, gamma):
    return _q(transition, reward, jnp.where(terminal, 0.0, v), gamma).mean(-1)


MISTAKES = {
    "bellman_backup": [_no_terminal, _mean],
    "greedy_actions": [
        lambda transition, reward, v, gamma: _q(transition, 0.0 * reward, v, gamma).argmax(-1),
        lambda transition, reward, v, gamma: _q(transition, reward, 0.0 * v, gamma).argmax(-1),
        lambda transition, reward, v, gamma: _q(transition, reward, v, 1.0).argmax(-1),
        lambda transition, reward, v, gamma: _q(transition, reward, v, gamma).argmin(-1),
    ],
    "discounted_visits": [
        lambda chain, initial, gamma: jnp.linalg.solve(jnp.eye(len(initial)) - gamma * chain, initial),
        lambda chain, initial, gamma: jnp.linalg.solve(jnp.eye(len(initial)) - gamma * chain.T, initial) * (1 - gamma),
        lambda chain, initial, gamma: jnp.linalg.solve(jnp.eye(len(initial)) - chain.T / 2, initial),
    ],
}
