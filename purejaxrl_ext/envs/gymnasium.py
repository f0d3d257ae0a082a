"""The suite of Gymnasium (Towers et al. 2024): ``"gymnasium:CartPole-v1"``, any environment that Gymnasium knows.

Its environments are Python objects on the host, so each step of a rollout leaves the compiled loop once, by a callback over all
environments of all seeds together. That is slow: the same algorithm is many times faster on an environment written in JAX.

What is pure here is the handle. An environment's state is the episode's seed, the number of its object on the host and the time;
the next step needs the state that the last one gave, so order follows from the data, in whatever order callbacks of different
environments come, and with several devices. (An ordered callback would admit one device alone, and no vmap.) The host checks the
time: an object is stepped exactly once from each state.

- An episode's randomness comes from its seed, which comes from the key: runs repeat exactly.
- Objects are not saved. Where a state's object is not there (a run resumed in another process, or a state that was stepped
  twice), its episode is cut: no reward, truncated at the observation last seen. A warning says so once.
- ``evaluate`` vmapped over states is refused by JAX, whose batched while loops take no callbacks; one state at a time works.
"""

from __future__ import annotations

import collections
import functools
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.errors import check, is_int, unknown_name
from purejaxrl_ext.spaces import Box, Discrete, MultiDiscrete
from purejaxrl_ext.types import Array, PyTree

FRESH, OVER = -1, -2  # numbers of objects that are not: the episode has not begun, or it has ended


class Host:
    """The objects of one environment, by number."""

    def __init__(self, make: Any, time_limit: int | None, most: int = 10_000) -> None:
        self.make, self.time_limit, self.most = make, time_limit, most
        self.idle: list[Any] = []
        # Oldest first: those of episodes that nobody goes on with, as an evaluation that was cut, are taken again.
        self.going: collections.OrderedDict[int, tuple[Any, int]] = collections.OrderedDict()
        self.count, self.lost, self.lock = 0, 0, threading.Lock()

    def begin(self, seed: int) -> tuple[Any, Any]:
        """An object at the start of the episode of ``seed``, and what it shows there."""
        env = self.idle.pop() if self.idle else self.make()
        return env, env.reset(seed=seed)[0]

    def reset(self, seed: int) -> Any:
        """The episode's first observation."""
        with self.lock:
            env, obs = self.begin(seed)
            self.idle.append(env)
            return obs

    def step(self, seed: int, number: int, time: int, action: Any) -> tuple[int, tuple | None]:
        """The object's number after the step, and what the step gave; None where it is over, or the object is gone."""
        with self.lock:
            if number == OVER:
                return OVER, None
            if number == FRESH:
                env, number, at = self.begin(seed)[0], self.count % 2**30, 0
                self.count += 1
            else:
                env, at = self.going.pop(number, (None, time))
            if env is None or at != time:
                self.lose()
                return OVER, None
            obs, reward, terminated, truncated, _ = env.step(action)
            if terminated or truncated or (self.time_limit is not None and time + 1 >= self.time_limit):
                self.idle.append(env)
                return OVER, (obs, reward, terminated, truncated)
            self.going[number] = env, time + 1
            if len(self.going) > self.most:
                self.idle.append(self.going.popitem(last=False)[1][0])
            return number, (obs, reward, terminated, truncated)

    def lose(self) -> None:
        """Say once that an episode is cut."""
        if not self.lost:
            warnings.warn(
                "an episode of a Gymnasium environment is cut: its object is not in this process, which resumed a run, or "
                "it has been stepped from this state before",
                stacklevel=2,
            )
        self.lost += 1


@functools.cache
def _host(name: str, params: tuple[tuple[str, Any], ...], time_limit: int | None) -> Host:
    return Host(
        lambda: gymnasium.make(name, max_episode_steps=-1, disable_env_checker=True, **dict(params)), time_limit
    )


