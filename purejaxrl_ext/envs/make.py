"""Environments by name, in the wrappers asked for, and the register of suites.

A suite is one file: a function ``make(name, env_params) -> Environment`` (see :mod:`purejaxrl_ext.envs.base` for what an
environment needs), registered under a prefix::

    # my_worlds.py
    def make(name, env_params):
        return Corridor(length=int(name), **env_params)

    prx.envs.register_suite("corridor", make, names=("5", "10"))

    # elsewhere
    import my_worlds
    prx.make("ppo", "corridor:10")

A run stores the name alone, so whoever loads or resumes one imports that file first. The suites shipped are imported when one
of their worlds is first made. A bare name is gymnax's.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from purejaxrl_ext.envs.base import Environment, check_env, is_tree, plain
from purejaxrl_ext.envs.wrappers import (
    AppendLegal,
    AppendTime,
    FlattenObservation,
    FrameStack,
    MaskRewards,
    Observe,
    SignRewards,
    StickyActions,
)
from purejaxrl_ext.errors import check, is_int, unknown_name
from purejaxrl_ext.types import abstract_key


class Suite(NamedTuple):
    """What is behind a prefix.

    Attributes:
        make: ``(name, env_params: dict, **options) -> Environment``. Its keyword-only parameters are the options of
            :func:`make_env` that it takes, of which there is one, ``full_action_set``.
        names: ``() -> names``, for suggestions alone: it needs not be complete, nor import what makes the environments.
    """

    make: Callable[..., Any]
    names: Callable[[], Iterable[str]]


# By prefix: a suite, or the module whose ``make`` and ``names`` are one.
SUITES: dict[str, str | Suite] = {
    "gymnax": "purejaxrl_ext.envs.gymnax",
    "brax": "purejaxrl_ext.envs.brax",
    "mdp": "purejaxrl_ext.envs.tabular",
    "pgx": "purejaxrl_ext.envs.pgx",
    "gymnasium": "purejaxrl_ext.envs.gymnasium",
    "ale": "purejaxrl_ext.envs.ale",
    "envpool": "purejaxrl_ext.envs.envpool",
    "octax": "purejaxrl_ext.envs.octax",
    "xminigrid": "purejaxrl_ext.envs.xminigrid",
}


def register_suite(
    prefix: str, make: Callable[..., Any], names: Iterable[str] | Callable[[], Iterable[str]] = ()
) -> None:
    """Let ``"prefix:name"`` be an environment of one's own suite. Registered again, the later one counts.

    Args:
        prefix: what stands before the colon.
        make: as :class:`Suite` has it.
        names: of its environments, or a function that gives them; for suggestions alone.

    Raises:
        ValueError: a prefix that is no word or that of a shipped suite, or a ``make`` that does not take a name and parameters.
    """
    word = isinstance(prefix, str) and prefix.replace("-", "_").isidentifier()
    check(word, "prefix", prefix, "a word of letters, digits, - and _")
    check(not isinstance(SUITES.get(prefix), str), "prefix", prefix, "another one: this suite is shipped")
    try:
        inspect.signature(make).bind("name", {})
    except (TypeError, ValueError):
        check(False, "make", make, "a function (name, env_params) -> Environment")
    known = names if callable(names) else tuple(names)
    SUITES[prefix] = Suite(make, known if callable(known) else lambda: known)


def suite(prefix: str) -> Suite:
    """What is registered under a prefix.

    Raises:
        ValueError: nothing is.
    """
    if prefix not in SUITES:
        more = 'Names are "suite:name". Is it registered elsewhere? Import the module that registers it first.'
        raise ValueError(unknown_name("suite of environments", prefix, SUITES, more))
    found = SUITES[prefix]
    if isinstance(found, str):
        module = importlib.import_module(found)
        return Suite(module.make, module.names)
    return found


def params_dict(env_params: Any) -> dict[str, Any]:
    """``env_params`` as plain values by name, which can be stored; from a mapping, a dataclass (gymnax's ``EnvParams``) or None.

    Arrays become tuples, and numbers of numpy Python's own.
    """
    if env_params is None:
        return {}
    if dataclasses.is_dataclass(env_params) and not isinstance(env_params, type):
        env_params = {f.name: getattr(env_params, f.name) for f in dataclasses.fields(env_params)}
    ok = isinstance(env_params, Mapping) and all(isinstance(key, str) for key in env_params)
    check(ok, "env_params", env_params, "a dict of parameters by name, or a gymnax EnvParams")
    return {key: plain(value) for key, value in env_params.items()}


def make_env(
    env: str | Environment,
    env_params: Any = None,
    *,
    full_action_set: bool = False,
    sticky_actions: float = 0.0,
    mask_rewards: float = 0.0,
    sign_rewards: bool = False,
    observe: Iterable[int] | None = None,
    frame_stack: int = 1,
    append_time: bool = False,
) -> Environment:
    """An environment by name, in the wrappers asked for.

    Two wrappers need no asking: an observation of several arrays becomes one vector (:class:`FlattenObservation`), and an
    environment with ``legal_actions`` shows them to the networks (:class:`AppendLegal`).

    Args:
        env: a gymnax name (``"Breakout-MinAtar"``), a suite and a name in it (``"brax:hopper"``, ``"mdp:cliff_walking"``,
            ``"pgx:chess"``, ``"gymnasium:FrozenLake-v1"``, or of a suite of one's own: :func:`register_suite`), or an object that
            follows the protocol, which is only wrapped.
        env_params: parameters of a gymnax environment (``{"max_steps_in_episode": 5000}``, or its ``EnvParams``); for Brax
            ``backend`` (``"generalized"``, ``"spring"``, ``"positional"`` or ``"mjx"``), ``episode_length`` and those of its own
            class; for a tabular MDP ``time_limit`` and the arguments of its function in :mod:`purejaxrl_ext.envs.mdps`; for
            a game of pgx ``opponent`` and ``seat``; for Gymnasium keyword arguments of ``gymnasium.make``.
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
        TypeError: an environment that does not follow the protocol.
    """
    made: Any = env
    if isinstance(env, str):
        made = _by_name(env, params_dict(env_params), {"full_action_set": True} if full_action_set else {})
    else:
        check(not env_params, "env_params", env_params, "None for an environment given as an object")
        check(not full_action_set, "full_action_set", full_action_set, "False for an environment given as an object")
    check_env(made)
    if is_tree(jax.eval_shape(made.reset, abstract_key())[1]):
        made = FlattenObservation(made)
    made = _with_rewards(made, sticky_actions, mask_rewards, sign_rewards)
    made = _with_observations(made, observe, frame_stack, append_time)
    if getattr(made, "legal_actions", None) is not None:
        made = AppendLegal(made)
    _check_renewal(env)
    outermost = getattr(env, "resume", None) is None or made is env
    allowed = (
        "the outermost wrapper: what else wraps the environment goes inside it, make_env(name, ...) and then the tasks"
    )
    check(outermost, "env", getattr(env, "name", env), allowed)
    return made


def _check_renewal(env: Any) -> None:
    """Raise ``ValueError`` where tasks are around an environment that begins episodes by itself."""
    inner = getattr(env, "env", None)
    tasks = getattr(env, "resume", None) is not None and getattr(inner, "renew", None) is not None
    check(not tasks, "env", getattr(env, "name", env), "an environment in JAX: those on the host take no tasks")


def _by_name(name: str, env_params: dict[str, Any], options: dict[str, Any]) -> Any:
    prefix, colon, bare = name.partition(":")
    if not colon:
        prefix, bare = "gymnax", name
        _check_bare(name)
    make = suite(prefix).make
    taken = inspect.signature(make).parameters
    for option, value in options.items():
        check(option in taken, option, value, "False outside MinAtar")
    return make(bare, env_params, **options)


def _check_bare(name: str) -> None:
    """Raise ``ValueError`` where a name without a suite is not gymnax's, but like one of another suite."""
    known = list(suite("gymnax").names())
    others = {n: f"{prefix}:{n}" for prefix in SUITES if prefix != "gymnax" for n in suite(prefix).names()}
    if name not in known and difflib.get_close_matches(name.lower(), [n.lower() for n in others]):
        more = "All but gymnax's begin with their suite."
        raise ValueError(unknown_name("environment", name, [*known, *others.values()], more))


def _with_rewards(env: Any, sticky_actions: float, mask_rewards: float, sign_rewards: bool) -> Any:
    for field, value in (("sticky_actions", sticky_actions), ("mask_rewards", mask_rewards)):
        number = isinstance(plain(value), int | float)
        check(number and 0.0 <= value <= 1.0, field, value, "a probability in [0, 1]")
    if sticky_actions > 0:
        free = getattr(env, "legal_actions", None) is None
        check(free, "sticky_actions", sticky_actions, f"0 for {env.name}, where the previous action may be illegal")
        once = not getattr(env, "repeats_actions", False)
        instead = (
            f"0 for {env.name}, which repeats them by itself: env_params['repeat_action_probability'] says how often"
        )
        check(once, "sticky_actions", sticky_actions, instead)
        env = StickyActions(env, float(sticky_actions))
    if mask_rewards > 0:
        env = MaskRewards(env, float(mask_rewards))
    return SignRewards(env) if sign_rewards else env


def _with_observations(env: Any, observe: Iterable[int] | None, frame_stack: int, append_time: bool) -> Any:
    if observe is not None:
        env = Observe(env, _indices(observe, env))
    size = plain(frame_stack)
    check(is_int(size) and size >= 1, "frame_stack", frame_stack, "an int of at least 1")
    if size > 1:
        shape = env.observation_shape
        check(len(shape) > 0, "frame_stack", frame_stack, f"1 for {env.name}, whose observation is a scalar")
        env = FrameStack(env, size)
    if append_time:
        vector = len(env.observation_shape) == 1
        check(vector, "append_time", True, f"False for {env.name}, whose observation is no vector")
        check(env.time_limit is not None, "append_time", True, f"False for {env.name}, which has no time limit")
        env = AppendTime(env)
    return env


def _indices(observe: Any, env: Environment) -> tuple[int, ...]:
    shape = env.observation_shape
    check(len(shape) == 1, "observe", observe, f"None for {env.name}, whose observation is no vector")
    every = tuple(range(shape[0]))
    wanted = plain(tuple(observe)) if isinstance(observe, Iterable) else ()
    ok = len(wanted) > 0 and all(is_int(i) and i in every for i in wanted)
    check(ok, "observe", observe, f"a sequence of indices of the {shape[0]} entries that {env.name} shows")
    check(len(set(wanted)) == len(wanted), "observe", observe, "different indices")
    check(wanted != every, "observe", observe, f"None where all of {env.name} is seen")
    return wanted
