"""N environments side by side, with auto-reset from a pool of fresh initial states."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_ext.envs.base import Environment, first_step, settle
from purejaxrl_ext.types import Array, PyTree, VecState, abstract_key


class Pool(NamedTuple):
    """R fresh initial states, from which resets are served; ``()`` where the environment itself begins episodes (``renew``).

    A reset computed at every step and thrown away nearly always would cost more than many environments' step.
    """

    env_state: PyTree
    obs: Any


class Transition(struct.PyTreeNode):
    """What one step of N environments brought: ``obs`` and so on ``[N, ...]``; ``final_obs`` is the true next one."""

    reward: Array
    terminated: Array
    truncated: Array
    final_obs: Array
    finished_return: Array  # [N] the episode's return where it ended here, else 0
    finished_length: Array  # [N] its length where it ended here, else 0


def reset_pool(env: Environment, key: Array, size: int) -> Pool:
    """Draw ``size`` fresh initial states, where the environment needs them."""
    return Pool((), ()) if renews(env) else drawn_pool(env, key, size)


def renews(env: Environment) -> bool:
    """Whether the environment begins an episode by itself where one ended."""
    return getattr(env, "renew", None) is not None


def drawn_pool(env: Environment, key: Array, size: int) -> Pool:
    """``size`` fresh initial states."""
    return Pool(*jax.vmap(env.reset)(jax.random.split(key, size)))


def vec_reset(env: Environment, key: Array, num_envs: int) -> VecState:
    """N environments at the start of an episode."""
    env_state, obs = drawn_pool(env, key, num_envs)
    return VecState(env_state, obs, jnp.zeros(num_envs, jnp.float32), jnp.zeros(num_envs, jnp.int32))


def vec_step(
    env: Environment, keys: Array, state: VecState, action: Array, pool: Pool, num_resets: Array
) -> tuple[VecState, Transition, Array]:
    """Step N environments; one whose episode ended goes on from the next entry of the pool.

    Args:
        keys: ``[N]``.
        state: the environments.
        action: ``[N, ...]``, within bounds.
        pool: R initial states; simultaneous resets take distinct entries, and it wraps when exhausted.
        num_resets: int32 scalar, entries of the pool taken so far.

    Returns:
        the environments (``obs`` is the reset one where an episode ended), the transition, and ``num_resets``.
        If an episode terminates at its time limit, it terminated.
    """
    length = state.episode_length + 1
    step = settle(env, jax.vmap(env.step)(keys, state.env_state, action), length)
    returns = state.episode_return + step.score
    done = step.terminated | step.truncated

    taken = num_resets + jnp.cumsum(done, dtype=jnp.int32)

    def where_done(fresh: Array, going: Array) -> Array:
        return jnp.where(done.reshape(done.shape + (1,) * (going.ndim - 1)), fresh, going)

    transition = Transition(
        reward=step.reward,
        terminated=step.terminated,
        truncated=step.truncated,
        final_obs=step.obs,
        finished_return=jnp.where(done, returns, 0.0),
        finished_length=jnp.where(done, length, 0),
    )
    begun = _begun(env, step.state, pool, taken - 1)
    env_state, obs = jax.tree.map(where_done, tuple(begun), (step.state, step.obs))
    after = VecState(
        env_state=env_state,
        obs=obs,
        episode_return=jnp.where(done, 0.0, returns),
        episode_length=jnp.where(done, 0, length),
    )
    return after, transition, taken[-1]


def _begun(env: Environment, ended: PyTree, pool: Pool, entry: Array) -> Pool:
    """How the next episodes of N environments begin: by themselves, or from entries ``[N]`` of the pool."""
    renew, resume = (getattr(env, name, None) for name in ("renew", "resume"))
    if renew is not None:
        return Pool(*jax.vmap(renew)(ended))
    begun = jax.tree.map(lambda x: x[entry % pool.obs.shape[0]], pool)
    # What goes on from one episode to the next, such as which task it is.
    return begun if resume is None else Pool(*jax.vmap(resume)(ended, begun.env_state))


def default_pool_size(env: Environment, num_envs: int, env_steps: int) -> int:
    """Initial states to draw for so many steps over N environments: one per 4 steps, at least one per environment, and one
    for each episode that a time limit ends.

    More episodes may end, where they are shorter; then some begin alike (of which a sweep warns). An environment that begins
    episodes by itself has one for each step.
    """
    if renews(env):
        return env_steps
    by_limit = 0 if env.time_limit is None else num_envs * -(-env_steps // (num_envs * env.time_limit))
    return max(num_envs, env_steps // 4, by_limit)


def max_truncations(env: Environment, num_steps: int) -> int:
    """How often one environment can truncate within ``num_steps`` steps: ceil(T / L) with a time limit L only."""
    step = jax.eval_shape(first_step(env), abstract_key())
    if step.truncated is not None:
        return num_steps
    return 0 if env.time_limit is None else -(-num_steps // env.time_limit)
