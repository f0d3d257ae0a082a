"""Q-learning with function approximation (Watkins 1989; Sutton & Barto 2018, section 6.5 and chapter 11), and what its
relatives replace in it.

    act       ε-greedy: with probability ε a uniformly random action, else argmax_a Q(s, a)
    targets   y = r + γ (1 − terminated) max_a Q⁻(s', a)                                        (eq. 6.8)
    loss      ½ E[ (Q_θ(s, a) − y)² ], y held constant: the semi-gradient (section 9.3)

In the on-policy loop Q⁻ is the network that collected the data; in the replay loop (DQN) it is the target network. What a
relative replaces:

    double    y = r + γ (1 − terminated) Q⁻(s', argmax_a Q_θ(s', a))                            van Hasselt et al. 2016, eq. 4
    n-step    r becomes Σ_{k<n} γ^k r_{t+k}, and γ becomes γⁿ (done by the loop that holds the data)
    PQN       y = λ-return of max_a Q(s', a), in the on-policy loop                             Gallici et al. 2024, eq. 8
    SARSA     y = r + γ (1 − terminated) Q(s', a'), a' what was done next                       section 6.4
    expected  y = r + γ (1 − terminated) Σ_a π(a|s') Q(s', a), π the ε-greedy policy             section 6.6
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_ext.errors import check
from purejaxrl_ext.networks import short_axis
from purejaxrl_ext.rules import returns
from purejaxrl_ext.spaces import uniform_legal
from purejaxrl_ext.types import Array, Metrics, OptimizerHparams, Output, Rollout, Rule, hparam


class QHparams(OptimizerHparams):
    """Traced settings of Q-learning, besides the optimiser's.

    Attributes:
        gamma: discount γ.
        epsilon_start, epsilon_end: ε at the first step and from ``epsilon_decay_steps`` environment steps on, linear between.
        epsilon_decay_steps: see there; 0: ``epsilon_end`` throughout.
        huber_delta: errors count squared up to here and linearly beyond; infinite: squared. 1 is the clipping of Mnih et
            al. 2015, which suits rewards of that size: where values are near 100, as in CartPole, it fits their median, and
            rare terminations go unseen (measured: greedy return 9 to 32, where the squared loss has 451 to 500).
    """

    learning_rate: Any = hparam(5e-4, 0.0, open_low=True)
    max_grad_norm: Any = hparam(10.0, 0.0, open_low=True)
    gamma: Any = hparam(0.99, 0.0, 1.0)
    epsilon_start: Any = hparam(1.0, 0.0, 1.0)
    epsilon_end: Any = hparam(0.05, 0.0, 1.0)
    epsilon_decay_steps: Any = hparam(50_000.0, 0.0)
    huber_delta: Any = hparam(float("inf"), 0.0, open_low=True)


class PQNHparams(QHparams):
    """Q-learning's settings and ``q_lambda``, the λ of the λ-return."""

    q_lambda: Any = hparam(0.65, 0.0, 1.0)


class QBatch(struct.PyTreeNode):
    """What Q-learning aims at; leaves ``[B, ...]``.

    Attributes:
        obs, action: where and what.
        target: y.
        weight: of each sample in the loss (1 but for prioritised replay).
    """

    obs: Array
    action: Array
    target: Array
    weight: Array


def epsilon(hparams: QHparams, env_steps: Array) -> Array:
    """ε after so many environment steps: linear from ``epsilon_start`` to ``epsilon_end``, then constant."""
    share = jnp.clip(env_steps / jnp.maximum(hparams.epsilon_decay_steps, 1.0), 0.0, 1.0)
    share = jnp.where(hparams.epsilon_decay_steps > 0, share, 1.0)
    return hparams.epsilon_start + share * (hparams.epsilon_end - hparams.epsilon_start)


