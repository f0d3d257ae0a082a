"""DQN (Mnih et al. 2015): Q-learning's rule in the replay loop, with a target network.

    replay    transitions of an ε-greedy policy; each update learns from a batch drawn from them (algorithm 1)
    target    every C gradient updates  θ⁻ ← (1 − τ) θ⁻ + τ θ;  τ = 1 is the paper's copy, C = 1 with a small τ is
              Polyak averaging (Lillicrap et al. 2016)

The rule is :func:`purejaxrl_ext.rules.q_learning.dqn_rule`; double, n-step, dueling and prioritised DQN each replace one function.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.rules.q_learning import QHparams
from purejaxrl_ext.types import Array, PyTree, hparam


class DQNHparams(QHparams):
    """Q-learning's settings and those of the target network and of prioritised replay.

    Attributes:
        target_period: gradient updates between updates of the target network.
        tau: τ, its step towards the online network.
        priority_exponent: α of P(i) ∝ (|δ_i| + 1e-6)^α (Schaul et al. 2016, eq. 1).
        importance_exponent: β at the start of (N · P(i))^−β (section 3.4); it grows linearly to 1 over
        importance_anneal_steps: environment steps; 0: β is constant.
    """

    target_period: Any = hparam(200.0, 1.0, whole=True)
    tau: Any = hparam(1.0, 0.0, 1.0)
    priority_exponent: Any = hparam(0.6, 0.0)
    importance_exponent: Any = hparam(0.4, 0.0, 1.0)
    importance_anneal_steps: Any = hparam(0.0, 0.0)


def update_target(target: PyTree, online: PyTree, num_updates: Array, hparams: DQNHparams) -> PyTree:
    """θ⁻ after gradient update number ``num_updates`` (int32, from 1 on)."""
    due = num_updates % hparams.target_period.astype(jnp.int32) == 0
    share = jnp.where(due, hparams.tau, 0.0)
    # A select, so that a copy is one bit for bit: (1 − 1) θ⁻ + θ would not be where θ⁻ is infinite.
    return jax.tree.map(
        lambda old, new: jnp.where(due & (hparams.tau == 1.0), new, old + share * (new - old)), target, online
    )


def importance_exponent(hparams: DQNHparams, env_steps: Array) -> Array:
    """β after so many environment steps."""
    share = jnp.clip(env_steps / jnp.maximum(hparams.importance_anneal_steps, 1.0), 0.0, 1.0)
    share = jnp.where(hparams.importance_anneal_steps > 0, share, 0.0)
    return hparams.importance_exponent + share * (1.0 - hparams.importance_exponent)
