"""Shrink and perturb (Ash & Adams 2020, arXiv 1910.08475): weights shrink, and a little of fresh ones is added.

    θ ← a θ + b θ_fresh   at the end of every k-th update, θ_fresh initial parameters drawn then

``shrink_perturb_shrink`` is a, ``shrink_perturb_noise`` b, ``shrink_perturb_every`` k; infinite: never. The paper has a = 0.4 and
b = 0.1 whenever the data change. The soft kind (Juliani & Ash 2024, arXiv 2405.19153) is a = 1 − b with a small b each time, as by
default; theirs comes with each gradient step, of which an update has many. The optimiser's moments stay.
"""

from __future__ import annotations

import jax

from purejaxrl_ext.interventions.base import Context, Intervention, is_due, when
from purejaxrl_ext.types import Learner, Metrics, Net, PyTree, hparam


def mix(net: Net, learner: Learner, samples: PyTree, context: Context) -> tuple[Learner, Metrics]:
    """a θ + b θ_fresh, where it is due."""
    shrink, noise = context.hparams.shrink_perturb_shrink, context.hparams.shrink_perturb_noise

    def change(learner: Learner) -> Learner:
        fresh = net.init(context.key)
        return learner.replace(params=jax.tree.map(lambda w, x: shrink * w + noise * x, learner.params, fresh))

    return when(is_due(context.update, context.hparams.shrink_perturb_every), change, learner), {}


SHRINK_PERTURB = Intervention(
    "shrink_perturb",
    {
        "shrink_perturb_every": hparam(1.0, 1.0, whole=True),
        "shrink_perturb_shrink": hparam(0.999, 0.0, 1.0),
        "shrink_perturb_noise": hparam(0.001, 0.0),
    },
    after=mix,
)
