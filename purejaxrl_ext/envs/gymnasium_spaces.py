"""Gymnasium's spaces as ours, for whoever has environments with them: observations, actions, and one as the other has it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from purejaxrl_ext.errors import check
from purejaxrl_ext.spaces import Box, Discrete, MultiDiscrete
from purejaxrl_ext.types import PyTree


def shown(space: Any, obs: Any, name: str) -> PyTree:
    """An observation of a Gymnasium space as a tree of numpy arrays; one of numbers as they are (float32, or uint8),
    numbers of a discrete space as one-hot vectors, dicts and tuples as trees of these.

    Raises:
        ValueError: a space of things whose number varies, or of text.
    """
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Dict):
        return {key: shown(part, obs[key], name) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(shown(part, x, name) for part, x in zip(space.spaces, obs, strict=True))
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[int(obs) - int(space.start)]
    if isinstance(space, spaces.MultiDiscrete):
        rows = zip(np.ravel(space.nvec), np.ravel(obs) - np.ravel(space.start), strict=True)
        return np.concatenate([np.eye(int(n), dtype=np.float32)[int(x)] for n, x in rows])
    fits = isinstance(space, spaces.Box | spaces.MultiBinary)
    check(fits, "env", name, f"one whose observations are numbers of a fixed shape, not {space}")
    return np.asarray(obs, np.uint8 if space.dtype == np.uint8 else np.float32)


def action_space(space: Any, name: str) -> Discrete | MultiDiscrete | Box:
    """Gymnasium's action space as one of ours.

    Raises:
        ValueError: there is none.
    """
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return MultiDiscrete(tuple(int(n) for n in np.ravel(space.nvec)))
    if isinstance(space, spaces.MultiBinary):
        return MultiDiscrete((2,) * int(np.prod(space.shape)))
    check(isinstance(space, spaces.Box), "env", name, f"one of discrete or real actions, not {space}")
    return Box(*(tuple(np.ravel(x).astype(float).tolist()) for x in (space.low, space.high)))


def taken(space: Any, action: np.ndarray) -> Any:
    """An action of ours as Gymnasium's space has it."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(action) + int(space.start)
    shift = space.start if isinstance(space, gymnasium.spaces.MultiDiscrete) else 0
    return np.asarray(action, space.dtype).reshape(space.shape) + np.asarray(shift, space.dtype)
