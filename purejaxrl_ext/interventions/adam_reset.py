"""Adam reset (Asadi et al. 2023, arXiv 2306.17833; Moalla et al. 2024): the optimiser forgets, since what it aims at has changed.

    m, v, t ← 0   before every k-th update, after the first      ``adam_reset_every``: k; infinite: never

Adam-Rel (Ellis et al. 2024, arXiv 2412.17113) keeps the moments and forgets the time alone, so that a gradient that has grown
makes no larger steps than Adam's first:

    t ← 0         before every k-th update, after the first      ``adam_rel_every``
"""

from __future__ import annotations

from purejaxrl_ext.interventions import moments
from purejaxrl_ext.interventions.base import Context, Intervention, is_due, when
from purejaxrl_ext.types import Array, Learner, Net, hparam


def reset(net: Net, learner: Learner, context: Context) -> Learner:
    """The optimiser's state as at the start, where it is due."""

    def change(learner: Learner) -> Learner:
        return learner.replace(opt_state=net.first_moments(learner.params, context.hparams))

    return when(_begins(context, context.hparams.adam_reset_every), change, learner)


def reset_time(net: Net, learner: Learner, context: Context) -> Learner:
    """The optimiser's counts of steps at 0, where it is due."""

    def change(learner: Learner) -> Learner:
        return learner.replace(opt_state=moments.restart_counts(learner.opt_state, learner.params))

    return when(_begins(context, context.hparams.adam_rel_every), change, learner)


def _begins(context: Context, every: Array) -> Array:
    """Whether k, 2 k, ... updates are done."""
    return is_due(context.update - 1, every)


ADAM_RESET = Intervention("adam_reset", {"adam_reset_every": hparam(1.0, 1.0, whole=True)}, before=reset)
ADAM_REL = Intervention("adam_rel", {"adam_rel_every": hparam(1.0, 1.0, whole=True)}, before=reset_time)
