"""SPO: Simple Policy Optimization (Xie et al. 2024, arXiv 2401.16025): the ratio is held by a parabola instead of being clipped.

    L_π = −E[ r A − |A| (r − 1)² / (2 ε) ]      whose best ratio is 1 + ε sign(A), with a slope everywhere else

in place of PPO's clipped surrogate, in PPO and PFO. ``spo_share`` c mixes the two, (1 − c) L_PPO + c L_SPO: 1 is SPO, 0 is PPO.

Raises:
    ValueError: a rule without a clipped surrogate; any but PPO's and PFO's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from purejaxrl_ext.errors import check
from purejaxrl_ext.interventions.base import Intervention
from purejaxrl_ext.networks import policies
from purejaxrl_ext.rules import ppo
from purejaxrl_ext.types import Array, Metrics, Output, hparam


def surrogate(ratio: Array, advantage: Array, clip_eps: Array | float) -> Array:
    """r A − |A| (r − 1)² / (2 ε), per sample."""
    return ratio * advantage - jnp.abs(advantage) * jnp.square(ratio - 1.0) / (2.0 * clip_eps)


def mixed(loss: Callable[..., Any]) -> Callable[..., Any]:
    """PPO's or PFO's loss with SPO's surrogate in it."""
    options = getattr(loss, "keywords", {})
    check("normalize_advantage" in options, "interventions", "spo", "used with PPO or PFO, whose surrogate it replaces")

    def changed(output: Output, batch: ppo.PPOBatch, hparams: Any) -> tuple[Array, Metrics]:
        total, metrics = loss(output, batch, hparams)
        advantage = ppo.normalize(batch.advantage) if options["normalize_advantage"] else batch.advantage
        log_ratio = policies.log_prob(output.policy, batch.action) - batch.log_prob
        ratio = jnp.exp(jnp.clip(log_ratio, *ppo.LOG_RATIO_BOUNDS))
        policy_loss = -surrogate(ratio, advantage, hparams.clip_eps).mean()
        more = hparams.spo_share * (policy_loss - metrics["policy_loss"])
        return total + more, metrics | {"policy_loss": metrics["policy_loss"] + more}

    return changed


SPO = Intervention("spo", {"spo_share": hparam(1.0, 0.0, 1.0)}, loss=mixed)
