"""Weight clipping (Elsayed et al. 2024, arXiv 2407.01704): weights stay near the range in which they began.

    w ← clip(w, −κ/√n, κ/√n)   after each step; n the inputs of a unit, and 1/√n the bound of uniform initial weights

of weights with two axes or more. ``weight_clipping_kappa`` is κ; infinite: never. The paper's range is that of
``initializer="fan_in"``: of orthogonal weights a small κ cuts some at the first step.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.interventions.base import Context, Intervention
from purejaxrl_ext.networks.structure import fan_in, map_kernels
from purejaxrl_ext.types import Array, Learner, Net, hparam


def clip(net: Net, learner: Learner, context: Context) -> Learner:
    """Weights within ±κ/√n."""
    kappa = context.hparams.weight_clipping_kappa

    def within(w: Array) -> Array:
        bound = kappa / np.sqrt(fan_in(w))
        return jnp.clip(w, -bound, bound)

    return learner.replace(params=map_kernels(within, learner.params))


WEIGHT_CLIPPING = Intervention("weight_clipping", {"weight_clipping_kappa": hparam(2.0, 0.0, open_low=True)}, each=clip)