def noise(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform ``[*shape, 2]``: whether to explore, and which action then."""
    return jax.random.uniform(key, (*shape, 2))


def act(output: Output, noise: Array | None, hparams: QHparams, env_steps: Array) -> Array:
    """ε-greedy actions ``[...]`` int32 from ``q_values [..., A]``, legal ones alone; greedy where ``noise`` is None."""
    q_values = output.q_values
    greedy = short_axis.argmax(q_values)
    if noise is None:
        return greedy
    if isinstance(output.legal, jax.Array):
        anything = uniform_legal(noise[..., 1], output.legal)
    else:
        num_actions = q_values.shape[-1]
        anything = jnp.minimum((noise[..., 1] * num_actions).astype(jnp.int32), num_actions - 1)
    return jnp.where(noise[..., 0] < epsilon(hparams, env_steps), anything, greedy)


def chosen(q_values: Array, action: Array) -> Array:
    """Q(s, a) ``[...]`` of ``[..., A]`` and ``[...]``."""
    return short_axis.pick(q_values, action)


def greedy_bootstrap(next_output: Output, next_online: Output) -> Array:
    """max_a Q⁻(s', a)."""
    return short_axis.largest(next_output.q_values)


def double_bootstrap(next_output: Output, next_online: Output) -> Array:
    """Q⁻(s', argmax_a Q_θ(s', a)): who chooses does not value, so that noise is not taken for value."""
    return chosen(next_output.q_values, short_axis.argmax(next_online.q_values))


def targets(rollout: Rollout, hparams: QHparams, *, bootstrap: Any = greedy_bootstrap) -> QBatch:
    """y = r + discount · (1 − terminated) · bootstrap, the discount being γ, or γⁿ of an n-step reward."""
    value = bootstrap(rollout.next_output, rollout.next_online)
    target = rollout.reward + rollout.discount * jnp.where(rollout.terminated, 0.0, value)
    return QBatch(rollout.obs, rollout.action, target, jnp.ones_like(target))


def sarsa_targets(rollout: Rollout, hparams: QHparams) -> QBatch:
    """y = r + γ (1 − terminated) Q(s', a') over ``[T, N]``, a' being the next action of the rollout itself.

    Where the data hold no a', at a truncation and at the rollout's last step unless it terminated, the sample's weight is 0.
    """
    next_action = jnp.roll(rollout.action, -1, axis=0)
    known = ~rollout.truncated.at[-1].set(True) | rollout.terminated

    def of_next_action(next_output: Output, next_online: Output) -> Array:
        return chosen(next_output.q_values, next_action)

    batch = targets(rollout, hparams, bootstrap=of_next_action)
    return batch.replace(weight=known.astype(batch.weight.dtype))


def expected_sarsa_targets(rollout: Rollout, hparams: QHparams) -> QBatch:
    """y = r + γ (1 − terminated) Σ_a π(a|s') Q(s', a), π being ε-greedy with the ε of the rollout."""
    eps = epsilon(hparams, rollout.env_steps)

    def under_policy(next_output: Output, next_online: Output) -> Array:
        q_values, legal = next_output.q_values, next_output.legal
        mean = q_values.mean(axis=-1, where=legal if isinstance(legal, jax.Array) else None)
        return (1.0 - eps) * short_axis.largest(q_values) + eps * mean

    return targets(rollout, hparams, bootstrap=under_policy)


def lambda_targets(rollout: Rollout, hparams: PQNHparams) -> QBatch:
    """λ-returns over ``[T, N]`` of max_a Q(s', a): Peng's Q(λ), not corrected for exploration, as in PQN."""
    target = returns.lambda_return(
        rollout.reward,
        greedy_bootstrap(rollout.next_output, rollout.next_online),
        rollout.terminated,
        rollout.truncated,
        hparams.gamma,
        hparams.q_lambda,
    )
    return QBatch(rollout.obs, rollout.action, target, jnp.ones_like(target))


def huber(error: Array, delta: Array | float) -> Array:
    """½e² for |e| ≤ δ, δ(|e| − ½δ) beyond (Huber 1964). In this form δ may be infinite."""
    small = jnp.minimum(jnp.abs(error), delta)
    return small * (jnp.abs(error) - 0.5 * small)


def loss(output: Output, batch: QBatch, hparams: QHparams) -> tuple[Array, Metrics]:
    """Mean over ``[B]`` of weight · huber(Q_θ(s, a) − y); metrics: ``td_error`` ``[B]``, |Q − y|.

    Of an illegal action, which random steps before training may hold, the error is 0: it has no value to learn.
    """
    error = chosen(output.q_values, batch.action) - batch.target
    if isinstance(output.legal, jax.Array):
        error = jnp.where(chosen(output.legal, batch.action), error, 0.0)
    value = jnp.mean(batch.weight * huber(error, hparams.huber_delta))
    return value, {"td_error": jnp.abs(error)}


def rule(config: Any, action_space: Any) -> Rule:
    """One-step Q-learning."""
    return Rule(noise=noise, act=act, targets=targets, loss=loss)


def pqn_rule(config: Any, action_space: Any) -> Rule:
    """Q-learning with λ-returns for targets."""
    return rule(config, action_space)._replace(targets=lambda_targets)


def sarsa_rule(config: Any, action_space: Any) -> Rule:
    """Q-learning whose bootstrap is the value of what was done next: SARSA."""
    check(config.num_steps > 1, "num_steps", config.num_steps, "at least 2: the last step's next action is not known")
    return rule(config, action_space)._replace(targets=sarsa_targets)


def expected_sarsa_rule(config: Any, action_space: Any) -> Rule:
    """Q-learning whose bootstrap is the value under the ε-greedy policy: Expected SARSA."""
    return rule(config, action_space)._replace(targets=expected_sarsa_targets)


def dqn_rule(config: Any, action_space: Any) -> Rule:
    """Q-learning's rule; whether double, the config says."""
    bootstrap = double_bootstrap if config.double else greedy_bootstrap
    return rule(config, action_space)._replace(targets=partial(targets, bootstrap=bootstrap))
