"""Interventions: what changes how a network learns besides its rule, one small file each."""

from purejaxrl_ext.interventions.base import Context, Intervention, is_due, when

# By name; one of your own may be added, or given to ``make`` as it is.
INTERVENTIONS: dict[str, Intervention] = {}
