"""Distributional Q-learning in the replay loop: DQN whose network gives each action's return as a distribution.

C51 (Bellemare et al. 2017): K atoms z_i = v_min + i Δ, Δ = (v_max − v_min) / (K − 1), of probability p_i(s, a) ∝ exp(returns_i)

    targets   m_i = Σ_j max(0, 1 − |clip(r + γ z_j, v_min, v_max) − z_i| / Δ) p⁻_j(s', a*)                      (eq. 7)
    loss      E[ −Σ_i m_i log p_i(s, a) ]                                                                  (algorithm 1)

QR-DQN (Dabney et al. 2018): K quantiles θ_i(s, a) = returns_i at τ_i = (i + ½) / K

    targets   y_j = r + γ θ⁻_j(s', a*)
    loss      E[ Σ_i 1/K Σ_j |τ_i − 1{u_ij < 0}| huber_κ(u_ij) ],  u_ij = y_j − θ_i(s, a)                      (eq. 10)

a* = argmax_a Q⁻(s', a), or with ``double`` argmax_a Q_θ(s', a), Q the mean. At a termination γ is 0; with n steps r is their sum
and γ is γⁿ. All else is DQN's: the exploration, the target network, and priorities, which are what the loss minimises (C51's
less the target's own entropy: a divergence), as in Hessel et al. 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_ext.rules import q_learning
from purejaxrl_ext.rules.dqn import DQNHparams
from purejaxrl_ext.rules.q_learning import huber
from purejaxrl_ext.types import Array, Metrics, Output, Rollout, Rule, hparam


class C51Hparams(DQNHparams):
    """DQN's settings but for ``huber_delta``, and the support's ends ``v_min`` < ``v_max``: returns beyond count as these."""

    v_min: Any = hparam(-10.0)
    v_max: Any = hparam(10.0)


class QRDQNHparams(DQNHparams):
    """DQN's settings; ``huber_delta`` is κ."""

    huber_delta: Any = hparam(1.0, 0.0, open_low=True)


class DistributionBatch(struct.PyTreeNode):
    """What distributional Q-learning aims at; leaves ``[B, ...]``.

    Attributes:
        obs, action: where and what.
        target: ``[B, K]`` the atoms' probabilities m, or the quantiles y.
        weight: of each sample in the loss (1 but for prioritised replay).
    """

    obs: Array
    action: Array
    target: Array
    weight: Array


def successor(output: Output) -> Output:
    """What targets need at the next state."""
    return Output(q_values=output.q_values, returns=output.returns, legal=output.legal)


def of_action(returns: Array, action: Array) -> Array:
    """``[B, K]`` of ``[B, A, K]`` and ``[B]``."""
    return jnp.take_along_axis(returns, action[:, None, None], axis=1)[:, 0]


def next_returns(rollout: Rollout, double: bool) -> Array:
    """What the target network says ``[B, K]`` of the return of a*."""
    chooser = rollout.next_online if double else rollout.next_output
    return of_action(rollout.next_output.returns, jnp.argmax(chooser.q_values, axis=-1))


def backed_up(rollout: Rollout, values: Array) -> Array:
    """r + γ (1 − terminated) x ``[B, K]`` of numbers x ``[B, K]`` or ``[1, K]``."""
    discount = rollout.discount * (1.0 - rollout.terminated.astype(rollout.discount.dtype))
    return rollout.reward[:, None] + discount[:, None] * values


def atoms(size: int, hparams: C51Hparams) -> Array:
    """z ``[K]``."""
    return hparams.v_min + (hparams.v_max - hparams.v_min) * jnp.linspace(0.0, 1.0, size, dtype=jnp.float32)


def project(values: Array, probabilities: Array, support: Array) -> Array:
    """The distribution on evenly spaced atoms ``support [K]`` that has ``probabilities [B, K]`` at ``values [B, K]``, each shared
    out between its two neighbours in proportion to nearness; one beyond the ends counts as the end (eq. 7)."""
    gap = support[1] - support[0]
    inside = jnp.clip(values, support[0], support[-1])
    share = jnp.maximum(0.0, 1.0 - jnp.abs(inside[:, None, :] - support[None, :, None]) / gap)
    return jnp.sum(share * probabilities[:, None, :], axis=-1)


def c51_targets(rollout: Rollout, hparams: C51Hparams, *, double: bool = False) -> DistributionBatch:
    """m of each sample ``[B]``."""
    probabilities = jax.nn.softmax(next_returns(rollout, double))
    support = atoms(probabilities.shape[-1], hparams)
    target = project(backed_up(rollout, support[None]), probabilities, support)
    return DistributionBatch(rollout.obs, rollout.action, target, jnp.ones_like(rollout.reward))


def c51_loss(output: Output, batch: DistributionBatch, hparams: C51Hparams) -> tuple[Array, Metrics]:
    """Weighted mean over ``[B]`` of the cross-entropy.

    Metrics: ``td_error`` ``[B]``, KL(m ‖ p); ``value`` and ``value_std`` of max_a Q, which the network gives on [0, 1].
    """
    log_p = jax.nn.log_softmax(of_action(output.returns, batch.action))
    cross_entropy = -jnp.sum(batch.target * log_p, axis=-1)
    own = jnp.sum(jax.scipy.special.xlogy(batch.target, batch.target), axis=-1)
    best = hparams.v_min + (hparams.v_max - hparams.v_min) * output.q_values.max(axis=-1)
    metrics = {"td_error": jnp.maximum(cross_entropy + own, 0.0), "value": best.mean(), "value_std": best.std()}
    return jnp.mean(batch.weight * cross_entropy), metrics


def qr_targets(rollout: Rollout, hparams: QRDQNHparams, *, double: bool = False) -> DistributionBatch:
    """y of each sample ``[B]``."""
    target = backed_up(rollout, next_returns(rollout, double))
    return DistributionBatch(rollout.obs, rollout.action, target, jnp.ones_like(rollout.reward))


def quantile_huber(quantiles: Array, target: Array, kappa: Array | float) -> Array:
    """Σ_i 1/K' Σ_j |τ_i − 1{u_ij < 0}| huber_κ(u_ij) ``[B]``, of ``quantiles [B, K]`` and ``target [B, K']`` (eq. 10)."""
    size = quantiles.shape[-1]
    tau = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    error = target[:, None, :] - quantiles[:, :, None]
    side = jnp.abs(tau[None, :, None] - (error < 0).astype(jnp.float32))
    return jnp.sum(jnp.mean(side * huber(error, kappa), axis=-1), axis=-1)


def qr_loss(output: Output, batch: DistributionBatch, hparams: QRDQNHparams) -> tuple[Array, Metrics]:
    """Weighted mean over ``[B]`` of the quantile Huber loss, which is the metric ``td_error`` ``[B]`` too."""
    error = quantile_huber(of_action(output.returns, batch.action), batch.target, hparams.huber_delta)
    return jnp.mean(batch.weight * error), {"td_error": error}


def _rule(config: Any, action_space: Any, targets: Callable[..., Any], loss: Callable[..., Any]) -> Rule:
    base = q_learning.rule(config, action_space)
    return base._replace(targets=partial(targets, double=config.double), loss=loss, successor=successor)


def c51_rule(config: Any, action_space: Any) -> Rule:
    """Q-learning's functions, with C51's targets and loss."""
    return _rule(config, action_space, c51_targets, c51_loss)


def qr_rule(config: Any, action_space: Any) -> Rule:
    """Q-learning's functions, with QR-DQN's targets and loss."""
    return _rule(config, action_space, qr_targets, qr_loss)
