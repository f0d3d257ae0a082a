"""The suite of Brax (Freeman et al. 2021): ``"brax:hopper"``.

Brax is in maintenance, as it warns itself where one of its worlds is made; what goes on is MuJoCo Playground.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.envs.brax_drawing import draw_bodies
from purejaxrl_ext.errors import check, is_int, unknown_name
from purejaxrl_ext.types import Array, Box, PyTree, abstract_key

# For suggestions: importing Brax takes seconds.
NAMES = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
)


@functools.cache
def _brax_make(name: str, params: tuple[tuple[str, Any], ...]) -> Any:
    try:
        from brax import envs as brax_envs
    except ImportError as error:
        raise ImportError(
            "environments of Brax need it: pip install brax, or in a checkout pip install -e '.[brax]'"
        ) from error
    known = sorted(n for n in brax_envs._envs if n != "fast")
    if name not in known:
        raise ValueError(unknown_name("Brax environment", name, known))
    options = {k: v for k, v in params if k != "episode_length"}
    backends = ("generalized", "spring", "positional", "mjx")
    backend = options.setdefault("backend", "generalized")
    check(backend in backends, "env_params['backend']", backend, f"one of {', '.join(backends)}")
    try:
        return brax_envs.get_environment(name, **options)
    except TypeError as error:
        raise ValueError(f"env_params of brax:{name}: {error}") from error


@dataclass(frozen=True)
class BraxEnv:
    """A raw Brax environment. Brax's own auto-reset is not used: it returns to one cached state and hides the last obs.

    Attributes:
        brax_name: Brax's name, without the prefix.
        params: sorted pairs: ``backend``, ``episode_length`` (default 1000) and the class's own options.
    """

    brax_name: str
    params: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        _brax_make(self.brax_name, self.params)
        limit = dict(self.params).get("episode_length", 1000)
        check(is_int(limit) and limit > 0, "env_params['episode_length']", limit, "a positive int")

    @property
    def name(self) -> str:
        return f"brax:{self.brax_name}"

    @property
    def _env(self) -> Any:
        return _brax_make(self.brax_name, self.params)

    @property
    def time_limit(self) -> int:
        return int(dict(self.params).get("episode_length", 1000))

    @functools.cached_property
    def fps(self) -> float:
        """Real time, where a GIF can show it."""
        return min(50.0, round(1.0 / float(self._env.dt), 3))

    @functools.cached_property
    def observation_shape(self) -> tuple[int, ...]:
        return jax.eval_shape(self.reset, abstract_key())[1].shape

    @functools.cached_property
    def action_space(self) -> Box:
        low, high = (-1.0,) * self._env.action_size, (1.0,) * self._env.action_size
        return Box(low, high)

    @functools.cached_property
    def _state_kinds(self) -> PyTree:
        def first(key: Array) -> PyTree:
            return self._env.step(self._env.reset(key), jnp.zeros(self._env.action_size))

        with jax.numpy_rank_promotion("allow"):
            return jax.eval_shape(first, abstract_key())

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        with jax.numpy_rank_promotion("allow"):
            state = self._env.reset(key)
        state = jax.tree.map(lambda kind, x: jnp.asarray(x, kind.dtype), self._state_kinds, state)
        return state, state.obs

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        with jax.numpy_rank_promotion("allow"):
            state = self._env.step(env_state, action)
        # Brax counts a fall as done and knows no time limit of its own before its EpisodeWrapper.
        return EnvStep(state, state.obs, state.reward, state.done > 0)

    def render(self, env_state: Any) -> np.ndarray:
        """``[H, W, 3]`` uint8: see :mod:`purejaxrl_ext.envs.brax_drawing`."""
        return draw_bodies(self.brax_name, self._env.sys.mj_model, env_state.pipeline_state.q)


def names() -> tuple[str, ...]:
    """Brax's, without the prefix and without importing it."""
    return NAMES


def make(name: str, env_params: dict[str, Any]) -> BraxEnv:
    """By Brax's name, without the prefix; ``env_params`` as :class:`BraxEnv` has them."""
    return BraxEnv(name, tuple(sorted(env_params.items())))
