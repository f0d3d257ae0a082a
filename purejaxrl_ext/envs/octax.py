"""The suite of octax (Radji et al. 2025): CHIP-8 arcade games, emulated in JAX, ``"octax:brix"``."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.errors import unknown_name
from purejaxrl_ext.types import Array, Discrete, PyTree

NAMES = (
    *("airplane", "blinky", "brix", "deep", "filter", "flight_runner", "missile", "pong", "rocket", "shooting_stars"),
    *("spacejam", "squash", "submarine", "tank", "tetris", "ufo", "vertical_brix", "wipe_off", "worm"),
    *(f"cavern{i}" for i in (1, 2, 3, 5, 6)),
    *(f"space_flight{i}" for i in range(1, 11)),
    *(f"target_shooter{i}" for i in range(1, 4)),
)
# Keyword arguments of octax's environment that change the game.
OPTIONS = ("frame_skip", "instruction_frequency", "max_num_steps_per_episodes")


@functools.cache
def _octax_make(name: str, params: tuple[tuple[str, Any], ...]) -> Any:
    try:
        from octax.environments import create_environment
    except ImportError as error:
        raise ImportError(
            "environments of octax need it: pip install octax opencv-python-headless, or in a checkout pip install -e '.[octax]'"
        ) from error
    if name not in NAMES:
        raise ValueError(unknown_name("octax environment", name, NAMES))
    for key, _ in params:
        if key not in OPTIONS:
            raise ValueError(unknown_name(f"env_params of octax:{name}", key, OPTIONS))
    with jax.ensure_compile_time_eval(), jax.numpy_rank_promotion("allow"):
        return create_environment(name, **dict(params))[0]


@dataclass(frozen=True)
class OctaxEnv:
    """A game; it shows the frames of its last step, side by side on the last axis, as bool ``[32, 64, frame_skip]``.

    Attributes:
        octax_name: octax's name.
        params: sorted pairs, of ``OPTIONS``.
    """

    octax_name: str
    params: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        _ = self._env  # Now, outside any trace: it runs the game up to its start.

    @property
    def name(self) -> str:
        return f"octax:{self.octax_name}"

    @property
    def _env(self) -> Any:
        return _octax_make(self.octax_name, self.params)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (32, 64, self._env.frame_skip)

    @property
    def action_space(self) -> Discrete:
        return Discrete(self._env.num_actions)

    @property
    def time_limit(self) -> int:
        return self._env.max_num_steps_per_episodes

    @property
    def fps(self) -> float:
        """Real time."""
        return self._env.fps / self._env.frame_skip

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        with jax.numpy_rank_promotion("allow"):
            state, obs, _ = self._env.reset(jax.random.key_data(key))
        return jax.tree.map(jnp.asarray, state), _image(obs)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        with jax.numpy_rank_promotion("allow"):
            state, obs, reward, terminated, _, _ = self._env.step(env_state, action)
        state = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), state, env_state)
        return EnvStep(state, _image(obs), reward, jnp.asarray(terminated, bool))

    def render(self, env_state: Any) -> np.ndarray:
        """The screen, 4 pixels to each of its own: ``[128, 256, 3]`` uint8."""
        screen = np.asarray(env_state.display, np.uint8).T * 255
        return np.broadcast_to(screen.repeat(4, 0).repeat(4, 1)[..., None], (128, 256, 3)).copy()


def _image(frames: Array) -> Array:
    """``[frames, 64, 32]`` as an image of as many channels."""
    return frames.transpose(2, 1, 0).astype(bool)


def names() -> tuple[str, ...]:
    """octax's games, without importing it."""
    return NAMES


def make(name: str, env_params: dict[str, Any]) -> OctaxEnv:
    """By octax's name; ``env_params`` as :class:`OctaxEnv` has them."""
    return OctaxEnv(name, tuple(sorted(env_params.items())))
