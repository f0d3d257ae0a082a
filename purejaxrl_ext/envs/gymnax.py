"""The suite of gymnax (Lange 2022): classic control, bsuite, MinAtar. A bare name is one of its."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.envs.gymnax_drawings import DRAWINGS
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.types import Array, Box, Discrete, PyTree, abstract_key

# It reads its images from the network when made.
_NEEDS_DOWNLOAD = {"MNISTBandit-bsuite"}
# What gymnax imports for its own drawing alone, and SciPy with it: most of the time that its import takes.
_DRAWING = ("seaborn", "matplotlib.pyplot")
_GRIDS = {"Catch-bsuite", "DeepSea-bsuite", "FourRooms-misc", "FrozenLake-misc", "MetaMaze-misc"}


def _gymnax() -> Any:
    # Its import computes, after which neither devices nor other processes can be chosen: not before it is needed.
    with _later(*_DRAWING):
        import gymnax

    return gymnax


class _Later(types.ModuleType):
    """Stands for a module, which is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _later(*names: str) -> Iterator[None]:
    """Inside, imports of these modules import nothing yet."""
    standing_in = {name: _Later(name) for name in names if name not in sys.modules}
    sys.modules.update(standing_in)
    try:
        yield
    finally:
        for name, module in standing_in.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


@functools.cache
def _gymnax_make(name: str, full_action_set: bool) -> tuple[Any, Any]:
    if full_action_set:
        return _gymnax().make(name, use_minimal_action_set=False)
    return _gymnax().make(name)


