"""Interventions: what changes how a network learns besides its rule, one small file each."""

from purejaxrl_ext.interventions.adam_reset import ADAM_REL, ADAM_RESET
from purejaxrl_ext.interventions.base import Context, Intervention, is_due, when
from purejaxrl_ext.interventions.chain import CHAIN
from purejaxrl_ext.interventions.continual_backprop import CONTINUAL_BACKPROP
from purejaxrl_ext.interventions.l2 import L2
from purejaxrl_ext.interventions.l2_init import L2_INIT, L2_INIT_MEAN, L2_INIT_NORM
from purejaxrl_ext.interventions.layer_reset import LAYER_RESET
from purejaxrl_ext.interventions.normalize_project import NORMALIZE_PROJECT
from purejaxrl_ext.interventions.parseval import PARSEVAL
from purejaxrl_ext.interventions.plasticity_injection import PLASTICITY_INJECTION
from purejaxrl_ext.interventions.redo import REDO
from purejaxrl_ext.interventions.regrama import REGRAMA
from purejaxrl_ext.interventions.shrink_perturb import SHRINK_PERTURB, SOFT_SHRINK_PERTURB
from purejaxrl_ext.interventions.snr import SNR
from purejaxrl_ext.interventions.spectral import SPECTRAL
from purejaxrl_ext.interventions.spo import SPO
from purejaxrl_ext.interventions.trac import TRAC
from purejaxrl_ext.interventions.wasserstein_init import WASSERSTEIN_INIT
from purejaxrl_ext.interventions.watch import WATCH
from purejaxrl_ext.interventions.weight_clipping import WEIGHT_CLIPPING
from purejaxrl_ext.interventions.weight_decay import WEIGHT_DECAY

# The order in which several are named in tests and tables: losses, resets of units and layers, what follows each step, the rest.
BUILT_IN = {
    i.name: i
    for i in (
        L2,
        WEIGHT_DECAY,
        L2_INIT,
        L2_INIT_MEAN,
        L2_INIT_NORM,
        WASSERSTEIN_INIT,
        PARSEVAL,
        SPECTRAL,
        SHRINK_PERTURB,
        SOFT_SHRINK_PERTURB,
        LAYER_RESET,
        CONTINUAL_BACKPROP,
        SNR,
        REGRAMA,
        REDO,
        ADAM_RESET,
        ADAM_REL,
        WEIGHT_CLIPPING,
        NORMALIZE_PROJECT,
        CHAIN,
        PLASTICITY_INJECTION,
        TRAC,
        SPO,
        WATCH,
    )
}

# By name; one of your own may be added, or given to ``make`` as it is.
INTERVENTIONS: dict[str, Intervention] = dict(BUILT_IN)
