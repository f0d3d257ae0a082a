"""Sweeps: arms × grid × seeds, how they run, stop and go on, what they leave on disk, and how that is read back."""

from purejaxrl_ext.sweeps.along import load_states, saved_updates
from purejaxrl_ext.sweeps.cluster import initialize, launch
from purejaxrl_ext.sweeps.replay import replay
from purejaxrl_ext.sweeps.results import load
from purejaxrl_ext.sweeps.sweep import load_state, resume, sweep
from purejaxrl_ext.sweeps.trained import Policy, best, policy
