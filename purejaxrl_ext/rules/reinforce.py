"""REINFORCE (Williams 1992; Sutton & Barto 2018, sections 13.3 and 13.4): the policy gradient from whole episodes.

targets   G_t = Σ_{k≥t} γ^{k−t} r_k to the episode's end;  ψ_t = G_t − b(s_t), b = V_old, or 0 without a baseline
policy    L_π = −E[ Σ_t ψ_t log π_θ(a_t|s_t) ]                                                      (eq. 13.11)
value     L_V = ½ E[ Σ_t (V_θ(s_t) − G_t)² ]
loss      L = L_π + c_V L_V − c_H E[ Σ_t H(π_θ(·|s_t)) ]

E is the mean over episodes, of sums over their steps; at θ_old the gradient of L_π is then, by Config, that of −J:

    reward_to_go=True                            without the γ^t of S&B's box, as is usual: of −J where γ = 1, and for
                                                 γ < 1 no function's, but less afraid of what comes late
    reward_to_go=True, discounted_visits=True    ψ_t is γ^t (G_t − b(s_t)): of −J, J = E[ Σ_t γ^t r_t ]
    reward_to_go=False                           ψ_t is G_0 − b(s_0), the whole return: of −J too, at a larger variance

Each environment contributes the first episode of a rollout that begins with a fresh one: what comes after has weight 0. To
keep each episode that ends in a continuing rollout would favour short ones, of which more end, and the estimate with them.
A time limit is the end of the episode, unless there is a baseline: V(s_L) then stands for what would have followed
(``time_limit_terminates=True``: never).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import struct

from purejaxrl_ext.networks import policies
from purejaxrl_ext.rules import returns
from purejaxrl_ext.rules.ppo import act
from purejaxrl_ext.rules.schedules import anneal
from purejaxrl_ext.types import Array, Metrics, OptimizerHparams, Output, Rollout, Rule, hparam


class REINFORCEHparams(OptimizerHparams):
    """REINFORCE's traced settings, besides the optimiser's.

    Attributes:
        gamma: discount γ.
        entropy_coef: c_H.
        entropy_anneal_steps: it falls linearly to 0 over so many environment steps; 0 keeps it constant.
        value_coef: c_V.
    """

    learning_rate: Any = hparam(1e-3, 0.0, open_low=True)
    gamma: Any = hparam(0.99, 0.0, 1.0)
    entropy_coef: Any = hparam(0.0, 0.0)
    entropy_anneal_steps: Any = hparam(0.0, 0.0)
    value_coef: Any = hparam(0.5, 0.0)


class REINFORCEBatch(struct.PyTreeNode):
    """What REINFORCE aims at; leaves ``[B, ...]``.

    Attributes:
        obs, action: the rollout's.
        target: G.
        advantage: ψ.
        weight: T in a first episode and 0 after it: a mean over the T · N steps is one over N episodes of sums.
    """

    obs: Array
    action: Array
    target: Array
    advantage: Array
    weight: Array


def targets(
    rollout: Rollout,
    hparams: REINFORCEHparams,
    *,
    baseline: bool = True,
    reward_to_go: bool = True,
    discounted_visits: bool = False,
) -> REINFORCEBatch:
    """Full returns over ``[T, N]``, of which each environment's first episode counts; all begin at t = 0."""
    ends = rollout.terminated | rollout.truncated
    value, beyond = rollout.output.value, rollout.next_output.value
    if not baseline:
        value, beyond = jnp.zeros_like(value), jnp.zeros_like(beyond)
    target = returns.lambda_return(
        rollout.reward, beyond, rollout.terminated, rollout.truncated, hparams.gamma, jnp.ones(())
    )
    advantage = target - value
    if not reward_to_go:
        advantage = jnp.broadcast_to(advantage[:1], advantage.shape)
    if discounted_visits:
        time = jnp.arange(len(advantage), dtype=jnp.float32)
        advantage = advantage * (hparams.gamma**time)[:, None]
    weight = len(advantage) * returns.first_episode(ends).astype(jnp.float32)
    return REINFORCEBatch(rollout.obs, rollout.action, target, advantage, weight)


def loss(
    output: Output, batch: REINFORCEBatch, hparams: REINFORCEHparams, *, baseline: bool = True
) -> tuple[Array, Metrics]:
    """L on a minibatch ``[B]``; metrics: ``policy_loss``, ``value_loss`` (with a baseline) and ``entropy`` (a step's mean)."""
    log_prob = policies.log_prob(output.policy, batch.action)
    policy_loss = -jnp.mean(batch.weight * batch.advantage * log_prob)
    entropy = jnp.mean(batch.weight * policies.entropy(output.policy))
    # A minibatch may hold no step that counts.
    steps = jnp.maximum(batch.weight.mean(), 1e-6)
    total, metrics = policy_loss - hparams.entropy_coef * entropy, {"policy_loss": policy_loss}
    if baseline:
        value_loss = 0.5 * jnp.mean(batch.weight * jnp.square(output.value - batch.target))
        total, metrics = total + hparams.value_coef * value_loss, metrics | {"value_loss": value_loss}
    return total, metrics | {"entropy": entropy / steps}


def schedule(hparams: REINFORCEHparams, env_steps: Array) -> REINFORCEHparams:
    """c_H after so many environment steps."""
    return hparams.replace(entropy_coef=anneal(hparams.entropy_coef, hparams.entropy_anneal_steps, env_steps))


def rule(config: Any, action_space: Any) -> Rule:
    """REINFORCE's functions for a config and an action space."""
    return Rule(
        noise=partial(policies.noise, space=action_space),
        act=act,
        targets=partial(
            targets,
            baseline=config.baseline,
            reward_to_go=config.reward_to_go,
            discounted_visits=config.discounted_visits,
        ),
        loss=partial(loss, baseline=config.baseline),
        schedule=schedule,
    )
