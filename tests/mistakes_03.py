"""Wrong answers to notebook 03's exercises."""

import jax.numpy as jnp

from purejaxrl_ext.rules import returns


def _always_bootstraps(v, state, reward, next_state, terminated, alpha, gamma):
    return v.at[state].add(alpha * (reward + gamma * v[next_state] - v[state]))


def _other_way(v, state, reward, next_state, terminated, alpha, gamma):
    return v.at[state].add(alpha * (v[state] - reward - gamma * jnp.where(terminated, 0.0, v[next_state])))


def _successor(v, state, reward, next_state, terminated, alpha, gamma):
    return v.at[next_state].add(alpha * (reward + gamma * jnp.where(terminated, 0.0, v[next_state]) - v[state]))


def _never_ends(reward, next_value, terminated, gamma, lambda_):
    none = jnp.zeros_like(terminated)
    return returns.lambda_return(reward, next_value, none, none, gamma, lambda_)


def _shifted(reward, next_value, terminated, gamma, lambda_):
    ends = terminated, jnp.zeros_like(terminated)
    return returns.lambda_return(reward, jnp.roll(next_value, 1), *ends, gamma, lambda_)


def _other_lambda(reward, next_value, terminated, gamma, lambda_):
    return returns.lambda_return(reward, next_value, terminated, jnp.zeros_like(terminated), gamma, 1.0 - lambda_)


MISTAKES = {
    "td_update": [_always_bootstraps, _other_way, _successor],
    "lambda_return": [_never_ends, _shifted, _other_lambda],
}
