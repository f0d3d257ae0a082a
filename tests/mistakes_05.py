"""Wrong answers to notebook 05's exercises."""

import jax.numpy as jnp

from purejaxrl_ext.rules import returns


def _of_next_step(reward, gamma):
    return jnp.append(_right(reward, gamma)[1:], 0.0)


def _whole_return(reward, gamma):
    return jnp.full(len(reward), _right(reward, gamma)[0])


def _discounted_from_the_start(reward, gamma):
    return gamma ** jnp.arange(len(reward)) * _right(reward, gamma)


def _right(reward, gamma):
    return returns.discounted_sum(reward, jnp.zeros(len(reward), bool), gamma)


def _clip_alone(ratio, advantage, clip_eps):
    return jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps) * advantage


def _larger(ratio, advantage, clip_eps):
    return jnp.maximum(ratio * advantage, _clip_alone(ratio, advantage, clip_eps))


def _smaller_ratio(ratio, advantage, clip_eps):
    return jnp.minimum(ratio, jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)) * advantage


def _to_minimise(ratio, advantage, clip_eps):
    return -jnp.minimum(ratio * advantage, _clip_alone(ratio, advantage, clip_eps))


def _bootstraps_at_the_end(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    delta = reward + gamma * next_value - value
    return returns.discounted_sum(delta, terminated | truncated, gamma * gae_lambda)


def _nothing_beyond_a_truncation(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    none = jnp.zeros_like(truncated)
    return returns.gae(reward, value, next_value, terminated | truncated, none, gamma, gae_lambda)


def _runs_on_into_the_next_episode(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    delta = returns.td_error(reward, value, next_value, terminated, gamma)
    return returns.discounted_sum(delta, jnp.zeros_like(truncated), gamma * gae_lambda)


def _without_gamma(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    delta = returns.td_error(reward, value, next_value, terminated, gamma)
    return returns.discounted_sum(delta, terminated | truncated, gae_lambda)


def _target(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    return returns.gae(reward, value, next_value, terminated, truncated, gamma, gae_lambda) + value


MISTAKES = {
    "reward_to_go": [_of_next_step, _whole_return, _discounted_from_the_start],
    "surrogate": [_clip_alone, _larger, _smaller_ratio, _to_minimise],
    "gae": [
        _bootstraps_at_the_end,
        _nothing_beyond_a_truncation,
        _runs_on_into_the_next_episode,
        _without_gamma,
        _target,
    ],
}
