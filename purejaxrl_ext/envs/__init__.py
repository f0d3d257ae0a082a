"""Worlds: the environment protocol, stepping many side by side, wrappers, and one file per suite."""

from purejaxrl_ext.envs.base import Environment, EnvStep, check_env, settle
from purejaxrl_ext.envs.make import SUITES, Suite, make_env, params_dict, register_suite
from purejaxrl_ext.envs.tabular import TabularEnv
from purejaxrl_ext.envs.tasks import (
    ActionPermutations,
    ObservationOffsets,
    ObservationPermutations,
    OneAfterAnother,
    RewardScales,
    Tasks,
)
from purejaxrl_ext.envs.vector import Pool, Transition, max_truncations, reset_pool, vec_reset, vec_step
from purejaxrl_ext.envs.wrappers import (
    AppendLegal,
    AppendTime,
    FlattenObservation,
    FrameStack,
    MaskRewards,
    Observe,
    SignRewards,
    StickyActions,
    Wrapper,
)
from purejaxrl_ext.spaces import Box, Discrete, MultiDiscrete, append_mask, split_mask, uniform_legal
