"""Churn: what an update changes of what a network says, on a batch of states, and whose doing it is.

    ψφ      heads ψ on features φ, before the update;  ψ′ and φ′ after it
    churn             D(ψφ, ψ′φ′)
    churn_head        D(ψφ, ψ′φ)      what the heads alone have changed
    churn_features    D(ψφ, ψφ′)      what the representation alone has changed

D is KL(before ‖ after) of policies and the mean square of the difference of values, action values of all actions (Tang & Berseth
2024, arXiv 2409.04792, whose churn is the first of the three).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.networks import policies
from purejaxrl_ext.networks.structure import head_names
from purejaxrl_ext.types import Array, Metrics, Net, Output, PyTree


def churn(now: Output, before: Output) -> Metrics:
    """``policy_churn``, where there is a policy, and ``value_churn``."""
    name = "q_values" if isinstance(now.q_values, jax.Array) else "value"
    logged: dict[str, Array] = {"value_churn": jnp.square(getattr(now, name) - getattr(before, name)).mean()}
    if now.policy != ():
        logged["policy_churn"] = policies.kl_divergence(before.policy, now.policy).mean()
    return logged


def update_churn(net: Net, before: PyTree, after: PyTree, samples: PyTree, hparams: Any) -> Metrics:
    """For ``metrics=``: ``update_policy_churn``, ``update_value_churn``, and both with ``_head`` or ``_features`` behind."""
    heads = head_names(before)

    def mixed(of_heads: PyTree, of_features: PyTree) -> Output:
        params = {k: (of_heads if k in heads else of_features)["params"][k] for k in before["params"]}
        return net.evaluate({**before, "params": params}, samples)[0]

    first = mixed(before, before)
    kinds = {"": mixed(after, after), "_head": mixed(after, before), "_features": mixed(before, after)}
    return {f"update_{k}{end}": x for end, now in kinds.items() for k, x in churn(now, first).items()}
