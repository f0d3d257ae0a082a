"""Deep RL trained entirely inside JAX, vectorised over seeds, environments and hyperparameters."""

import importlib as _importlib

from purejaxrl_ext import devices as _devices

_devices.use_cores()
_devices.use_one_blas_thread()
_devices.use_compilation_cache()

from purejaxrl_ext.algorithms import ALGORITHMS, Recipe, make
from purejaxrl_ext.envs import Box, Discrete, EnvStep, MultiDiscrete, TabularEnv, make_env
from purejaxrl_ext.interventions import INTERVENTIONS, Intervention
from purejaxrl_ext.loops import evaluate, train
from purejaxrl_ext.networks import Categorical, Gaussian, MultiCategorical, TanhGaussian
from purejaxrl_ext.sweeps import Policy, best, initialize, launch, load, load_state, policy, resume, sweep
from purejaxrl_ext.types import Algorithm, Learner, Net, Output, Representation, Rollout, Rule, State, hparam
from purejaxrl_ext.sweeps import (
    load_states,
    replay,
    saved_updates,
)

# Modules that notebooks and scripts call by name, ``from purejaxrl_ext import plots``: each is imported when first asked for.
_MODULES = {
    "config": "algorithms",
    "presets": "algorithms",
    "control": "tabular",
    "exact": "tabular",
    "prediction": "tabular",
    "mdps": "envs",
    "logs": "sweeps",
    "metrics": "representation",
    "plots": "analysis",
    "render": "analysis",
    "stats": "analysis",
    "policies": "networks",
} | dict.fromkeys(("dqn", "pfo", "ppo", "q_learning", "reinforce", "returns"), "rules")


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _importlib.import_module(f"{__name__}.{_MODULES[name]}.{name}")
