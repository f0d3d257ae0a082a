"""The suite of gymnax (Lange 2022): classic control, bsuite, MinAtar. A bare name is one of its."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.types import Array, Box, Discrete, PyTree, abstract_key

# It reads its images from the network when made.
_NEEDS_DOWNLOAD = {"MNISTBandit-bsuite"}


def _gymnax() -> Any:
    # Its import computes, after which neither devices nor other processes can be chosen: not before it is needed.
    import gymnax

    return gymnax


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
        known = [n for n in _gymnax().registered_envs if n not in _NEEDS_DOWNLOAD]
        if self.name in _NEEDS_DOWNLOAD:
            raise ValueError(f"environment {self.name!r} downloads its data when made, which is not supported")
        if self.name not in known:
            raise ValueError(unknown_name("environment", self.name, known, 'Also "brax:hopper", "mdp:maze" and so on.'))
        is_minatar = self.name.endswith("-MinAtar")
        check(is_minatar or not self.full_action_set, "full_action_set", True, "False outside MinAtar")
        fields = [f.name for f in dataclasses.fields(_gymnax_make(self.name, False)[1])]
        for key, _ in self.params:
            if key not in fields:
                raise ValueError(unknown_name(f"env_params of {self.name}", key, fields))
        # Now, outside any trace: spaces hold arrays, which a trace would turn into tracers.
        _ = self.action_space
        limit = self.time_limit
        check(limit > 0, "env_params['max_steps_in_episode']", limit, "a positive int")

    @property
    def _env(self) -> Any:
        return _gymnax_make(self.name, self.full_action_set)[0]

    @property
    def env_params(self) -> Any:
        """gymnax's own parameter struct, with ours put in."""
        return _gymnax_make(self.name, self.full_action_set)[1].replace(**dict(self.params))

    @property
    def time_limit(self) -> int:
        return int(self.env_params.max_steps_in_episode)

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

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        with jax.numpy_rank_promotion("allow"):
            obs, state = self._env.reset_env(key, self.env_params)
        return self._settle(state), self._observe(obs)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        with jax.numpy_rank_promotion("allow"):
            obs, state, reward, terminated, _ = self._env.step_env(key, env_state, action, self.env_params)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        return EnvStep(self._settle(state), self._observe(obs), reward, jnp.asarray(terminated, jnp.bool_).reshape(()))


def make(name: str, env_params: dict[str, Any], *, full_action_set: bool = False) -> GymnaxEnv:
    """By gymnax's name; ``env_params`` are fields of its parameter struct."""
    return GymnaxEnv(name, tuple(sorted(env_params.items())), full_action_set)
