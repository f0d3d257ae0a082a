"""Tasks one after another: a wrapper whose task is part of the environment's state, so that a continual run is an ordinary one.

    task = (steps that this environment has done ÷ task_steps) mod num_tasks      at the start of each episode

    ObservationOffsets       o + δ_task,  δ ~ N(0, σ²) drawn once per task          (C-CHAIN's CartPole, Tang et al. 2025: σ = 2)
    ObservationPermutations  the entries, or an image's planes, in another order
    ActionPermutations       actions mean something else
    RewardScales             r times a factor of each task, as −1 for the opposite; the episode's return counts this reward too
    OneAfterAnother          environments of their own: MinAtar's games, or one with other parameters (friction, masses)

Task 0 is the environment as it is. Steps count over all episodes of one environment of the N side by side: N · ``task_steps`` of
the run's environment steps are a task, so which one an update belongs to can be told from its ``env_step``. An episode ends in the
task in which it began. What the tasks are is drawn from ``seed``, the same for all runs.

Auto-reset replaces an environment's state by a fresh one; whoever does it asks ``resume(ended, fresh)`` for the one that goes on.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.envs.wrappers import Wrapper
from purejaxrl_ext.errors import check, is_int
from purejaxrl_ext.types import Array, Discrete, PyTree


class TaskState(NamedTuple):
    """What an environment with tasks is in.

    Attributes:
        inner: the environment's own state.
        obs: what it shows by itself; of several environments, what each does.
        task: int32, which task.
        steps: int32, steps done in all episodes.
    """

    inner: PyTree
    obs: Any
    task: Array
    steps: Array


@dataclass(frozen=True)
class Tasks(Wrapper):
    """Passes on to ``env``; a kind of task overrides ``see``, ``act`` or ``pay``.

    Attributes:
        task_steps: steps of one environment in one task.
        num_tasks: how many, after which the first comes again.
        seed: of what tasks are drawn from.
    """

    task_steps: int = 100_000
    num_tasks: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("task_steps", "num_tasks"):
            value = getattr(self, field)
            check(is_int(value) and value > 0, field, value, "an int of at least 1")

    def see(self, obs: Array, task: Array) -> Array:
        """What is shown in a task."""
        return obs

    def act(self, action: Array, task: Array) -> Array:
        """What an action does in a task."""
        return action

    def pay(self, reward: Array, task: Array) -> Array:
        """What a reward is worth in a task."""
        return reward

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        inner, obs = self.env.reset(key)
        zero = jnp.zeros((), jnp.int32)
        return TaskState(inner, obs, zero, zero), self.see(obs, zero)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        task = env_state.task
        step = self.env.step(key, env_state.inner, self.act(action, task))
        score = step.score if step.score is None else self.pay(step.score, task)
        state = TaskState(step.state, step.obs, task, env_state.steps + 1)
        return step._replace(state=state, obs=self.see(step.obs, task), reward=self.pay(step.reward, task), score=score)

    def resume(self, ended: PyTree, fresh: PyTree) -> tuple[PyTree, Array]:
        """The fresh state, in the task that is due after the ``ended`` episode's steps, and its observation."""
        task = (ended.steps // self.task_steps) % self.num_tasks
        return TaskState(fresh.inner, fresh.obs, task, ended.steps), self.see(fresh.obs, task)

    def drawn(self, draw: Any) -> Array:
        """``[num_tasks, ...]`` of ``draw(generator)``, one per task."""
        rng = np.random.default_rng(self.seed)
        return jnp.asarray(np.stack([draw(rng) for _ in range(self.num_tasks)]))


@dataclass(frozen=True)
class ObservationOffsets(Tasks):
    """o + δ_task of vectors, δ ~ N(0, ``scale``²) for each entry.

    Attributes:
        scale: σ.
    """

    scale: float = 2.0

    def see(self, obs: Array, task: Array) -> Array:
        """o + δ_task."""
        offsets = self.drawn(lambda rng: self.scale * rng.normal(size=self.env.observation_shape).astype(np.float32))
        return obs.astype(jnp.float32) + offsets.at[0].set(0.0)[task]


@dataclass(frozen=True)
class ObservationPermutations(Tasks):
    """The last axis in another order: entries of a vector, planes of an image."""

    def see(self, obs: Array, task: Array) -> Array:
        """The task's order."""
        size = self.env.observation_shape[-1]
        return jnp.take(obs, self.drawn(lambda rng: rng.permutation(size)).at[0].set(jnp.arange(size))[task], axis=-1)


@dataclass(frozen=True)
class ActionPermutations(Tasks):
    """Discrete actions that mean another one each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(isinstance(self.env.action_space, Discrete), "env", self.env.name, "one of discrete actions")

    def act(self, action: Array, task: Array) -> Array:
        """The action that it means."""
        size = self.env.action_space.n
        others = self.drawn(lambda rng: rng.permutation(size)).at[0].set(jnp.arange(size))
        return others[task, action].astype(jnp.int32)


@dataclass(frozen=True)
class RewardScales(Tasks):
    """r times a factor of each task.

    Attributes:
        factors: one per task, in turn; the first is that of task 0.
    """

    factors: tuple[float, ...] = (1.0, -1.0)

    def pay(self, reward: Array, task: Array) -> Array:
        """r times the task's factor."""
        return reward * jnp.asarray(self.factors, jnp.float32)[task % len(self.factors)]


@dataclass(frozen=True)
class OneAfterAnother(Tasks):
    """Environments of their own, one per task: as many as there are of them, ``num_tasks`` may be more.

    Images have planes of zeros up to the most that one has; an action beyond an environment's own is its first. The shortest of
    their time limits is that of all.

    Attributes:
        others: the environments after ``env``, of the same kind of observation.
    """

    others: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for env in self.others:
            alike = env.observation_shape[:-1] == self.env.observation_shape[:-1]
            check(
                alike, "others", env.name, f"of observations like {self.env.observation_shape}, but for the last axis"
            )
            check(isinstance(env.action_space, Discrete) and isinstance(self.env.action_space, Discrete), "others", env.name,
                  "of discrete actions, as the first one")  # fmt: skip

    @property
    def envs(self) -> tuple[Any, ...]:
        """All of them."""
        return (self.env, *self.others)

    @property
    def name(self) -> str:
        return " + ".join(env.name for env in self.envs)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (*self.env.observation_shape[:-1], max(env.observation_shape[-1] for env in self.envs))

    @property
    def action_space(self) -> Discrete:
        return Discrete(max(env.action_space.n for env in self.envs))

    @property
    def time_limit(self) -> int | None:
        limits = [env.time_limit for env in self.envs if env.time_limit is not None]
        return min(limits) if limits else None

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        begun = [env.reset(key) for env in self.envs]
        obs = tuple(self._padded(o) for _, o in begun)
        zero = jnp.zeros((), jnp.int32)
        return TaskState(tuple(state for state, _ in begun), obs, zero, zero), obs[0]

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        """One step of the task's environment; the others wait."""

        def of(i: int, env: Any) -> Any:
            own = jnp.where(action < env.action_space.n, action, 0)
            step = env.step(key, env_state.inner[i], own)
            obs = self._padded(step.obs)
            reward = jnp.asarray(step.reward).astype(jnp.float32)
            score = reward if step.score is None else jnp.asarray(step.score).astype(jnp.float32)
            truncated = jnp.zeros((), bool) if step.truncated is None else jnp.asarray(step.truncated)
            put = (*env_state.inner[:i], step.state, *env_state.inner[i + 1 :])
            seen = (*env_state.obs[:i], obs, *env_state.obs[i + 1 :])
            return put, seen, obs, reward, score, jnp.asarray(step.terminated), truncated

        which = env_state.task % len(self.envs)
        branches = [functools.partial(of, i, env) for i, env in enumerate(self.envs)]
        inner, seen, obs, reward, score, terminated, truncated = jax.lax.switch(which, branches)
        return EnvStep(
            TaskState(inner, seen, env_state.task, env_state.steps + 1), obs, reward, terminated, truncated, score
        )

    def resume(self, ended: PyTree, fresh: PyTree) -> tuple[PyTree, Array]:
        """The fresh state of the environment that is due."""
        task = (ended.steps // self.task_steps) % self.num_tasks
        obs = jnp.stack(fresh.obs)[task % len(self.envs)]
        return TaskState(fresh.inner, fresh.obs, task, ended.steps), obs

    def _padded(self, obs: Array) -> Array:
        missing = self.observation_shape[-1] - obs.shape[-1]
        return jnp.pad(obs, [(0, 0)] * (obs.ndim - 1) + [(0, missing)])
