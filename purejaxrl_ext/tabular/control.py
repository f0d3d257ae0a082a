"""Tabular control: Q-learning, SARSA and Expected SARSA with ε-greedy actions (Sutton & Barto 2018, sections 6.4 to 6.6).

    Q(S, A) ← Q(S, A) + α [R + γ B − Q(S, A)]

The bootstrap B is what tells them apart:

    sarsa             B = Q(S', A')               of the action to be taken next: on-policy                      (eq. 6.7)
    q_learning        B = max_a Q(S', a)          of the greedy policy, whatever is done: off-policy             (eq. 6.8)
    expected_sarsa    B = Σ_a π(a|S') Q(S', a)    of the ε-greedy policy π                                       (eq. 6.9)

One :func:`learn` for all, which chooses A' before it updates Q. The boxes of Q-learning and Expected SARSA choose it after: a
difference only where S' = S, and none in what they aim at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.envs.mdps import MDP, draw
from purejaxrl_ext.rules import returns
from purejaxrl_ext.tabular.exact import epsilon_greedy
from purejaxrl_ext.types import Array

Bootstrap = Callable[[Array, Array, Array], Array]  # (Q(S', ·) [A], A', π(·|S') [A]) -> B


class Learned(NamedTuple):
    """What a run leaves.

    Attributes:
        q: ``[S, A]`` after the last step.
        episode_return: ``[E]`` sums of rewards of the first E episodes, as they were lived; NaN for those not finished.
        episode_length: ``[E]`` their steps, likewise.
    """

    q: Array
    episode_return: Array
    episode_length: Array


def sarsa(q: Array, action: Array, policy: Array) -> Array:
    """Q(S', A')."""
    return q[action]


def q_learning(q: Array, action: Array, policy: Array) -> Array:
    """max_a Q(S', a)."""
    return q.max()


def expected_sarsa(q: Array, action: Array, policy: Array) -> Array:
    """Σ_a π(a|S') Q(S', a)."""
    return policy @ q


def learn(
    key: Array,
    mdp: MDP,
    bootstrap: Bootstrap,
    num_steps: int,
    num_episodes: int,
    alpha: Array | float,
    epsilon: Array | float,
    gamma: Array | float,
    q: Array | None = None,
) -> Learned:
    """Learn for ``num_steps`` environment steps, episode after episode. Pure: vmap it over keys, α, ε, γ or the MDP.

    Args:
        key: of all randomness.
        mdp: where to act.
        bootstrap: :func:`sarsa`, :func:`q_learning` or :func:`expected_sarsa`.
        num_steps: T.
        num_episodes: E, how many episodes to report.
        alpha: step size.
        epsilon: ε of ε-greedy; equally good actions are drawn alike.
        gamma: discount.
        q: ``[S, A]`` to begin with; None: 0.
    """
    table = jnp.zeros((mdp.num_states, mdp.num_actions)) if q is None else q
    first_key, key = jax.random.split(key)
    uniforms = jax.random.uniform(key, (num_steps, 4))

    def begin(q: Array, state_uniform: Array, action_uniform: Array) -> tuple[Array, Array]:
        state = draw(mdp.initial, state_uniform)
        return state, draw(epsilon_greedy(q[state], epsilon), action_uniform)

    def step(carry: tuple, uniform: Array) -> tuple[tuple, tuple]:
        q, state, action = carry
        next_state = draw(mdp.transition[state, action], uniform[0])
        reward, terminated = mdp.reward[state, action, next_state], mdp.terminal[next_state]
        policy = epsilon_greedy(q[next_state], epsilon)
        next_action = draw(policy, uniform[1])
        next_value = bootstrap(q[next_state], next_action, policy)
        error = returns.td_error(reward, q[state, action], next_value, terminated, gamma)
        q = q.at[state, action].add(alpha * error)
        fresh_state, fresh_action = begin(q, uniform[2], uniform[3])
        state = jnp.where(terminated, fresh_state, next_state)
        action = jnp.where(terminated, fresh_action, next_action)
        return (q, state, action), (reward, terminated)

    start = (table, *begin(table, *jax.random.uniform(first_key, (2,))))
    (table, _, _), (reward, terminated) = jax.lax.scan(step, start, uniforms)
    return Learned(table, *_per_episode(reward, terminated, num_episodes))


def _per_episode(reward: Array, terminated: Array, num_episodes: int) -> tuple[Array, Array]:
    """Return and length ``[E]`` of the first E episodes of ``[T]`` steps."""
    ends = terminated.astype(jnp.int32)
    episode = jnp.cumsum(ends) - ends
    # Steps of later episodes have an index beyond the last segment, and are dropped.
    sums = (jax.ops.segment_sum(x, episode, num_episodes) for x in (reward, jnp.ones_like(reward)))
    finished = jnp.arange(num_episodes) < ends.sum()
    episode_return, episode_length = (jnp.where(finished, x, jnp.nan) for x in sums)
    return episode_return, episode_length
