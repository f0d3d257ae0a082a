"""The suite of EnvPool (Weng et al. 2022), environments in C++ on the host: ``"envpool:LunarLander-v3"``, Atari, Procgen.

Their observations are one array (float32, or uint8 images with channels last). What EnvPool's Atari does by default and is a matter
of protocol is off unless asked for: clipped rewards, ends at a loss of life, FIRE pressed by itself. ``env_params`` are EnvPool's
options; see :mod:`~purejaxrl_ext.envs.host` for what of a pool a State holds. Procgen needs Qt 5 in the system.
"""

from __future__ import annotations

import difflib
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.gymnasium_spaces import action_space
from purejaxrl_ext.envs.host import HostEnv
from purejaxrl_ext.envs.pools import Pools
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.types import Array, Box, Discrete, MultiDiscrete, PyTree

NAMES = ("LunarLander-v3", "LunarLanderContinuous-v3", "BipedalWalker-v3", "Phoenix-v5", "Pong-v5", "CoinrunEasy-v0")
OFF = ("reward_clip", "episodic_life", "use_fire_reset", "zero_discount_on_life_loss")
Params = tuple[tuple[str, Any], ...]


def _envpool() -> Any:
    try:
        import envpool
    except ImportError as error:
        raise ImportError(
            "environments of envpool need it: pip install envpool, or in a checkout pip install -e '.[envpool]'"
        ) from error
    return envpool


def _quiet(call: Callable[[], Any]) -> Any:
    """What ``call`` gives, without Gymnasium's warnings of bounds in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


class Threads:
    """A pool of EnvPool's, as :class:`~purejaxrl_ext.envs.pools.HostPool` has it."""

    def __init__(self, name: str, params: Params, seeds: np.ndarray) -> None:
        known = _config(name)
        off = {key: False for key in OFF if key in known}
        options = off | dict(params) | {"num_envs": len(seeds), "seed": seeds.tolist()}
        self.envs = _quiet(lambda: _envpool().make_gymnasium(name, **options))
        self.ids, self.space = np.arange(len(seeds), dtype=np.int32), self.envs.action_space

    def first(self) -> PyTree:
        """Begin all episodes."""
        self.obs = _numbers(_quiet(self.envs.reset)[0])
        return self.obs

    def send(self, action: np.ndarray) -> None:
        """Begin a step."""
        self.envs.send(action.reshape(-1, *self.space.shape).astype(self.space.dtype), self.ids)

    def receive(self) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray]:
        """End it."""
        obs, reward, terminated, truncated, _ = self.envs.recv()
        self.obs = _numbers(obs)
        return self.obs, reward, terminated, truncated

    def again(self, over: np.ndarray) -> PyTree:
        """Begin the next episodes where ``over``."""
        fresh, told = self.envs.reset(self.ids[over])
        obs = self.obs.copy()
        obs[told["env_id"]] = _numbers(fresh)
        return obs


def _numbers(obs: np.ndarray) -> np.ndarray:
    return obs if obs.dtype == np.uint8 else obs.astype(np.float32)


@functools.cache
def _config(name: str) -> frozenset[str]:
    """The options that are a user's."""
    ours = {"num_envs", "batch_size", "seed", "env_seed", "gym_reset_return_info", "max_num_players"}
    return frozenset(_envpool().make_spec(name).config._fields) - ours


@functools.cache
def _pools(name: str, params: Params, time_limit: int | None) -> Pools:
    return Pools(lambda seeds: Threads(name, params, seeds), time_limit, most=4096)


@dataclass(frozen=True)
class EnvPoolEnv(HostEnv):
    """One environment of EnvPool.

    Attributes:
        envpool_name: EnvPool's name.
        params: sorted pairs, EnvPool's options.
    """

    envpool_name: str
    params: Params = ()

    @property
    def name(self) -> str:
        return f"envpool:{self.envpool_name}"

    @functools.cached_property
    def _spec(self) -> Any:
        return _envpool().make_spec(self.envpool_name, **dict(self.params))

    @functools.cached_property
    def time_limit(self) -> int | None:
        limit = int(getattr(self._spec.config, "max_episode_steps", 0))
        return limit if 0 < limit < 2**30 else None

    @property
    def pools(self) -> Pools:
        """Those of this environment in this process."""
        return _pools(self.envpool_name, self.params, self.time_limit)

    @functools.cached_property
    def action_space(self) -> Discrete | MultiDiscrete | Box:
        return action_space(_quiet(lambda: self._spec.gymnasium_action_space), self.name)

    def see(self, obs: Array) -> Array:
        """Channels last."""
        image = obs.dtype == jnp.uint8 and obs.ndim == 3 and obs.shape[0] < obs.shape[-1]
        return jnp.moveaxis(obs, 0, -1) if image else obs


def names() -> tuple[str, ...]:
    """Some of EnvPool's, for suggestions, without importing it; :func:`make` takes all that it has."""
    return NAMES


def make(name: str, env_params: dict[str, Any]) -> EnvPoolEnv:
    """By EnvPool's name; ``env_params`` are its options."""
    every = _envpool().list_all_envs()
    if name not in every:
        # Of more than a thousand.
        near = difflib.get_close_matches(name, every, n=20, cutoff=0.5)
        raise ValueError(unknown_name("environment of EnvPool", name, near or NAMES))
    for key in env_params:
        if key not in _config(name):
            raise ValueError(unknown_name(f"env_params of envpool:{name}", key, _config(name)))
    env = EnvPoolEnv(name, tuple(sorted(env_params.items())))
    one = getattr(_quiet(lambda: env._spec.gymnasium_observation_space), "shape", None) is not None
    check(one, "env", env.name, "an environment of EnvPool whose observation is one array")
    return env
