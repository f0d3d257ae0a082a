"""``evaluate``: whole episodes of one agent, as a pure function to jit and vmap."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.devices import isolated
from purejaxrl_ext.envs.base import settle
from purejaxrl_ext.errors import check
from purejaxrl_ext.types import Algorithm, Array, State


@isolated()
def evaluate(
    algorithm: Algorithm,
    state: State,
    key: Array,
    num_episodes: int = 32,
    greedy: bool = True,
    hparams: Any = None,
    max_steps: int | None = None,
) -> Array:
    """Undiscounted returns ``[num_episodes]`` of whole episodes, normaliser statistics frozen.

    Vmappable over states, with ``in_axes=prx.State.axes()``. Every episode starts from its own fresh state, so no long
    episode is missed; they run side by side until the last has ended.

    Args:
        algorithm: what trained the state.
        state: of one agent.
        key: the same key gives the same initial states.
        num_episodes: how many.
        greedy: the mode of the policy, or its samples.
        hparams: traced settings; None: ``algorithm.hparams``.
        max_steps: steps after which an episode is counted as it stands, where the environment's time limit does not come first;
            None: that limit, or 10,000.
    """
    check(num_episodes > 0, "num_episodes", num_episodes, "greater than 0")
    check(max_steps is None or max_steps > 0, "max_steps", max_steps, "None or greater than 0")
    limit = min(max_steps or algorithm.env.time_limit or 10_000, algorithm.env.time_limit or math.inf)
    hparams = algorithm.hparams if hparams is None else hparams
    return _evaluate(algorithm.loop, algorithm.env, num_episodes, greedy, int(limit), state, key, hparams)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _evaluate(
    loop: Any, env: Any, num_episodes: int, greedy: bool, limit: int, state: State, key: Array, hparams: Any
) -> Array:
    reset_key, key = jax.random.split(key)
    env_state, obs = jax.vmap(env.reset)(jax.random.split(reset_key, num_episodes))
    # Exploration is as at the end of training so far.
    env_steps = state.update.astype(jnp.float32) * loop.steps_per_update

    def going(carry: tuple) -> Array:
        time, *_, over, _ = carry
        return (time < limit) & ~jnp.all(over)

    def step(carry: tuple) -> tuple:
        time, env_state, obs, memory, over, total = carry
        noise_key, step_key = jax.random.split(jax.random.fold_in(key, time))
        noise = None if greedy else loop.noise(noise_key, (num_episodes,))
        acted = loop.act(state.params, state.normalizer, obs, noise, hparams, env_steps, memory)
        after = jax.vmap(env.step)(jax.random.split(step_key, num_episodes), env_state, acted.env_action)
        after = settle(env, after, time + 1)
        total = total + jnp.where(over, 0.0, after.score)
        over = over | after.terminated | after.truncated
        return time + 1, after.state, after.obs, acted.carry, over, total

    memory = loop.initial_carry(num_episodes)
    over, total = jnp.zeros(num_episodes, bool), jnp.zeros(num_episodes)
    start = (jnp.zeros((), jnp.int32), env_state, obs, memory, over, total)
    return jax.lax.while_loop(going, step, start)[-1]
