"""CHAIN (Tang & Berseth 2024, arXiv 2409.04792): what a step changes on samples that it was not made for, its churn, costs.

    L ← L + λ E_s[ KL(π_prev(·|s) ‖ π_θ(·|s)) ] + λ_V E_s[ (V_θ(s) − V_prev(s))² ]          with a policy
    L ← L + λ E_s,a[ (Q_θ(s, a) − Q_prev(s, a))² ]                                           with action values, all actions

s being samples of the same update drawn apart from the minibatch. The network as it is has no churn yet, so the last step's
stands in for the next one's: prev is two steps before what this step makes, as in the authors' code, where the newest of the
networks kept is the present one. ``chain_coef`` is λ, ``chain_value_coef`` λ_V (0 by default, and not read without a policy). They
are constant, or with ``chain_ratio`` ρ > 0 weigh the two against each other alone, and all of the churn's part of the loss is

    ρ |L| C / stop_gradient(C)          C = λ E[KL] + λ_V E[(ΔV)²]

so that its size follows that of the rule's loss, as the authors have it for sets of tasks; they take running means of L and C, here
they are the minibatch's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.interventions.base import Context, Intervention
from purejaxrl_ext.representation.churn import churn
from purejaxrl_ext.types import Array, Learner, Metrics, Net, PyTree, hparam


class Past(NamedTuple):
    """Parameters one and two steps before those that the next step makes."""

    one: PyTree
    two: PyTree


def begin(key: Array, params: PyTree) -> Past:
    """Both as at the start."""
    return Past(params, params)


def penalty(net: Net, params: PyTree, memory: Past, part: PyTree, other: PyTree, hparams: Any) -> tuple[Array, Metrics]:
    """The churn on ``other``; metrics ``policy_churn`` and ``value_churn``."""
    now, before = (net.evaluate(p, other)[0] for p in (params, memory.two))
    logged = churn(now, before)
    by_policy = "policy_churn" in logged
    value_coef = hparams.chain_value_coef if by_policy else hparams.chain_coef
    total = value_coef * logged["value_churn"] + (hparams.chain_coef * logged["policy_churn"] if by_policy else 0.0)
    size = jnp.abs(net.loss(params, part, hparams)[0]) / (total + 1e-8)
    by_ratio = jax.lax.stop_gradient(hparams.chain_ratio * size)
    return jnp.where(hparams.chain_ratio > 0, by_ratio, 1.0) * total, logged


def remember(net: Net, learner: Learner, context: Context) -> Learner:
    """The present parameters become those of one step before."""
    return learner.replace(memory=Past(learner.params, learner.memory.one))


CHAIN = Intervention(
    "chain",
    {"chain_coef": hparam(1.0, 0.0), "chain_value_coef": hparam(0.0, 0.0), "chain_ratio": hparam(0.0, 0.0)},
    init=begin,
    penalty=penalty,
    each=remember,
)
