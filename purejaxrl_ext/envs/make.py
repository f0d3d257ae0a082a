"""Environments by name, in the wrappers asked for.

A suite registers under a prefix, ``"brax:hopper"``, and is imported when one of its worlds is first made; a bare name is gymnax's.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from purejaxrl_ext.envs.base import Environment, check_env
from purejaxrl_ext.envs.wrappers import AppendTime, FrameStack, MaskRewards, Observe, SignRewards, StickyActions
from purejaxrl_ext.errors import check, is_int, unknown_name

# By prefix: ``(name, env_params, **options) -> Environment``, or where such a function is to be imported from.
SUITES: dict[str, str | Callable[..., Any]] = {
    "gymnax": "purejaxrl_ext.envs.gymnax:make",
    "brax": "purejaxrl_ext.envs.brax:make",
    "mdp": "purejaxrl_ext.envs.tabular:make",
}


def suite(prefix: str) -> Callable[..., Any]:
    """What makes the environments of a suite.

    Raises:
        ValueError: no suite is registered under ``prefix``.
    """
    if prefix not in SUITES:
        raise ValueError(unknown_name("suite of environments", prefix, SUITES, 'Names are "suite:name".'))
    found = SUITES[prefix]
    if isinstance(found, str):
        module, _, name = found.partition(":")
        return getattr(importlib.import_module(module), name)
    return found


def make_env(
    env: str | Environment,
    env_params: dict[str, Any] | None = None,
    *,
    full_action_set: bool = False,
    sticky_actions: float = 0.0,
    mask_rewards: float = 0.0,
    sign_rewards: bool = False,
    observe: Sequence[int] | None = None,
    frame_stack: int = 1,
    append_time: bool = False,
) -> Environment:
    """An environment by name, in the wrappers asked for.

    Args:
        env: a gymnax name (``"Breakout-MinAtar"``), ``"brax:"`` and a Brax name (``"brax:hopper"``), ``"mdp:"`` and the name
            of a tabular MDP (``"mdp:cliff_walking"``), or an object that follows the protocol, which is only wrapped.
        env_params: parameters of a gymnax environment (``{"max_steps_in_episode": 5000}``); for Brax ``backend``
            (``"generalized"``, ``"spring"``, ``"positional"`` or ``"mjx"``), ``episode_length`` and those of its own class;
            for a tabular MDP ``time_limit`` and the arguments of its function in :mod:`purejaxrl_ext.envs.mdps`.
        full_action_set: MinAtar only, all six actions instead of those that the game uses.
        sticky_actions: probability that the environment repeats the previous action (Machado et al. 2018).
        mask_rewards: probability that a reward is replaced by 0 for the agent; the episode's return stays the true one.
        sign_rewards: the agent learns from the sign of the reward (Mnih et al. 2015); the return stays the true one.
        observe: which entries of a vector observation the agent sees, in this order; ``(0, 2)`` hides CartPole's velocities.
        frame_stack: the agent sees the last so many observations, side by side on the last axis, oldest first; before an
            episode has as many, its first one stands for those missing.
        append_time: append the episode's time, scaled to [−1, 1], to a vector observation (Pardo et al. 2018).

    Raises:
        ValueError: an unknown name or parameter, or a wrapper that does not apply.
    """
    name = env if isinstance(env, str) else getattr(env, "name", type(env).__name__)
    for field, value in (("sticky_actions", sticky_actions), ("mask_rewards", mask_rewards)):
        check(0.0 <= value <= 1.0, field, value, "a probability in [0, 1]")
    made: Any = env
    if isinstance(env, str):
        prefix, _, bare = env.rpartition(":")
        makes = suite(prefix or "gymnax")
        options = {"full_action_set": True} if full_action_set else {}
        known = set(inspect.signature(makes).parameters)
        check(set(options) <= known, "full_action_set", full_action_set, "False outside MinAtar")
        made = makes(bare, dict(env_params or {}), **options)
    else:
        check(not env_params, "env_params", env_params, "None for an environment given as an object")
        check(not full_action_set, "full_action_set", full_action_set, "False for an environment given as an object")
    check_env(made)
    if sticky_actions > 0:
        made = StickyActions(made, float(sticky_actions))
    if mask_rewards > 0:
        made = MaskRewards(made, float(mask_rewards))
    if sign_rewards:
        made = SignRewards(made)
    if observe is not None:
        made = Observe(made, _indices(observe, made))
    shape = made.observation_shape
    check(is_int(frame_stack) and frame_stack >= 1, "frame_stack", frame_stack, "an int of at least 1")
    if frame_stack > 1:
        check(len(shape) > 0, "frame_stack", frame_stack, f"1 for {name}, whose observation is a scalar")
        made = FrameStack(made, frame_stack)
    if append_time:
        check(
            len(made.observation_shape) == 1, "append_time", True, f"False for {name}, whose observation is no vector"
        )
        check(made.time_limit is not None, "append_time", True, f"False for {name}, which has no time limit")
        made = AppendTime(made)
    return made


def _indices(observe: Any, env: Environment) -> tuple[int, ...]:
    shape = env.observation_shape
    check(len(shape) == 1, "observe", observe, f"None for {env.name}, whose observation is no vector")
    every = tuple(range(shape[0]))
    ok = isinstance(observe, Sequence) and len(observe) > 0 and all(is_int(i) and i in every for i in observe)
    check(ok, "observe", observe, f"a sequence of indices of the {shape[0]} entries that {env.name} shows")
    check(len(set(observe)) == len(observe), "observe", observe, "different indices")
    check(tuple(observe) != every, "observe", observe, f"None where all of {env.name} is seen")
    return tuple(observe)
