"""Decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2): weights shrink past the optimiser, by the same share each.

    θ ← θ − α λ θ   for weights of two axes or more, after each step; α the update's learning rate

AdamW (``optimizer="adamw"``) decays biases and scales too, and does it before its step, from the same θ: a difference of α λ
times the step.
"""

from __future__ import annotations

from purejaxrl_ext.interventions.base import Context, Intervention
from purejaxrl_ext.networks.structure import map_kernels
from purejaxrl_ext.types import Learner, Net, hparam


def decay(net: Net, learner: Learner, context: Context) -> Learner:
    """θ − α λ θ."""
    share = context.learning_rate * context.hparams.weight_decay_coef
    return learner.replace(params=map_kernels(lambda w: w - share * w, learner.params))


WEIGHT_DECAY = Intervention("weight_decay", {"weight_decay_coef": hparam(0.01, 0.0)}, each=decay)
