"""A trained policy in an environment of Gymnasium's, stepped from outside as in that library's own examples."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.analysis import render
from purejaxrl_ext.envs import gymnasium
from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.envs.wrappers import MaskRewards, SignRewards, StickyActions, Wrapper
from purejaxrl_ext.errors import check
from purejaxrl_ext.types import Array, PyTree


class Played(NamedTuple):
    """E episodes.

    Attributes:
        returns: ``[E]`` undiscounted.
        lengths: ``[E]`` steps.
        path: the GIF, where one was asked for.
    """

    returns: np.ndarray
    lengths: np.ndarray
    path: Path | None = None


@dataclasses.dataclass(frozen=True)
class Fed:
    """A world that somebody else steps, to be put inside wrappers: its first observation comes in place of a key, and the next
    ones in place of actions, each with its mask of legal actions, ``{"obs": ..., "legal": ...}``."""

    env: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def legal_actions(self, env_state: PyTree) -> Array:
        """``[A]`` bool, as it came."""
        return env_state["legal"]

    def reset(self, first: PyTree) -> tuple[PyTree, Any]:
        """The first observation."""
        return first, first["obs"]

    def step(self, key: Array, env_state: PyTree, following: PyTree) -> EnvStep:
        """The next observation."""
        return EnvStep(following, following["obs"], jnp.zeros(()), jnp.zeros((), bool))


def eyes(env: Any) -> Any:
    """What an agent of ``env`` sees with: its wrappers of observations around :class:`Fed`."""
    if not isinstance(env, Wrapper):
        return Fed(env)
    inner = eyes(env.env)
    blind = isinstance(env, StickyActions | MaskRewards | SignRewards)
    return inner if blind else dataclasses.replace(env, env=inner)


def play(
    policy: Any,
    env: Any,
    num_episodes: int = 1,
    seed: int = 0,
    path: str | Path | None = None,
    max_steps: int | None = None,
    fps: float | None = None,
) -> Played:
    """Whole episodes; see :meth:`purejaxrl_ext.Policy.play`."""
    check(num_episodes > 0, "num_episodes", num_episodes, "greater than 0")
    check(max_steps is None or max_steps > 0, "max_steps", max_steps, "None or greater than 0")
    ours, theirs = policy.env.action_space, gymnasium.action_space(env.action_space, str(env))
    fits = type(ours) is type(theirs) and ours.shape == theirs.shape and ours.n == theirs.n
    check(fits, "env.action_space", env.action_space, f"like {ours}, in which the policy was trained")
    if path is not None:
        path = render.check_path(path)
        mode = env.render_mode
        check(mode == "rgb_array", "env.render_mode", mode, "'rgb_array' where a GIF is asked for")
    frames: list[np.ndarray] = []
    scores = [_episode(policy, env, seed + i, max_steps, frames if path else None) for i in range(num_episodes)]
    if path is not None:
        render.gif(np.stack(frames), path, fps or min(50.0, float(env.metadata.get("render_fps", 30.0))))
    returns, lengths = zip(*scores, strict=True)
    return Played(np.array(returns, np.float32), np.array(lengths), path)


def _episode(policy: Any, env: Any, seed: int, max_steps: int | None, frames: list | None) -> tuple[float, int]:
    seen_by, key = eyes(policy.env), jax.random.key(seed)

    def observed(obs: Any, info: dict) -> PyTree:
        legal = info.get("action_mask", np.ones(policy.env.action_space.n, bool))
        obs = jax.tree.map(jnp.asarray, gymnasium.shown(env.observation_space, obs, str(env)))
        return {"obs": obs, "legal": jnp.asarray(legal, bool)}

    eye_state, seen = seen_by.reset(observed(*env.reset(seed=seed)))
    carry, total, time, over = policy.initial_carry(), 0.0, 0, False
    while not over:
        if frames is not None:
            frames.append(np.asarray(env.render()))
        action, carry = policy.step(carry, seen, None if policy.greedy else jax.random.fold_in(key, time))
        obs, reward, terminated, truncated, info = env.step(gymnasium.taken(env.action_space, np.asarray(action)))
        total, time = total + float(reward), time + 1
        over = terminated or truncated or time == max_steps
        eye_state, seen, *_ = seen_by.step(key, eye_state, observed(obs, info))
    if frames is not None:
        frames.append(np.asarray(env.render()))
    return total, time
