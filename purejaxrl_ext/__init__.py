"""Deep RL trained entirely inside JAX, vectorised over seeds, environments and hyperparameters."""

from purejaxrl_ext import devices as _devices

_devices.use_cores()
_devices.use_compilation_cache()

from purejaxrl_ext.cluster import initialize, launch
from purejaxrl_ext.envs import Box, Discrete, EnvStep, make_env
from purejaxrl_ext.make import ALGORITHMS, make
from purejaxrl_ext.policies import Categorical, Gaussian, TanhGaussian
from purejaxrl_ext.results import load
from purejaxrl_ext.sweep import load_state, resume, sweep
from purejaxrl_ext.train import evaluate, train
from purejaxrl_ext.trained import Policy, best, policy
from purejaxrl_ext.types import Algorithm, Output, Representation, Rollout, Rule, State