@dataclass(frozen=True)
class GymnaxEnv:
    """A gymnax environment, without gymnax's auto-reset (which resets at every step).

    Observations that a network cannot take are turned into ones that it can: FrozenLake's index to one-hot, integer
    vectors to float. MinAtar's 0/1 planes are kept as bool, an eighth of the memory of float32 and more.

    Attributes:
        name: gymnax's name.
        params: sorted (name, value) pairs that differ from the environment's defaults.
        full_action_set: MinAtar only.
    """

    name: str
    params: tuple[tuple[str, Any], ...] = ()
    full_action_set: bool = False

    def __post_init__(self) -> None:
        if self.name in _NEEDS_DOWNLOAD:
            raise ValueError(f"environment {self.name!r} downloads its data when made, which is not supported")
        if self.name not in names():
            raise ValueError(
                unknown_name("environment", self.name, names(), 'Also "brax:hopper", "mdp:maze" and so on.')
            )
        is_minatar = self.name.endswith("-MinAtar")
        check(is_minatar or not self.full_action_set, "full_action_set", True, "False outside MinAtar")
        _check_params(self.name, dict(self.params))
        # Now, outside any trace: spaces hold arrays, which a trace would turn into tracers.
        _ = self.action_space

    @property
    def _env(self) -> Any:
        return _gymnax_make(self.name, self.full_action_set)[0]

    @property
    def env_params(self) -> Any:
        """gymnax's own parameter struct, with ours put in."""
        default = _gymnax_make(self.name, self.full_action_set)[1]
        arrays = {k: jnp.asarray(v, getattr(default, k).dtype) for k, v in self.params if isinstance(v, tuple)}
        return default.replace(**dict(self.params) | arrays)

    @property
    def time_limit(self) -> int:
        default = _gymnax_make(self.name, self.full_action_set)[1].max_steps_in_episode
        return int(dict(self.params).get("max_steps_in_episode", default))

    @functools.cached_property
    def action_space(self) -> Discrete | Box:
        space = self._env.action_space(self.env_params)
        if hasattr(space, "n"):
            return Discrete(int(space.n))
        low, high = (np.broadcast_to(np.asarray(x, np.float32), space.shape) for x in (space.low, space.high))
        return Box(tuple(low.ravel().tolist()), tuple(high.ravel().tolist()))

    @functools.cached_property
    def observation_shape(self) -> tuple[int, ...]:
        return jax.eval_shape(self.reset, abstract_key())[1].shape

    @functools.cached_property
    def _num_observations(self) -> int | None:
        return getattr(self._env.observation_space(self.env_params), "n", None)

    @functools.cached_property
    def _state_kinds(self) -> PyTree:
        # reset gives Python ints and weak types where step gives arrays: a scan wants one kind.
        env, params = self._env, self.env_params
        action = jnp.zeros(
            self.action_space.shape, jnp.int32 if isinstance(self.action_space, Discrete) else jnp.float32
        )

        def first(key: Array) -> PyTree:
            return env.step_env(key, env.reset_env(key, params)[1], action, params)[1]

        with jax.numpy_rank_promotion("allow"):
            return jax.eval_shape(first, abstract_key())

    def _observe(self, obs: Array) -> Array:
        if self._num_observations is not None:
            return jax.nn.one_hot(obs, self._num_observations)
        return obs.astype(jnp.bool_) if self.name.endswith("-MinAtar") else obs.astype(jnp.float32)

    def _settle(self, state: PyTree) -> PyTree:
        return jax.tree.map(lambda kind, x: jnp.asarray(x, kind.dtype).reshape(kind.shape), self._state_kinds, state)

    @property
    def render(self) -> Callable[[PyTree], np.ndarray] | None:
        """What draws a state as ``[H, W, 3]`` uint8; None where the observation is drawn, as MinAtar's planes are."""
        drawing = DRAWINGS.get(self.name)
        return None if drawing is None else lambda env_state: np.asarray(drawing(self._env, env_state))

    @property
    def fps(self) -> float:
        """Real time where the environment knows one, slow enough to follow each step in grids."""
        step = getattr(self.env_params, "dt", None) or getattr(self.env_params, "tau", None)
        if step is not None:
            return min(50.0, round(1.0 / step, 3))
        if self.name.endswith("-MinAtar"):
            return 15.0
        return 4.0 if self.name in _GRIDS else 30.0

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        with jax.numpy_rank_promotion("allow"):
            obs, state = self._env.reset_env(key, self.env_params)
        return self._settle(state), self._observe(obs)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        with jax.numpy_rank_promotion("allow"):
            obs, state, reward, terminated, _ = self._env.step_env(key, env_state, action, self.env_params)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        return EnvStep(self._settle(state), self._observe(obs), reward, jnp.asarray(terminated, jnp.bool_).reshape(()))


def _check_params(name: str, params: dict[str, Any]) -> None:
    default = _gymnax_make(name, False)[1]
    fields = [f.name for f in dataclasses.fields(default)]
    for key, value in params.items():
        if key not in fields:
            raise ValueError(unknown_name(f"env_params of {name}", key, fields))
        shape, allowed = np.shape(getattr(default, key)), "a number"
        if shape:
            allowed = f"numbers of shape {shape}"
        ok = np.asarray(value).dtype.kind in "biuf" and np.shape(value) == shape
        check(ok, f"env_params[{key!r}]", value, allowed)
    limit = params.get("max_steps_in_episode", 1)
    check(limit > 0 and limit == int(limit), "env_params['max_steps_in_episode']", limit, "a positive int")


def names() -> list[str]:
    """gymnax's environments, but for those that cannot be made."""
    return [name for name in _gymnax().registered_envs if name not in _NEEDS_DOWNLOAD]


def make(name: str, env_params: dict[str, Any], *, full_action_set: bool = False) -> GymnaxEnv:
    """By gymnax's name; ``env_params`` are fields of its parameter struct, of which those that say something new are kept."""
    if name in names():
        default = _gymnax_make(name, False)[1]
        same = {k for k, v in env_params.items() if hasattr(default, k) and np.array_equal(v, getattr(default, k))}
        env_params = {k: v for k, v in env_params.items() if k not in same}
    return GymnaxEnv(name, tuple(sorted(env_params.items())), full_action_set)
