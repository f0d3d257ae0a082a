"""Exact solutions of tabular MDPs: the yardstick of everything that is estimated.

    v_π = Σ_a π(a|s) q_π(s, a),   q_π(s, a) = Σ_s' P(s'|s, a) [R(s, a, s') + γ v_π(s')]          (Sutton & Barto 2018, eq. 4.3, 4.6)
    v_* = max_a q_*(s, a)                                                                        (eq. 4.1)

with v = 0 in terminal states. A policy is ``[S, A]``, π(a|s). All are pure: jit and vmap them over MDPs, policies and γ. Called
with values that are not traced they check them, and raise ``ValueError`` for

    γ = 1 and a state (named) from which no terminal state can be reached: its value has no bound
    a state (named) that no episode can come to, whatever the actions: it is likely a slip in P (``check_reachable=False``: allowed)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.mdps import MDP, check_distributions, is_concrete
from purejaxrl_ext.errors import check
from purejaxrl_ext.types import Array


class Solution(NamedTuple):
    """Optimal values and policy.

    Attributes:
        v: ``[S]`` v_*.
        q: ``[S, A]`` q_*.
        policy: ``[S, A]`` greedy; equally good actions share the probability.
    """

    v: Array
    q: Array
    policy: Array


# ---------------------------------------------------------------------------------------------------------------------
# Policies
# ---------------------------------------------------------------------------------------------------------------------


def uniform(mdp: MDP) -> Array:
    """``[S, A]``: every action alike."""
    return jnp.full((mdp.num_states, mdp.num_actions), 1.0 / mdp.num_actions)


def greedy(q: Array, tolerance: float = 0.0) -> Array:
    """``[..., A]``: all probability on the actions within ``tolerance`` · max(1, |max q|) of the best, in equal shares."""
    best = q.max(axis=-1, keepdims=True)
    ties = (q >= best - tolerance * jnp.maximum(1.0, jnp.abs(best))).astype(q.dtype)
    return ties / ties.sum(axis=-1, keepdims=True)


def epsilon_greedy(q: Array, epsilon: Array | float) -> Array:
    """``[..., A]``: ε/A for each action, and 1 − ε for the greedy ones in equal shares (Sutton & Barto 2018, section 5.4)."""
    return epsilon / q.shape[-1] + (1.0 - epsilon) * greedy(q)


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation
# ---------------------------------------------------------------------------------------------------------------------


def policy_evaluation(mdp: MDP, policy: Array, gamma: Array | float, *, check_reachable: bool = True) -> Array:
    """v_π ``[S]``: the solution of (I − γ P_π) v = r_π (Sutton & Barto 2018, section 4.1), P_π without terminal successors."""
    _check(mdp, gamma, policy, check_reachable)
    return _evaluate(mdp, policy, gamma)


def action_values(mdp: MDP, v: Array, gamma: Array | float) -> Array:
    """q ``[S, A]``: the expectation of R + γ v(S') from v ``[S]``; 0 in terminal states."""
    expected = jnp.einsum("sat,sat->sa", mdp.transition, mdp.reward)
    q = expected + gamma * jnp.einsum("sat,t->sa", mdp.transition, jnp.where(mdp.terminal, 0.0, v))
    return jnp.where(mdp.terminal[:, None], 0.0, q)


def visitation(mdp: MDP, policy: Array, gamma: Array | float, *, check_reachable: bool = True) -> Array:
    """η ``[S]``: expected discounted visits of an episode, η(s) = Σ_t γ^t Pr(S_t = s), 0 in terminal states.

    Sutton & Barto 2018, eq. 9.2. Not normalised: J = Σ_s η(s) r_π(s); η / Σ η is the on-policy distribution (eq. 9.3), and where
    episodes never end Σ η = 1 / (1 − γ).
    """
    _check(mdp, gamma, policy, check_reachable)
    going, _ = _chain(mdp, policy)
    return jnp.linalg.solve((jnp.eye(mdp.num_states) - gamma * going).T, mdp.initial)


def objective(mdp: MDP, policy: Array, gamma: Array | float, *, check_reachable: bool = True) -> Array:
    """J(π) = Σ_s initial(s) v_π(s), scalar: what the policy gradient climbs (Sutton & Barto 2018, eq. 13.4); differentiable."""
    return mdp.initial @ policy_evaluation(mdp, policy, gamma, check_reachable=check_reachable)


def _chain(mdp: MDP, policy: Array) -> tuple[Array, Array]:
    """P_π ``[S, S]`` between states that are not terminal, and r_π ``[S]``."""
    going = ~mdp.terminal
    both = (going[:, None] & going[None]).astype(policy.dtype)
    chain = jnp.einsum("sa,sat->st", policy, mdp.transition) * both
    reward = jnp.einsum("sa,sat,sat->s", policy, mdp.transition, mdp.reward)
    return chain, jnp.where(mdp.terminal, 0.0, reward)


def _evaluate(mdp: MDP, policy: Array, gamma: Array | float) -> Array:
    chain, reward = _chain(mdp, policy)
    return jnp.linalg.solve(jnp.eye(mdp.num_states) - gamma * chain, reward)


# ---------------------------------------------------------------------------------------------------------------------
# Control
# ---------------------------------------------------------------------------------------------------------------------


def value_iteration(
    mdp: MDP,
    gamma: Array | float,
    tolerance: float = 1e-6,
    max_iterations: int = 100_000,
    *,
    check_reachable: bool = True,
) -> Array:
    """v_* ``[S]``: v ← max_a q(s, a) from 0 on, until no entry moves by more than ``tolerance`` · max(1, max |v|).

    Sutton & Barto 2018, section 4.4. The error is then at most γ / (1 − γ) times the last move.
    """
    _check(mdp, gamma, None, check_reachable)

    def backup(v: Array) -> Array:
        return action_values(mdp, v, gamma).max(axis=-1)

    return _until_settled(backup, jnp.zeros(mdp.num_states), tolerance, max_iterations)


def policy_iteration(
    mdp: MDP,
    gamma: Array | float,
    tolerance: float = 1e-6,
    max_iterations: int = 1_000,
    *,
    check_reachable: bool = True,
) -> Array:
    """v_* ``[S]``: evaluate, be greedy, repeat, from the uniform policy on (Sutton & Barto 2018, section 4.3).

    It ends where improving moves no value by more than ``tolerance`` · max(1, max |v|). With γ = 1, a policy that never ends must
    be worse than one that does, as where every step costs.
    """
    _check(mdp, gamma, None, check_reachable)

    def improve(v: Array) -> Array:
        best = jnp.argmax(action_values(mdp, v, gamma), axis=-1)
        return _evaluate(mdp, jax.nn.one_hot(best, mdp.num_actions), gamma)

    return _until_settled(improve, _evaluate(mdp, uniform(mdp), gamma), tolerance, max_iterations)


def optimal(mdp: MDP, gamma: Array | float, *, check_reachable: bool = True) -> Solution:
    """v_*, q_* and the greedy policy, by value iteration; actions within 1e-4 of the best (relative) count as equally good."""
    v = value_iteration(mdp, gamma, check_reachable=check_reachable)
    q = action_values(mdp, v, gamma)
    return Solution(v, q, greedy(q, tolerance=1e-4))


def _until_settled(update: Callable[[Array], Array], v: Array, tolerance: float, max_iterations: int) -> Array:
    def going(carry: tuple) -> Array:
        count, old, new = carry
        moved = jnp.max(jnp.abs(new - old))
        return (count < max_iterations) & (moved > tolerance * jnp.maximum(1.0, jnp.max(jnp.abs(new))))

    def step(carry: tuple) -> tuple:
        count, _, new = carry
        return count + 1, new, update(new)

    return jax.lax.while_loop(going, step, (jnp.int32(1), v, update(v)))[-1]


# ---------------------------------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------------------------------


def _check(mdp: MDP, gamma: Any, policy: Any, check_reachable: bool) -> None:
    shape = (mdp.num_states, mdp.num_actions)
    check(policy is None or policy.shape == shape, "policy", getattr(policy, "shape", None), f"of shape {shape}")
    if not is_concrete(mdp, gamma, policy):
        return  # values are not known while they are traced
    check(0.0 <= float(gamma) <= 1.0, "gamma", float(gamma), "in [0, 1]")
    if policy is not None:
        check_distributions("policy", policy)
    moves = np.asarray(mdp.transition) > 0.0
    taken = np.ones(shape, bool) if policy is None else np.asarray(policy) > 0.0
    terminal = np.asarray(mdp.terminal)
    if float(gamma) == 1.0:
        check(bool(terminal.any()), "gamma", 1.0, "less than 1 in an MDP without terminal states")
        ending = _closure(terminal, np.any(moves & taken[..., None], axis=1).T)
        how = "whatever the actions" if policy is None else "under the policy"
        lost = np.flatnonzero(~ending).tolist()
        check(not lost, "gamma", 1.0, f"less than 1: {how} no terminal state can be reached from states {lost}")
    if check_reachable:
        visited = _closure(np.asarray(mdp.initial) > 0.0, np.any(moves & ~terminal[:, None, None], axis=1))
        never = np.flatnonzero(~visited).tolist()
        allowed = f"such that an episode can come to every state, unlike {never} (or check_reachable=False)"
        check(not never, "transition", tuple(mdp.transition.shape), allowed)


def _closure(start: Any, edges: Any) -> Any:
    """States ``[S]`` bool to which some path along ``edges [S, S]`` leads from ``start [S]``, these included."""
    found = start
    for _ in start:
        found = found | edges[found].any(0)
    return found
