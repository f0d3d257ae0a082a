"""PPO: Proximal Policy Optimization (Schulman et al. 2017), the clipped surrogate with a learned value.

targets   A = GAE(γ, λ) of the rollout, once;  G = A + V_old                                         (section 5)
ratio     r(θ) = π_θ(a|s) / π_old(a|s)
policy    L_π = −E[ min( r A, clip(r, 1 − ε, 1 + ε) A ) ]                                           (eq. 7)
value     L_V = ½ E[ (V_θ − G)² ], or with value clipping
          ½ E[ max( (V_θ − G)², (V_old + clip(V_θ − V_old, −ε_V, ε_V) − G)² ) ]
loss      L = L_π + c_V L_V − c_H E[ H(π_θ) ]                                                       (eq. 9)
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxrl_ext.networks import policies
from purejaxrl_ext.rules import returns
from purejaxrl_ext.rules.schedules import anneal
from purejaxrl_ext.types import Array, Metrics, OptimizerHparams, Output, Rollout, Rule, hparam

# exp() of a larger log-ratio overflows, and one such sample would cost the run (bounds of Moalla et al.'s code).
LOG_RATIO_BOUNDS = (float(np.log(1e-7)), float(np.log(1e9)))


class PPOHparams(OptimizerHparams):
    """PPO's traced settings, besides the optimiser's.

    Attributes:
        gamma: discount γ.
        gae_lambda: λ of GAE.
        clip_eps: ε, clip range of the ratio.
        value_clip_eps: ε_V, clip range of the value; infinite: no clipping.
        clip_anneal_steps: ε falls linearly to 0 over so many environment steps; 0 keeps it constant.
        entropy_coef: c_H.
        entropy_anneal_steps: the same of c_H.
        value_coef: c_V.
        target_kl: with ``stop_at_kl``, the ``approx_kl`` of a minibatch beyond which an update ends.
    """

    max_grad_norm: Any = hparam(0.5, 0.0, open_low=True)
    adam_eps: Any = hparam(1e-5, 0.0, open_low=True)
    gamma: Any = hparam(0.99, 0.0, 1.0)
    gae_lambda: Any = hparam(0.95, 0.0, 1.0)
    clip_eps: Any = hparam(0.2, 0.0, open_low=True)
    clip_anneal_steps: Any = hparam(0.0, 0.0)
    value_clip_eps: Any = hparam(float("inf"), 0.0, open_low=True)
    entropy_coef: Any = hparam(0.01, 0.0)
    entropy_anneal_steps: Any = hparam(0.0, 0.0)
    value_coef: Any = hparam(0.5, 0.0)
    target_kl: Any = hparam(0.015, 0.0, open_low=True)


class PPOBatch(struct.PyTreeNode):
    """What PPO aims at; leaves ``[B, ...]``.

    Attributes:
        obs, action: the rollout's.
        advantage: A.
        target: G, what the value aims at.
        log_prob: log π_old(a|s).
        old: the whole Output of the network that collected the data.
    """

    obs: Array
    action: Array
    advantage: Array
    target: Array
    log_prob: Array
    old: Output


def act(output: Output, noise: Array | None, hparams: PPOHparams, env_steps: Array) -> Array:
    """a ~ π(·|s), or its mode where ``noise`` is None."""
    return policies.sample(output.policy, noise)


def targets(rollout: Rollout, hparams: PPOHparams, *, normalize_advantage: bool = False) -> PPOBatch:
    """GAE over ``[T, N]``, and G = A + V_old; with ``normalize_advantage`` A is normalised over all of it, G is not."""
    old = rollout.output
    advantage = returns.gae(
        rollout.reward,
        old.value,
        rollout.next_output.value,
        rollout.terminated,
        rollout.truncated,
        hparams.gamma,
        hparams.gae_lambda,
    )
    log_prob = policies.log_prob(old.policy, rollout.action)
    target = advantage + old.value
    advantage = normalize(advantage) if normalize_advantage else advantage
    return PPOBatch(rollout.obs, rollout.action, advantage, target, log_prob, old)


def surrogate(ratio: Array, advantage: Array, clip_eps: Array | float) -> Array:
    """min(r A, clip(r, 1 − ε, 1 + ε) A), per sample (eq. 7)."""
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps) * advantage)


def value_loss(
    value: Array, old_value: Array, target: Array, value_clip_eps: Array | float, weight: Array | float = 1.0
) -> Array:
    """½ mean of the weighted squared error, the larger of the clipped and the unclipped one."""
    clipped = old_value + jnp.clip(value - old_value, -value_clip_eps, value_clip_eps)
    return 0.5 * (weight * jnp.maximum(jnp.square(value - target), jnp.square(clipped - target))).mean()


def normalize(advantage: Array) -> Array:
    """Zero mean, unit standard deviation."""
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def loss(
    output: Output,
    batch: PPOBatch,
    hparams: PPOHparams,
    *,
    normalize_advantage: bool = True,
    weight: Array | float = 1.0,
    value_weight: Array | float = 1.0,
) -> tuple[Array, Metrics]:
    """PPO's loss on a minibatch ``[B]``.

    Args:
        output: of the current network on ``batch.obs``.
        batch: the minibatch.
        hparams: ε, ε_V, c_V, c_H.
        normalize_advantage: over this minibatch.
        weight, value_weight: ``[B]`` weight of each sample in L_π and L_V (1 in PPO).

    Returns:
        the scalar L, and metrics: ``policy_loss``, ``value_loss``, ``entropy``, ``approx_kl`` (mean of r − 1 − log r,
        Schulman's unbiased, never negative estimate of KL(old ‖ new)), ``clip_fraction`` (share with |r − 1| > ε).
    """
    advantage = normalize(batch.advantage) if normalize_advantage else batch.advantage
    log_ratio = jnp.clip(policies.log_prob(output.policy, batch.action) - batch.log_prob, *LOG_RATIO_BOUNDS)
    ratio = jnp.exp(log_ratio)
    policy_loss = -jnp.mean(weight * surrogate(ratio, advantage, hparams.clip_eps))
    value = value_loss(output.value, batch.old.value, batch.target, hparams.value_clip_eps, value_weight)
    entropy = policies.entropy(output.policy).mean()
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value,
        "entropy": entropy,
        "approx_kl": jnp.mean(ratio - 1.0 - log_ratio),
        "clip_fraction": jnp.mean((jnp.abs(ratio - 1.0) > hparams.clip_eps).astype(jnp.float32)),
    }
    return policy_loss + hparams.value_coef * value - hparams.entropy_coef * entropy, metrics


def diagnose(start: Output, end: Output, batch: PPOBatch, hparams: PPOHparams) -> Metrics:
    """How far the update went, on the rollout's own actions.

    ``ratio_above`` and ``ratio_below``: means of the ratios above 1 + ε and below 1 − ε, NaN where there are none;
    ``kl``: exact KL(old ‖ new). Ratios are taken in log-space, which neither end can overflow.
    """
    log_ratio = policies.log_prob(end.policy, batch.action) - policies.log_prob(start.policy, batch.action)
    ratio = jnp.exp(jnp.clip(log_ratio, *np.log((1e-12, 1e12)).tolist()))
    eps = hparams.clip_eps
    return {
        "ratio_above": jnp.mean(ratio, where=ratio > 1.0 + eps),
        "ratio_below": jnp.mean(ratio, where=ratio < 1.0 - eps),
        "kl": policies.kl_divergence(start.policy, end.policy).mean(),
    }


def schedule(hparams: PPOHparams, env_steps: Array) -> PPOHparams:
    """ε and c_H after so many environment steps."""
    return hparams.replace(
        clip_eps=anneal(hparams.clip_eps, hparams.clip_anneal_steps, env_steps),
        entropy_coef=anneal(hparams.entropy_coef, hparams.entropy_anneal_steps, env_steps),
    )


def rule(config: Any, action_space: Any) -> Rule:
    """PPO's functions for a config and an action space."""
    whole = config.normalize_advantage == "batch"
    return Rule(
        noise=partial(policies.noise, space=action_space),
        act=act,
        targets=partial(targets, normalize_advantage=True) if whole else targets,
        loss=partial(loss, normalize_advantage=config.normalize_advantage == "minibatch"),
        diagnose=diagnose,
        schedule=schedule,
    )
