"""Interventions: what changes how a network learns besides its rule, one small file each."""

from purejaxrl_ext.interventions.adam_reset import ADAM_REL, ADAM_RESET
from purejaxrl_ext.interventions.base import Context, Intervention, is_due, when
from purejaxrl_ext.interventions.chain import CHAIN
from purejaxrl_ext.interventions.l2 import L2
from purejaxrl_ext.interventions.l2_init import L2_INIT
from purejaxrl_ext.interventions.redo import REDO
from purejaxrl_ext.interventions.shrink_perturb import SHRINK_PERTURB
from purejaxrl_ext.interventions.weight_clipping import WEIGHT_CLIPPING
from purejaxrl_ext.interventions.weight_decay import WEIGHT_DECAY

BUILT_IN = {
    i.name: i for i in (L2, WEIGHT_DECAY, L2_INIT, SHRINK_PERTURB, REDO, ADAM_RESET, ADAM_REL, WEIGHT_CLIPPING, CHAIN)
}

# By name; one of your own may be added, or given to ``make`` as it is.
INTERVENTIONS: dict[str, Intervention] = dict(BUILT_IN)