@dataclass(frozen=True)
class GymnasiumEnv:
    """A Gymnasium environment.

    Its observations: real vectors and images as they are (float32, uint8), numbers of a discrete space as one-hot vectors, dicts
    and tuples as trees of these. Its actions: discrete, several discrete, or real ones, flattened.

    Attributes:
        gymnasium_name: Gymnasium's name.
        time_limit: None: the registered one.
        params: sorted pairs, keyword arguments of ``gymnasium.make``.
    """

    gymnasium_name: str
    time_limit: int | None = None
    params: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.gymnasium_name not in gymnasium.registry:
            raise ValueError(unknown_name("Gymnasium environment", self.gymnasium_name, names()))
        limit = self.time_limit
        check(limit is None or (is_int(limit) and limit > 0), "max_episode_steps", limit, "None or a positive int")
        if limit is None:
            registered = gymnasium.spec(self.gymnasium_name).max_episode_steps
            object.__setattr__(self, "time_limit", registered)
        try:
            env = self.host.begin(0)[0]
        except (gymnasium.error.Error, TypeError) as error:
            raise ValueError(f"environment {self.name!r} cannot be made: {error}") from error
        self.host.idle.append(env)
        self._kinds, self.action_space  # noqa: B018  Now, where the error names the space.

    @property
    def name(self) -> str:
        return f"gymnasium:{self.gymnasium_name}"

    @property
    def host(self) -> Host:
        """What holds the objects in this process."""
        return _host(self.gymnasium_name, self.params, self.time_limit)

    @property
    def _made(self) -> Any:
        return self.host.idle[0]

    @functools.cached_property
    def _kinds(self) -> PyTree:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.show(self._space.sample()))

    @functools.cached_property
    def _space(self) -> Any:
        return self._made.observation_space

    @property
    def observation_shape(self) -> Any:
        return getattr(self._kinds, "shape", None)

    @functools.cached_property
    def action_space(self) -> Discrete | MultiDiscrete | Box:
        return action_space(self._made.action_space, self.name)

    def show(self, obs: Any) -> PyTree:
        """An observation of Gymnasium's as the agent sees it: a tree of numpy arrays."""
        return shown(self._space, obs, self.name)

    def take(self, action: np.ndarray) -> Any:
        """An action of the agent's as Gymnasium takes it."""
        return taken(self._host_action_space, action)

    @functools.cached_property
    def _host_action_space(self) -> Any:
        return self._made.action_space

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        seed = (jax.random.bits(key) >> 1).astype(jnp.int32)
        obs = self._reset(seed)
        return {"seed": seed, "number": jnp.int32(FRESH), "time": jnp.int32(0), "obs": obs}, obs

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        state, reward, terminated, truncated = self._step(env_state, action)
        return EnvStep(state, state["obs"], reward, terminated, truncated)

    @functools.cached_property
    def _reset(self) -> Any:
        def reset(seed: Array) -> PyTree:
            return io_callback(self._host_reset, _batch(self._kinds, seed.shape), seed)

        return _folding(reset)

    @functools.cached_property
    def _step(self) -> Any:
        def step(state: PyTree, action: Array) -> Any:
            lead = state["time"].shape
            kinds = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
            flag = jax.ShapeDtypeStruct(lead, bool)
            return io_callback(
                self._host_step, (kinds, jax.ShapeDtypeStruct(lead, jnp.float32), flag, flag), state, action
            )

        return _folding(step)

    def _host_reset(self, seed: Any) -> PyTree:
        seeds = np.asarray(seed)
        rows = [self.show(self.host.reset(int(s))) for s in seeds.ravel()]
        return jax.tree.map(lambda *x: np.stack(x).reshape(*seeds.shape, *x[0].shape), *rows)

    def _host_step(self, state: PyTree, action: Any) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray]:
        """Step every environment of a batch, one after another."""
        state, actions = jax.tree.map(np.array, (state, action))  # Copies, to write into.
        lead, obs = state["time"].shape, state["obs"]
        reward, terminated, truncated = np.zeros(lead, np.float32), np.zeros(lead, bool), np.ones(lead, bool)
        for at in np.ndindex(lead):
            seed, number, time = (int(state[part][at]) for part in ("seed", "number", "time"))
            state["number"][at], after = self.host.step(seed, number, time, self.take(actions[at]))
            if after is not None:
                seen, reward[at], terminated[at], truncated[at] = after
                jax.tree.map(lambda x, new, at=at: x.__setitem__(at, new), obs, self.show(seen))
                state["time"][at] += 1
        return state, reward, terminated, truncated


def _batch(kinds: PyTree, lead: tuple[int, ...]) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype), kinds)


def _folding(call: Any) -> Any:
    """A function of arrays with any leading axes, which vmap hands its whole batch instead of calling it row by row."""
    folded = jax.custom_batching.custom_vmap(call)

    @folded.def_vmap
    def rule(axis_size: int, in_batched: list, *arguments: Any) -> tuple[Any, Any]:
        def spread(x: Array, batched: bool) -> Array:
            return x if batched else jnp.broadcast_to(x[None], (axis_size, *x.shape))

        out = folded(*jax.tree.map(spread, arguments, tuple(in_batched)))
        return out, jax.tree.map(lambda _: True, out)

    return folded


def shown(space: Any, obs: Any, name: str) -> PyTree:
    """An observation of a Gymnasium space as a tree of numpy arrays; see :class:`GymnasiumEnv`.

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


def names() -> list[str]:
    """Gymnasium's environments, registered so far."""
    return sorted(gymnasium.registry)


def make(name: str, env_params: dict[str, Any]) -> GymnasiumEnv:
    """By Gymnasium's name; ``env_params`` are keyword arguments of ``gymnasium.make``, ``max_episode_steps`` among them."""
    limit = env_params.get("max_episode_steps")
    return GymnasiumEnv(name, limit, tuple(sorted((k, v) for k, v in env_params.items() if k != "max_episode_steps")))
