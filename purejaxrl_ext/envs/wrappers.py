"""Wrappers: an environment that passes on to another, and changes one thing. They are settings of ``make``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.base import EnvStep, no_action
from purejaxrl_ext.spaces import Box, Discrete, MultiDiscrete, append_mask, mask_width
from purejaxrl_ext.types import Array, PyTree, abstract_key


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
    def action_space(self) -> Discrete | MultiDiscrete | Box:
        return self.env.action_space

    @property
    def time_limit(self) -> int | None:
        return self.env.time_limit

    @property
    def fps(self) -> float:
        """Pictures a second."""
        return getattr(self.env, "fps", 30.0)

    # Whether the wrapper's state is a pair, of the environment's and its own.
    paired = False

    @property
    def legal_actions(self) -> Callable[[PyTree], Array] | None:
        """The environment's, of a state of the wrapper's; None where all actions are legal."""
        inner = getattr(self.env, "legal_actions", None)
        if inner is None or not self.paired:
            return inner
        return lambda env_state: inner(env_state[0])

    @property
    def renew(self) -> Callable[[PyTree], tuple[PyTree, Array]] | None:
        """The environment's, of a state of the wrapper's; None where it does not begin episodes by itself."""
        inner = getattr(self.env, "renew", None)
        if inner is None:
            return None
        return lambda env_state: self.begin(*inner(env_state[0] if self.paired else env_state))

    def begin(self, env_state: PyTree, obs: Array) -> tuple[PyTree, Array]:
        """The wrapper's state and observation at the start of an episode, from the environment's."""
        return env_state, obs

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        return self.begin(*self.env.reset(key))

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        return self.env.step(key, env_state, action)


@dataclass(frozen=True)
class StickyActions(Wrapper):
    """With probability ``probability`` the previous action (at an episode's start: 0) is done instead."""

    probability: float = 0.25
    paired = True

    def begin(self, env_state: PyTree, obs: Array) -> tuple[PyTree, Array]:
        """No action was the previous one."""
        return (env_state, no_action(self.action_space)), obs

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
        sign = jnp.sign(jnp.asarray(step.reward).astype(jnp.float32))
        return step._replace(reward=sign, score=step.reward if step.score is None else step.score)


@dataclass(frozen=True)
class Observe(Wrapper):
    """Shows the entries ``indices`` of a vector observation alone."""

    indices: tuple[int, ...] = ()

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (len(self.indices),)

    def begin(self, env_state: PyTree, obs: Array) -> tuple[PyTree, Array]:
        """Some of the first observation."""
        return env_state, obs[np.array(self.indices)]

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        step = self.env.step(key, env_state, action)
        return step._replace(obs=step.obs[np.array(self.indices)])


@dataclass(frozen=True)
class FrameStack(Wrapper):
    """Shows the last ``size`` observations on the last axis, oldest first; at an episode's start copies of its first one.

    Copies, not zeros: a jump from zero would look like a velocity.
    """

    size: int = 4
    paired = True

    @property
    def observation_shape(self) -> tuple[int, ...]:
        *lead, last = self.env.observation_shape
        return (*lead, self.size * last)

    def begin(self, env_state: PyTree, obs: Array) -> tuple[PyTree, Array]:
        """Copies of the first observation."""
        stack = jnp.concatenate([obs] * self.size, axis=-1)
        return (env_state, stack), stack

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
    paired = True

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (self.env.observation_shape[0] + 1,)

    def _observe(self, obs: Array, time: Array) -> Array:
        scaled = 2.0 * time.astype(jnp.float32) / self.time_limit - 1.0  # type: ignore[operator]
        return jnp.concatenate([obs.astype(jnp.float32), scaled[None]])

    def begin(self, env_state: PyTree, obs: Array) -> tuple[PyTree, Array]:
        """Time 0."""
        time = jnp.zeros((), jnp.int32)
        return (env_state, time), self._observe(obs, time)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        state, time = env_state
        step = self.env.step(key, state, action)
        return step._replace(state=(step.state, time + 1), obs=self._observe(step.obs, time + 1))


@dataclass(frozen=True)
class FlattenObservation(Wrapper):
    """Shows a tree of arrays (a dict, a tuple) as one vector: its leaves one after another, a dict's by name.

    The vector has the dtype that holds all leaves: bool or uint8 where all are, float32 where they differ. A network that wants
    the parts takes them back out with :meth:`tree`.

    Example::

        env = prx.make_env(Dungeon())           # its observation: {"map": uint8 [8, 8, 3], "health": float32 []}
        parts = env.tree(obs)                   # of [..., 193]: {"map": [..., 8, 8, 3], "health": [...]}
    """

    @functools.cached_property
    def _kinds(self) -> PyTree:
        return jax.eval_shape(self.env.reset, abstract_key())[1]

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (sum(kind.size for kind in jax.tree.leaves(self._kinds)),)

    def tree(self, obs: Array) -> PyTree:
        """Vectors ``[..., D]`` as the tree that they were made of, its leaves ``[..., *shape]`` in the vector's dtype."""
        kinds = jax.tree.leaves(self._kinds)
        parts = jnp.split(obs, np.cumsum([kind.size for kind in kinds])[:-1].tolist(), axis=-1)
        parts = [part.reshape(obs.shape[:-1] + kind.shape) for part, kind in zip(parts, kinds, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(self._kinds), parts)

    def _flat(self, tree: PyTree) -> Array:
        leaves = jax.tree.leaves(tree)
        dtype = leaves[0].dtype if len({x.dtype for x in leaves}) == 1 else jnp.float32
        return jnp.concatenate([x.astype(dtype).reshape(-1) for x in leaves])

    def begin(self, env_state: PyTree, obs: PyTree) -> tuple[PyTree, Array]:
        """The first observation as a vector."""
        return env_state, self._flat(obs)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        step = self.env.step(key, env_state, action)
        return step._replace(obs=self._flat(step.obs))


@dataclass(frozen=True)
class AppendLegal(Wrapper):
    """Appends the mask of legal actions to the observation, where :class:`~purejaxrl_ext.networks.Masked` looks for it.

    ``make`` puts it around each environment that has ``legal_actions``, outside all other wrappers.
    """

    @property
    def _num_masked(self) -> int:
        return mask_width(self.env.observation_shape[:-1], self.action_space.n)

    @property
    def appended(self) -> int:
        """Entries that need no normalising."""
        return self._num_masked + getattr(self.env, "appended", 0)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        *lead, last = self.env.observation_shape or (1,)
        return (*lead, last + self._num_masked)

    def _show(self, env_state: PyTree, obs: Array) -> Array:
        return append_mask(obs, self.legal_actions(env_state))  # type: ignore[misc]

    def begin(self, env_state: PyTree, obs: Array) -> tuple[PyTree, Array]:
        """The first observation and its mask."""
        return env_state, self._show(env_state, obs)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        step = self.env.step(key, env_state, action)
        return step._replace(obs=self._show(step.state, step.obs))
