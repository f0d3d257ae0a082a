"""The suite of Gymnasium (Towers et al. 2024): ``"gymnasium:CartPole-v1"``, any environment that Gymnasium knows.

Its environments are Python objects, stepped one after another: the same algorithm is many times faster on an environment written
in JAX. See :mod:`~purejaxrl_ext.envs.host` for what of them a State holds.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium
import jax
import numpy as np

from purejaxrl_ext.envs.gymnasium_spaces import action_space, shown, taken
from purejaxrl_ext.envs.host import HostEnv
from purejaxrl_ext.envs.pools import Pools
from purejaxrl_ext.errors import check, is_int, unknown_name
from purejaxrl_ext.spaces import Box, Discrete, MultiDiscrete
from purejaxrl_ext.types import PyTree

Params = tuple[tuple[str, Any], ...]


def _made(name: str, params: Params) -> Any:
    with warnings.catch_warnings():
        # Importing Box2D crashes where these are errors.
        warnings.simplefilter("ignore", DeprecationWarning)
        return gymnasium.make(name, max_episode_steps=-1, disable_env_checker=True, **dict(params))


class Objects:
    """A pool of Gymnasium's environments, as :class:`~purejaxrl_ext.envs.pools.HostPool` has it."""

    def __init__(self, name: str, params: Params, seeds: np.ndarray) -> None:
        self.name, self.seeds = name, seeds
        self.envs = [_made(name, params) for _ in seeds]

    def first(self) -> PyTree:
        """Begin all episodes."""
        self.seen = [self._shown(env.reset(seed=int(s))[0]) for env, s in zip(self.envs, self.seeds, strict=True)]
        return self._stacked()

    def send(self, action: np.ndarray) -> None:
        """Begin a step."""
        space = self.envs[0].action_space
        self.out = [env.step(taken(space, a)) for env, a in zip(self.envs, action, strict=True)]

    def receive(self) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray]:
        """End it."""
        obs, reward, terminated, truncated, _ = zip(*self.out, strict=True)
        self.seen = [self._shown(x) for x in obs]
        return self._stacked(), np.array(reward, np.float32), np.array(terminated, bool), np.array(truncated, bool)

    def again(self, over: np.ndarray) -> PyTree:
        """Begin the next episodes where ``over``."""
        for i in np.flatnonzero(over):
            self.seen[i] = self._shown(self.envs[i].reset()[0])
        return self._stacked()

    def _shown(self, obs: Any) -> PyTree:
        return shown(self.envs[0].observation_space, obs, self.name)

    def _stacked(self) -> PyTree:
        return jax.tree.map(lambda *x: np.stack(x), *self.seen)


@functools.cache
def _pools(name: str, params: Params, time_limit: int | None) -> Pools:
    return Pools(lambda seeds: Objects(name, params, seeds), time_limit, most=10_000)


@dataclass(frozen=True)
class GymnasiumEnv(HostEnv):
    """A Gymnasium environment; its observations and actions as :mod:`~purejaxrl_ext.envs.gymnasium_spaces` has them.

    Attributes:
        gymnasium_name: Gymnasium's name.
        time_limit: None: the registered one.
        params: sorted pairs, keyword arguments of ``gymnasium.make``.
    """

    gymnasium_name: str
    time_limit: int | None = None
    params: Params = ()

    def __post_init__(self) -> None:
        if self.gymnasium_name not in gymnasium.registry:
            raise ValueError(unknown_name("Gymnasium environment", self.gymnasium_name, names()))
        limit = self.time_limit
        check(limit is None or (is_int(limit) and limit > 0), "max_episode_steps", limit, "None or a positive int")
        if limit is None:
            object.__setattr__(self, "time_limit", gymnasium.spec(self.gymnasium_name).max_episode_steps)
        try:
            self._kinds, self.action_space  # noqa: B018  Now, where an error can name what is wrong.
        except (gymnasium.error.Error, TypeError) as error:
            raise ValueError(f"environment {self.name!r} cannot be made: {error}") from error

    @property
    def name(self) -> str:
        return f"gymnasium:{self.gymnasium_name}"

    @property
    def pools(self) -> Pools:
        """Those of this environment in this process."""
        return _pools(self.gymnasium_name, self.params, self.time_limit)

    @functools.cached_property
    def action_space(self) -> Discrete | MultiDiscrete | Box:
        return action_space(_made(self.gymnasium_name, self.params).action_space, self.name)


def names() -> list[str]:
    """Gymnasium's environments, registered so far."""
    return sorted(gymnasium.registry)


def make(name: str, env_params: dict[str, Any]) -> GymnasiumEnv:
    """By Gymnasium's name; ``env_params`` are keyword arguments of ``gymnasium.make``, ``max_episode_steps`` among them."""
    limit = env_params.get("max_episode_steps")
    return GymnasiumEnv(name, limit, tuple(sorted((k, v) for k, v in env_params.items() if k != "max_episode_steps")))
