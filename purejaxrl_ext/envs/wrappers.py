"""Wrappers: an environment that passes on to another, and changes one thing. They are settings of ``make``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.types import Array, Box, Discrete, PyTree


@dataclass(frozen=True)
class Wrapper:
    """Passes everything on to ``env``."""

    env: Any

    @property
    def name(self) -> str:
        return self.env.name

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.env.observation_shape

    @property
    def action_space(self) -> Discrete | Box:
        return self.env.action_space

    @property
    def time_limit(self) -> int | None:
        return self.env.time_limit

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        return self.env.reset(key)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        return self.env.step(key, env_state, action)


@dataclass(frozen=True)
class StickyActions(Wrapper):
    """With probability ``probability`` the previous action (at an episode's start: 0) is done instead."""

    probability: float = 0.25

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        state, obs = self.env.reset(key)
        space = self.action_space
        return (state, jnp.zeros(space.shape, jnp.int32 if isinstance(space, Discrete) else jnp.float32)), obs

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        env_key, sticky_key = jax.random.split(key)
        state, previous = env_state
        action = jnp.where(jax.random.bernoulli(sticky_key, self.probability), previous, action)
        step = self.env.step(env_key, state, action)
        return step._replace(state=(step.state, action))


@dataclass(frozen=True)
class MaskRewards(Wrapper):
    """With probability ``probability`` the agent gets 0 for a reward; the episode's return counts the true one."""

    probability: float = 0.9

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        env_key, mask_key = jax.random.split(key)
        step = self.env.step(env_key, env_state, action)
        masked = jnp.where(jax.random.bernoulli(mask_key, self.probability), 0.0, step.reward)
        return step._replace(reward=masked, score=step.reward if step.score is None else step.score)


@dataclass(frozen=True)
class SignRewards(Wrapper):
    """The agent gets the sign of a reward; the episode's return counts the true one."""

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        step = self.env.step(key, env_state, action)
        return step._replace(reward=jnp.sign(step.reward), score=step.reward if step.score is None else step.score)


@dataclass(frozen=True)
class Observe(Wrapper):
    """Shows the entries ``indices`` of a vector observation alone."""

    indices: tuple[int, ...] = ()

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (len(self.indices),)

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        state, obs = self.env.reset(key)
        return state, obs[np.array(self.indices)]

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        step = self.env.step(key, env_state, action)
        return step._replace(obs=step.obs[np.array(self.indices)])


@dataclass(frozen=True)
class FrameStack(Wrapper):
    """Shows the last ``size`` observations on the last axis, oldest first; at an episode's start copies of its first one.

    Copies, not zeros: a jump from zero would look like a velocity.
    """

    size: int = 4

    @property
    def observation_shape(self) -> tuple[int, ...]:
        *lead, last = self.env.observation_shape
        return (*lead, self.size * last)

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        state, obs = self.env.reset(key)
        stack = jnp.concatenate([obs] * self.size, axis=-1)
        return (state, stack), stack

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        state, stack = env_state
        step = self.env.step(key, state, action)
        stack = jnp.concatenate([stack[..., step.obs.shape[-1] :], step.obs], axis=-1)
        return step._replace(state=(step.state, stack), obs=stack)


@dataclass(frozen=True)
class AppendTime(Wrapper):
    """Appends 2t/L − 1 to a vector observation, t the steps done and L the time limit."""

    # Entries that need no normalising: see ``loops.base.first_normalizer``.
    appended = 1

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (self.env.observation_shape[0] + 1,)

    def _observe(self, obs: Array, time: Array) -> Array:
        scaled = 2.0 * time.astype(jnp.float32) / self.time_limit - 1.0  # type: ignore[operator]
        return jnp.concatenate([obs.astype(jnp.float32), scaled[None]])

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        state, obs = self.env.reset(key)
        time = jnp.zeros((), jnp.int32)
        return (state, time), self._observe(obs, time)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        state, time = env_state
        step = self.env.step(key, state, action)
        return step._replace(state=(step.state, time + 1), obs=self._observe(step.obs, time + 1))
