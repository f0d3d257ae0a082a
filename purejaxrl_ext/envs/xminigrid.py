"""The suite of XLand-MiniGrid (Nikulin et al. 2024): MiniGrid's worlds in JAX, ``"xminigrid:MiniGrid-DoorKey-8x8"``."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.errors import check, is_int, unknown_name
from purejaxrl_ext.types import Array, Discrete, PyTree

NAMES = (
    *(f"MiniGrid-{kind}-{n}x{n}" for kind in ("Empty", "EmptyRandom") for n in (5, 6, 8, 16)),
    *(f"MiniGrid-DoorKey-{n}x{n}" for n in (5, 6, 8, 16)),
    *(f"MiniGrid-MemoryS{n}" for n in (8, 16, 32, 64, 128)),
    *(f"MiniGrid-{kind}" for kind in ("BlockedUnlockPickUp", "FourRooms", "LockedRoom", "Unlock", "UnlockPickUp")),
)
OPTIONS = ("max_steps", "view_size")


@functools.cache
def _xminigrid_make(name: str, params: tuple[tuple[str, Any], ...]) -> tuple[Any, Any, tuple[int, int]]:
    try:
        import xminigrid
        from xminigrid.core.constants import TILES_REGISTRY
    except ImportError as error:
        raise ImportError(
            "environments of xminigrid need it: pip install xminigrid, or in a checkout pip install -e '.[xminigrid]'"
        ) from error
    if name not in NAMES:
        raise ValueError(unknown_name("xminigrid environment", name, NAMES))
    for key, value in params:
        if key not in OPTIONS:
            raise ValueError(unknown_name(f"env_params of xminigrid:{name}", key, OPTIONS))
        check(is_int(value) and value > 0, f"env_params[{key!r}]", value, "a positive int")
    env, default = xminigrid.make(name)
    return env, default.replace(**dict(params)), np.shape(TILES_REGISTRY)[:2]


@dataclass(frozen=True)
class XMiniGridEnv:
    """A grid world seen from the agent's own place: bool planes ``[view, view, tiles + colours]``, one-hot of each.

    Attributes:
        grid_name: xminigrid's name.
        params: sorted pairs, of ``OPTIONS``.
    """

    grid_name: str
    params: tuple[tuple[str, Any], ...] = ()
    fps: float = 4.0

    def __post_init__(self) -> None:
        _ = self._made

    @property
    def name(self) -> str:
        return f"xminigrid:{self.grid_name}"

    @property
    def _made(self) -> tuple[Any, Any, tuple[int, int]]:
        return _xminigrid_make(self.grid_name, self.params)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        _, params, kinds = self._made
        return (params.view_size, params.view_size, sum(kinds))

    @property
    def action_space(self) -> Discrete:
        env, params, _ = self._made
        return Discrete(int(env.num_actions(params)))

    @property
    def time_limit(self) -> int:
        return int(self._made[1].max_steps)

    def _show(self, obs: Array) -> Array:
        planes = [jax.nn.one_hot(obs[..., i], n, dtype=bool) for i, n in enumerate(self._made[2])]
        return jnp.concatenate(planes, axis=-1)

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        env, params, _ = self._made
        with jax.numpy_rank_promotion("allow"):
            first = env.reset(params, key)
        return first, self._show(first.observation)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        env, params, _ = self._made
        with jax.numpy_rank_promotion("allow"):
            after = env.step(params, env_state, action)
        after = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, env_state)
        return EnvStep(after, self._show(after.observation), after.reward, after.discount == 0)

    def render(self, env_state: Any) -> np.ndarray:
        """xminigrid's own picture, ``[H, W, 3]`` uint8."""
        env, params, _ = self._made
        return np.asarray(env.render(params, env_state))


def names() -> tuple[str, ...]:
    """xminigrid's MiniGrid worlds, without importing it; those of XLand read their rules from the network."""
    return NAMES


def make(name: str, env_params: dict[str, Any]) -> XMiniGridEnv:
    """By xminigrid's name; ``env_params`` are ``max_steps`` and ``view_size``."""
    return XMiniGridEnv(name, tuple(sorted(env_params.items())))
