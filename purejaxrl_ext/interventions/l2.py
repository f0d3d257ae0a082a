"""L2 regularisation: every parameter is drawn towards 0, through the loss.

    L ← L + λ ‖θ‖²,   the sum of squares of all parameters, biases too

Its gradient is clipped and scaled by the optimiser with the rule's; :mod:`~purejaxrl_ext.interventions.weight_decay` goes past it.
"""

from __future__ import annotations

from typing import Any

import optax

from purejaxrl_ext.interventions.base import Intervention
from purejaxrl_ext.types import Array, Metrics, Net, PyTree, hparam


def penalty(
    net: Net, params: PyTree, memory: PyTree, part: PyTree, other: PyTree, hparams: Any
) -> tuple[Array, Metrics]:
    """λ ‖θ‖²."""
    return hparams.l2_coef * optax.tree.norm(params, squared=True), {}


L2 = Intervention("l2", {"l2_coef": hparam(1e-4, 0.0)}, penalty=penalty)
