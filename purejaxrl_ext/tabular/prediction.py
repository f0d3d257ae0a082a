"""Estimating values from trajectories: Monte Carlo, TD(0), n-step TD and TD(λ) (Sutton & Barto 2018, chapters 5 to 7, 9, 12).

    V(S_t) ← V(S_t) + α [G_t − V(S_t)]

with G_t of :mod:`~purejaxrl_ext.rules.returns`: ``n_step_return`` (n = 1: TD(0); n ≥ T: constant-α Monte Carlo) or
``lambda_return``.

v or q: state–action pairs are themselves the states of a Markov reward process (section 6.4), so :func:`pairs` turns a trajectory
into one whose "states" they are, and every function here then estimates q_π: with Q(s', a') for bootstrap, as in SARSA.

Tables here; with any function V(obs; w), :func:`semi_gradient` and :func:`residual_gradient`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_ext.envs.base import Environment
from purejaxrl_ext.envs.mdps import MDP, draw
from purejaxrl_ext.rules import returns
from purejaxrl_ext.types import Array, PyTree

Target = Callable[[Array, Array, Array, Array], Array]  # (reward, next_value, terminated, truncated) -> G
Measure = Callable[[Array], PyTree]


class Trajectory(struct.PyTreeNode):
    """Steps of one agent under one policy; leaves ``[T]``, or ``[E, T]`` for E episodes.

    Attributes:
        state, action: int32, where and what.
        reward: float32.
        next_state, next_action: where it led to, also at an episode's end, and the action that the policy takes there.
        terminated, truncated: bool, as in :mod:`purejaxrl_ext.rules.returns`.
        mask: bool, False on the padding after an episode's end.
    """

    state: Array
    action: Array
    reward: Array
    next_state: Array
    next_action: Array
    terminated: Array
    truncated: Array
    mask: Array


# ---------------------------------------------------------------------------------------------------------------------
# Trajectories
# ---------------------------------------------------------------------------------------------------------------------


def sample_stream(key: Array, mdp: MDP, policy: Array, num_steps: int) -> Trajectory:
    """``num_steps`` steps ``[T]`` under ``policy [S, A]``, episode after episode; the last one is left unfinished."""
    return _sample(key, mdp, policy, num_steps, restart=True)


def sample_episodes(key: Array, mdp: MDP, policy: Array, num_episodes: int, max_steps: int) -> Trajectory:
    """Whole episodes ``[E, T]``, padded (``mask``) where they are over and truncated after ``max_steps``."""
    keys = jax.random.split(key, num_episodes)
    episodes = jax.vmap(lambda k: _sample(k, mdp, policy, max_steps, restart=False))(keys)
    return episodes.replace(
        truncated=episodes.truncated.at[:, -1].set(~episodes.terminated[:, -1] & episodes.mask[:, -1])
    )


def _sample(key: Array, mdp: MDP, policy: Array, num_steps: int, restart: bool) -> Trajectory:
    first_key, key = jax.random.split(key)
    uniforms = jax.random.uniform(key, (num_steps, 4))

    def begin(state_uniform: Array, action_uniform: Array) -> tuple[Array, Array]:
        state = draw(mdp.initial, state_uniform)
        return state, draw(policy[state], action_uniform)

    def step(now: tuple[Array, Array], uniform: Array) -> tuple[tuple[Array, Array], Trajectory]:
        state, action = now
        next_state = draw(mdp.transition[state, action], uniform[0])
        next_action = draw(policy[next_state], uniform[1])
        over = mdp.terminal[state]
        terminated = mdp.terminal[next_state] & ~over
        reward = mdp.reward[state, action, next_state]
        told = Trajectory(state, action, reward, next_state, next_action, terminated, jnp.zeros_like(over), ~over)
        if not restart:
            return (next_state, next_action), told
        fresh = begin(uniform[2], uniform[3])
        going = jnp.where(terminated, fresh[0], next_state), jnp.where(terminated, fresh[1], next_action)
        return going, told

    return jax.lax.scan(step, begin(*jax.random.uniform(first_key, (2,))), uniforms)[1]


def sample_env(key: Array, env: Environment, act: Callable[[Array, Array], Array], max_steps: int) -> tuple[Array, ...]:
    """One episode of any environment under ``act(key, obs) -> action``, padded to ``[T]``.

    Returns:
        obs ``[T, ...]``, action, reward, next obs, terminated, truncated and mask; the environment's ``time_limit`` counts.
    """
    reset_key, key = jax.random.split(key)
    limit = max_steps if env.time_limit is None else min(env.time_limit, max_steps)

    def step(carry: tuple, now: tuple) -> tuple[tuple, tuple]:
        env_state, obs, over = carry
        time, step_key = now
        act_key, env_key = jax.random.split(step_key)
        action = act(act_key, obs)
        after = env.step(env_key, env_state, action)
        cut = (time == limit - 1) if after.truncated is None else (time == limit - 1) | after.truncated
        terminated, truncated = after.terminated & ~over, cut & ~after.terminated & ~over
        told = obs, action, jnp.where(over, 0.0, after.reward), after.obs, terminated, truncated, ~over
        return (after.state, after.obs, over | terminated | truncated), told

    start = (*env.reset(reset_key), jnp.zeros((), bool))
    return jax.lax.scan(step, start, (jnp.arange(max_steps), jax.random.split(key, max_steps)))[1]


def pairs(trajectory: Trajectory, num_actions: int) -> Trajectory:
    """The trajectory whose states are the pairs s · A + a: tables over them are q ``[S · A]``."""
    return trajectory.replace(
        state=trajectory.state * num_actions + trajectory.action,
        next_state=trajectory.next_state * num_actions + trajectory.next_action,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Tables. ``values [S]``, ``alpha``, ``gamma``, ``n`` and ``lambda_`` may be traced, and so vmapped. Each returns the table after
# the data, and ``measure`` of it after each step (``[T]``) or, off-line, after each episode (``[E]``).
# ---------------------------------------------------------------------------------------------------------------------


def nothing(values: Array) -> tuple:
    """The measure that records nothing."""
    return ()


def n_step_td(
    trajectory: Trajectory,
    values: Array,
    alpha: Array | float,
    gamma: Array | float,
    n: Array | int,
    measure: Measure = nothing,
) -> tuple[Array, PyTree]:
    """On-line n-step TD (Sutton & Barto 2018, section 7.1); n = 1 is TD(0) (section 6.1), n ≥ T constant-α Monte Carlo.

    The box makes the update of step τ when τ + n − 1 is over, so in the order of τ, each seeing those before it. As rewards do not
    depend on V, this is TD(0) over transitions of n steps: R = Σ_{k<n} γ^k r, then γ^n V(S_{τ+n}).
    """
    ends = trajectory.terminated, trajectory.truncated
    zeros = jnp.zeros_like(trajectory.reward)
    reward = returns.n_step_return(trajectory.reward, zeros, *ends, gamma, n)
    # G is linear in the bootstrap: of rewards 0 and values 1 it is γ^m, or 0 where the window ends in a termination.
    discount = returns.n_step_return(zeros, zeros + 1.0, *ends, gamma, n)
    successor = trajectory.next_state[returns.n_step_last(*ends, n)]

    def update(values: Array, now: tuple) -> tuple[Array, PyTree]:
        state, reward, discount, successor, mask = now
        error = reward + discount * values[successor] - values[state]
        values = values.at[state].add(jnp.where(mask, alpha * error, 0.0))
        return values, measure(values)

    return jax.lax.scan(update, values, (trajectory.state, reward, discount, successor, trajectory.mask))


def td_lambda(
    trajectory: Trajectory,
    values: Array,
    alpha: Array | float,
    gamma: Array | float,
    lambda_: Array | float,
    measure: Measure = nothing,
) -> tuple[Array, PyTree]:
    """On-line TD(λ) with accumulating traces (Sutton & Barto 2018, section 12.2).

    z ← γλ z + ∇V(S_t);  V ← V + α δ_t z;  z = 0 when an episode begins.
    """

    def update(carry: tuple[Array, Array], now: Trajectory) -> tuple[tuple[Array, Array], PyTree]:
        values, trace = carry
        value, next_value = values[now.state], values[now.next_state]
        error = returns.td_error(now.reward, value, next_value, now.terminated, gamma)
        trace = (gamma * lambda_ * trace).at[now.state].add(1.0)
        values = values + jnp.where(now.mask, alpha * error, 0.0) * trace
        trace = jnp.where(now.terminated | now.truncated | ~now.mask, 0.0, trace)
        return (values, trace), measure(values)

    (values, _), measured = jax.lax.scan(update, (values, jnp.zeros_like(values)), trajectory)
    return values, measured


def offline_lambda_return(
    episodes: Trajectory,
    values: Array,
    alpha: Array | float,
    gamma: Array | float,
    lambda_: Array | float,
    measure: Measure = nothing,
) -> tuple[Array, PyTree]:
    """The off-line λ-return algorithm over episodes ``[E, T]`` (Sutton & Barto 2018, eq. 12.4).

    At an episode's end, for t = 0, 1, …: V(S_t) ← V(S_t) + α [G^λ_t − V(S_t)], with G^λ of the values before the episode.
    """

    def episode(values: Array, steps: Trajectory) -> tuple[Array, PyTree]:
        next_value = values[steps.next_state]
        target = returns.lambda_return(steps.reward, next_value, steps.terminated, steps.truncated, gamma, lambda_)

        def update(values: Array, now: tuple) -> tuple[Array, None]:
            state, target, mask = now
            return values.at[state].add(jnp.where(mask, alpha * (target - values[state]), 0.0)), None

        values, _ = jax.lax.scan(update, values, (steps.state, target, steps.mask))
        return values, measure(values)

    return jax.lax.scan(episode, values, episodes)


def monte_carlo(episodes: Trajectory, num_states: int, gamma: Array | float) -> Array:
    """Every-visit Monte Carlo (Sutton & Barto 2018, section 5.1): the mean return after a visit ``[S]``, NaN where there was none.

    ``episodes [E, T]``, whole: what is left out after a truncation counts as 0.
    """

    def returns_of(steps: Trajectory) -> Array:
        zeros = jnp.zeros_like(steps.reward)
        return returns.lambda_return(steps.reward, zeros, steps.terminated, steps.truncated, gamma, 1.0)

    weight = episodes.mask.astype(jnp.float32).ravel()
    total, count = (
        jax.ops.segment_sum(x, episodes.state.ravel(), num_states)
        for x in (weight * jax.vmap(returns_of)(episodes).ravel(), weight)
    )
    return total / jnp.where(count > 0, count, jnp.nan)


# ---------------------------------------------------------------------------------------------------------------------
# Functions
# ---------------------------------------------------------------------------------------------------------------------


class Experience(struct.PyTreeNode):
    """Data for :func:`semi_gradient`; leaves ``[T, ...]``, in order for targets of more than one step.

    ``obs`` and ``next_obs`` are whatever ``value_fn`` takes: for q-values, pairs (obs, action).
    """

    obs: PyTree
    reward: Array
    next_obs: PyTree
    terminated: Array
    truncated: Array


def value_error(
    value_fn: Callable[[PyTree, PyTree], Array], params: PyTree, data: Experience, target: Target, *, semi: bool
) -> Array:
    """½ mean (G − V(s; w))², G held constant if ``semi``.

    Args:
        value_fn: ``(params, obs [T, ...]) -> [T]``: a table's ``obs @ w``, or a network.
        params: w.
        data: the steps.
        target: ``(reward, next_value, terminated, truncated) -> G [T]``, e.g. ``partial(returns.lambda_return, gamma=0.9,
            lambda_=0.0)``.
        semi: see above.
    """
    next_value = value_fn(params, data.next_obs)
    goal = target(data.reward, next_value, data.terminated, data.truncated)
    goal = jax.lax.stop_gradient(goal) if semi else goal
    return 0.5 * jnp.square(goal - value_fn(params, data.obs)).mean()


def semi_gradient(value_fn: Any, params: PyTree, data: Experience, target: Target) -> PyTree:
    """−E[(G − V(s)) ∇V(s)], G held constant (Sutton & Barto 2018, section 9.3). Arguments as in :func:`value_error`.

    With a table its TD fixed point is v_π.
    """
    return jax.grad(lambda w: value_error(value_fn, w, data, target, semi=True))(params)


def residual_gradient(value_fn: Any, params: PyTree, data: Experience, target: Target) -> PyTree:
    """E[(G − V(s)) ∇(G − V(s))], the full gradient of the squared TD error (Baird 1995; Sutton & Barto 2018, section 11.5).

    A true gradient, yet of the wrong thing: from one sample of each successor it lessens the TD error's mean *square*, which has
    the successor's variance in it, so that in a stochastic MDP even a table does not come to v_π (example 11.2).
    """
    return jax.grad(lambda w: value_error(value_fn, w, data, target, semi=False))(params)
