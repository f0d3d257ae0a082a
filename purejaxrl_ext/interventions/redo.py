"""ReDo (Sokar et al. 2023, arXiv 2302.12902): units that hardly speak begin anew.

    s_i = E|h_i| / mean_j E|h_j|  ≤ τ      over a sample of the update's data; h behind the activation, at all places of an image
    incoming weights, bias, scale ← fresh ones;  outgoing weights ← 0;  moments and step counts of all these ← 0

at the end of every k-th update, in all hidden layers at once: ``redo_every`` is k (infinite: never), ``redo_tau`` τ. The paper has
τ = 0.025 and 0.1, and 1,000 gradient steps of DQN in between. Heads, the units of a memory and target networks stay as they are.

Without its moments and step count, a unit's first steps would go where the dead one's went, or too far, and kill it again. Adam
and AdamW count the steps of each parameter here (see :mod:`~purejaxrl_ext.interventions.moments`); RMSProp and SGD count none. Of
RAdam, and of an optimiser of one's own without a ``scale_by_adam``, the moments alone are reset, and corrected as if they were
old: the first step is then up to (1 − β₁) / √(1 − β₂) times Adam's.
"""

from __future__ import annotations

from collections.abc import Sequence

from purejaxrl_ext.interventions import moments
from purejaxrl_ext.interventions.base import Context, Intervention
from purejaxrl_ext.networks import structure
from purejaxrl_ext.networks.structure import Layer
from purejaxrl_ext.representation.measures import scores
from purejaxrl_ext.types import Array, Learner, Metrics, Net, PyTree, hparam


def recycle(net: Net, learner: Learner, samples: PyTree, context: Context) -> tuple[Learner, Metrics]:
    """Begin dormant units anew where it is due; ``redo_units``: how many."""

    def dormant(found: Sequence[Layer]) -> list[Array]:
        output = net.evaluate(learner.params, samples)[0]
        said = structure.unit_outputs(output, found, learner.params)
        return [scores(x) <= context.hparams.redo_tau for x in said]

    return moments.renew_where_due("redo_units", net, learner, context, context.hparams.redo_every, dormant)


REDO = Intervention(
    "redo",
    {"redo_every": hparam(10.0, 1.0, whole=True), "redo_tau": hparam(0.025, 0.0)},
    after=recycle,
    optimizer=moments.aged,
)
