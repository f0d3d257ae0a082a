"""Wrong answers to notebook 06's exercises."""

import jax.numpy as jnp


def _not_normalised(belief, action, seen, transition, observation):
    return (belief @ transition[:, action]) * (observation == seen)


def _does_not_look(belief, action, seen, transition, observation):
    return belief @ transition[:, action]


def _looks_before_it_moves(belief, action, seen, transition, observation):
    ahead = (belief * (observation == seen)) @ transition[:, action]
    return ahead / jnp.maximum(ahead.sum(), 1e-6)


def _backwards(belief, action, seen, transition, observation):
    ahead = (transition[:, action] @ belief) * (observation == seen)
    return ahead / jnp.maximum(ahead.sum(), 1e-6)


def _stack(obs, start, size, first, newest_last=True):
    rows, row = [], []
    for now, begins in zip(obs, start, strict=True):
        row = first(now, size) if begins else [*row[1:], now]
        rows.append(jnp.concatenate(row if newest_last else row[::-1]))
    return jnp.stack(rows)


def _zeros_at_the_start(obs, start, size):
    return _stack(obs, start, size, lambda now, size: [jnp.zeros_like(now)] * (size - 1) + [now])


def _newest_first(obs, start, size):
    return _stack(obs, start, size, lambda now, size: [now] * size, newest_last=False)


def _across_episodes(obs, start, size):
    return _stack(obs, jnp.zeros_like(start).at[0].set(True), size, lambda now, size: [now] * size)


MISTAKES = {
    "belief_update": [_not_normalised, _does_not_look, _looks_before_it_moves, _backwards],
    "stack": [_zeros_at_the_start, _newest_first, _across_episodes],
}
