"""Shrink and perturb (Ash & Adams 2020, arXiv 1910.08475): weights shrink, and a little of fresh ones is added.

    shrink_perturb        θ ← a θ + b θ_fresh         at the end of every k-th update
    soft_shrink_perturb   θ ← (1 − b) θ + b θ_fresh   after every step of the optimiser

θ_fresh are initial parameters drawn then; the optimiser's moments stay. ``shrink_perturb_shrink`` is a, ``shrink_perturb_noise`` b,
``shrink_perturb_every`` k; infinite: never. The paper has a = 0.4 and b = 0.1 whenever the data change. The soft kind is Juliani &
Ash's (2024, arXiv 2405.19153), ``soft_shrink_perturb_noise`` its b; it draws initial parameters at every step, and orthogonal ones
cost a factorisation each.
"""

from __future__ import annotations

import jax

from purejaxrl_ext.interventions.base import Context, Intervention, is_due, when
from purejaxrl_ext.types import Array, Learner, Metrics, Net, PyTree, hparam


def mix(net: Net, learner: Learner, samples: PyTree, context: Context) -> tuple[Learner, Metrics]:
    """a θ + b θ_fresh, where it is due."""

    def change(learner: Learner) -> Learner:
        hparams = context.hparams
        return mixed(net, learner, context.key, hparams.shrink_perturb_shrink, hparams.shrink_perturb_noise)

    return when(is_due(context.update, context.hparams.shrink_perturb_every), change, learner), {}


def mix_softly(net: Net, learner: Learner, context: Context) -> Learner:
    """(1 − b) θ + b θ_fresh."""
    noise = context.hparams.soft_shrink_perturb_noise
    return mixed(net, learner, context.key, 1.0 - noise, noise)


def mixed(net: Net, learner: Learner, key: Array, shrink: Array, noise: Array) -> Learner:
    """a θ + b θ_fresh."""
    fresh = net.init(key)
    return learner.replace(params=jax.tree.map(lambda w, x: shrink * w + noise * x, learner.params, fresh))


SHRINK_PERTURB = Intervention(
    "shrink_perturb",
    {
        "shrink_perturb_every": hparam(1.0, 1.0, whole=True),
        "shrink_perturb_shrink": hparam(0.999, 0.0, 1.0),
        "shrink_perturb_noise": hparam(0.001, 0.0),
    },
    after=mix,
)
SOFT_SHRINK_PERTURB = Intervention(
    "soft_shrink_perturb", {"soft_shrink_perturb_noise": hparam(1e-5, 0.0, 1.0)}, each=mix_softly
)
