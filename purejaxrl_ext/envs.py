"""Environments: one small protocol, adapters of gymnax and Brax to it, wrappers, and vectorised stepping with auto-reset.

Only this file knows gymnax or Brax. An environment of your own is any hashable object with these members::

    name: str
    observation_shape: tuple[int, ...]
    action_space: Discrete | Box
    time_limit: int | None               # the loop truncates episodes at this many steps
    reset(key) -> (env_state, obs)
    step(key, env_state, action) -> EnvStep      # one transition, without auto-reset

``step`` sees one environment; the loops vmap it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxrl_ext.errors import check, is_int, unknown_name
from purejaxrl_ext.types import Array, PyTree, VecState, abstract_key


@dataclass(frozen=True)
class Discrete:
    """Actions 0 … n − 1, int32 scalars."""

    n: int
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Box:
    """Real vectors of ``shape`` between ``low`` and ``high`` (tuples of one number per entry; may be infinite)."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.low),)

    @property
    def n(self) -> int:
        return len(self.low)


class EnvStep(NamedTuple):
    """One transition.

    Attributes:
        state: the environment's next state.
        obs: the observation there: the final one if the episode ends.
        reward: scalar, what the agent learns from.
        terminated: bool scalar, the episode has ended and nothing follows.
        truncated: bool scalar if the environment cuts episodes by itself other than by ``time_limit``; None if never.
        score: scalar counted in the episode's return, where that is not the reward (masked or clipped rewards).
    """

    state: PyTree
    obs: Array
    reward: Array
    terminated: Array
    truncated: Array | None = None
    score: Array | None = None


@runtime_checkable
class Environment(Protocol):
    """The members an environment needs (see the module's docstring)."""

    name: str
    observation_shape: tuple[int, ...]
    action_space: Discrete | Box
    time_limit: int | None

    def reset(self, key: Array) -> tuple[PyTree, Array]: ...

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep: ...


# ---------------------------------------------------------------------------------------------------------------------
# Vectorised stepping
# ---------------------------------------------------------------------------------------------------------------------


class Pool(NamedTuple):
    """R fresh initial states, from which resets are served.

    A reset computed at every step and thrown away nearly always would cost more than many environments' step.
    """

    env_state: PyTree
    obs: Array


class Transition(struct.PyTreeNode):
    """What one step of N environments brought: ``obs`` and so on ``[N, ...]``; ``final_obs`` is the true next one."""

    reward: Array
    terminated: Array
    truncated: Array
    final_obs: Array
    finished_return: Array  # [N] the episode's return where it ended here, else 0
    finished_length: Array  # [N] its length where it ended here, else 0


def reset_pool(env: Environment, key: Array, size: int) -> Pool:
    """Draw ``size`` fresh initial states."""
    return Pool(*jax.vmap(env.reset)(jax.random.split(key, size)))


def vec_reset(env: Environment, key: Array, num_envs: int) -> VecState:
    """N environments at the start of an episode."""
    env_state, obs = reset_pool(env, key, num_envs)
    return VecState(env_state, obs, jnp.zeros(num_envs, jnp.float32), jnp.zeros(num_envs, jnp.int32))


def vec_step(
    env: Environment, keys: Array, state: VecState, action: Array, pool: Pool, num_resets: Array
) -> tuple[VecState, Transition, Array]:
    """Step N environments; one whose episode ended goes on from the next entry of the pool.

    Args:
        keys: ``[N]``.
        state: the environments.
        action: ``[N, ...]``, within bounds.
        pool: R initial states; simultaneous resets take distinct entries, and it wraps when exhausted.
        num_resets: int32 scalar, entries of the pool taken so far.

    Returns:
        the environments (``obs`` is the reset one where an episode ended), the transition, and ``num_resets``.
        If an episode terminates at its time limit, it terminated.
    """
    step = jax.vmap(env.step)(keys, state.env_state, action)
    length = state.episode_length + 1
    returns = state.episode_return + (step.reward if step.score is None else step.score)
    truncated = jnp.zeros_like(step.terminated) if step.truncated is None else step.truncated
    if env.time_limit is not None:
        truncated = truncated | (length >= env.time_limit)
    truncated = truncated & ~step.terminated
    done = step.terminated | truncated

    taken = num_resets + jnp.cumsum(done, dtype=jnp.int32)
    entry = (taken - 1) % pool.obs.shape[0]

    def where_done(fresh: Array, going: Array) -> Array:
        return jnp.where(done.reshape(done.shape + (1,) * (going.ndim - 1)), fresh[entry], going)

    transition = Transition(
        reward=step.reward,
        terminated=step.terminated,
        truncated=truncated,
        final_obs=step.obs,
        finished_return=jnp.where(done, returns, 0.0),
        finished_length=jnp.where(done, length, 0),
    )
    after = VecState(
        env_state=jax.tree.map(where_done, pool.env_state, step.state),
        obs=where_done(pool.obs, step.obs),
        episode_return=jnp.where(done, 0.0, returns),
        episode_length=jnp.where(done, 0, length),
    )
    return after, transition, taken[-1]


def max_truncations(env: Environment, num_steps: int) -> int:
    """How often one environment can truncate within ``num_steps`` steps: ceil(T / L) with a time limit L only."""
    step = jax.eval_shape(_first_step(env), abstract_key())
    if step.truncated is not None:
        return num_steps
    return 0 if env.time_limit is None else -(-num_steps // env.time_limit)


# ---------------------------------------------------------------------------------------------------------------------
# Making environments by name
# ---------------------------------------------------------------------------------------------------------------------


def make_env(
    env: str | Environment,
    env_params: dict[str, Any] | None = None,
    *,
    full_action_set: bool = False,
    sticky_actions: float = 0.0,
    mask_rewards: float = 0.0,
    sign_rewards: bool = False,
    observe: Sequence[int] | None = None,
    frame_stack: int = 1,
    append_time: bool = False,
) -> Environment:
    """An environment by name, in the wrappers asked for.

    Args:
        env: a gymnax name (``"Breakout-MinAtar"``), ``"brax:"`` and a Brax name (``"brax:hopper"``), ``"mdp:"`` and the name
            of a tabular MDP (``"mdp:cliff_walking"``), or an object that follows the protocol, which is only wrapped.
        env_params: parameters of a gymnax environment (``{"max_steps_in_episode": 5000}``); for Brax ``backend``
            (``"generalized"``, ``"spring"``, ``"positional"`` or ``"mjx"``), ``episode_length`` and those of its own class;
            for a tabular MDP ``time_limit`` and the arguments of its function in :mod:`purejaxrl_ext.mdps`.
        full_action_set: MinAtar only, all six actions instead of those that the game uses.
        sticky_actions: probability that the environment repeats the previous action (Machado et al. 2018).
        mask_rewards: probability that a reward is replaced by 0 for the agent; the episode's return stays the true one.
        sign_rewards: the agent learns from the sign of the reward (Mnih et al. 2015); the return stays the true one.
        observe: which entries of a vector observation the agent sees, in this order; ``(0, 2)`` hides CartPole's velocities.
        frame_stack: the agent sees the last so many observations, side by side on the last axis, oldest first; before an
            episode has as many, its first one stands for those missing.
        append_time: append the episode's time, scaled to [−1, 1], to a vector observation (Pardo et al. 2018).

    Raises:
        ValueError: an unknown name or parameter, or a wrapper that does not apply.
    """
    name = env if isinstance(env, str) else getattr(env, "name", type(env).__name__)
    for field, value in (("sticky_actions", sticky_actions), ("mask_rewards", mask_rewards)):
        check(0.0 <= value <= 1.0, field, value, "a probability in [0, 1]")
    made: Any
    if not isinstance(env, str):
        check(not env_params, "env_params", env_params, "None for an environment given as an object")
        check(not full_action_set, "full_action_set", full_action_set, "False for an environment given as an object")
        made = env
    elif env.startswith("brax:"):
        check(not full_action_set, "full_action_set", full_action_set, "False outside MinAtar")
        made = BraxEnv(env.removeprefix("brax:"), _freeze(env_params))
    elif env.startswith("mdp:"):
        from purejaxrl_ext.mdps import make_tabular  # which itself imports this module

        check(not full_action_set, "full_action_set", full_action_set, "False outside MinAtar")
        made = make_tabular(env.removeprefix("mdp:"), env_params)
    else:
        made = GymnaxEnv(env, _freeze(env_params), full_action_set)
    check_env(made)
    if sticky_actions > 0:
        made = StickyActions(made, float(sticky_actions))
    if mask_rewards > 0:
        made = MaskRewards(made, float(mask_rewards))
    if sign_rewards:
        made = SignRewards(made)
    if observe is not None:
        made = Observe(made, _indices(observe, made))
    shape = made.observation_shape
    check(is_int(frame_stack) and frame_stack >= 1, "frame_stack", frame_stack, "an int of at least 1")
    if frame_stack > 1:
        check(len(shape) > 0, "frame_stack", frame_stack, f"1 for {name}, whose observation is a scalar")
        made = FrameStack(made, frame_stack)
    if append_time:
        check(
            len(made.observation_shape) == 1, "append_time", True, f"False for {name}, whose observation is no vector"
        )
        check(made.time_limit is not None, "append_time", True, f"False for {name}, which has no time limit")
        made = AppendTime(made)
    return made


def _indices(observe: Any, env: Environment) -> tuple[int, ...]:
    shape = env.observation_shape
    check(len(shape) == 1, "observe", observe, f"None for {env.name}, whose observation is no vector")
    every = tuple(range(shape[0]))
    ok = isinstance(observe, Sequence) and len(observe) > 0 and all(is_int(i) and i in every for i in observe)
    check(ok, "observe", observe, f"a sequence of indices of the {shape[0]} entries that {env.name} shows")
    check(len(set(observe)) == len(observe), "observe", observe, "different indices")
    check(tuple(observe) != every, "observe", observe, f"None where all of {env.name} is seen")
    return tuple(observe)


def check_env(env: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` where an environment doesn't follow the protocol; compiles nothing."""
    for member in ("name", "observation_shape", "action_space", "time_limit", "reset", "step"):
        if not hasattr(env, member):
            raise TypeError(f"environment {env!r} has no {member!r}; see purejaxrl_ext.envs for what one needs")
    check(isinstance(env.action_space, Discrete | Box), "action_space", env.action_space, "a prx.Discrete or a prx.Box")
    check(env.time_limit is None or env.time_limit > 0, "time_limit", env.time_limit, "None or a positive int")
    try:
        hash(env)
    except TypeError as error:
        raise TypeError(f"environment {env.name!r} must be hashable (make it a frozen dataclass): {error}") from error
    (state, obs), step = jax.eval_shape(lambda key: (env.reset(key), _first_step(env)(key)), abstract_key())
    if not isinstance(step, EnvStep):
        raise TypeError(f"environment {env.name!r}: step must return an EnvStep, got {type(step).__name__}")

    def kinds(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: (x.shape, x.dtype.name), tree)

    for what, first, after in (("state", state, step.state), ("observation", obs, step.obs)):
        if kinds(first) != kinds(after):
            raise TypeError(
                f"environment {env.name!r}: the {what} after step must have the structure, shapes and dtypes of that "
                f"after reset: {kinds(after)} against {kinds(first)}"
            )
    if tuple(obs.shape) != tuple(env.observation_shape):
        raise ValueError(
            f"environment {env.name!r}: observation_shape={env.observation_shape}, but reset gives {obs.shape}"
        )
    if step.terminated.dtype != jnp.bool_ or step.reward.shape != ():
        raise TypeError(f"environment {env.name!r}: terminated must be a bool and reward a float scalar")


def _first_step(env: Environment) -> Callable[[Array], EnvStep]:
    space = env.action_space
    action = jnp.zeros((), jnp.int32) if isinstance(space, Discrete) else jnp.zeros(space.shape, jnp.float32)
    return lambda key: env.step(key, env.reset(key)[0], action)


def _freeze(env_params: dict[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((env_params or {}).items()))


# ---------------------------------------------------------------------------------------------------------------------
# Adapters
# ---------------------------------------------------------------------------------------------------------------------

# It reads its images from the network when made.
_NEEDS_DOWNLOAD = {"MNISTBandit-bsuite"}


def _gymnax() -> Any:
    # Its import computes, after which neither devices nor other processes can be chosen: not before it is needed.
    import gymnax

    return gymnax


@functools.cache
def _gymnax_make(name: str, full_action_set: bool) -> tuple[Any, Any]:
    if full_action_set:
        return _gymnax().make(name, use_minimal_action_set=False)
    return _gymnax().make(name)


@dataclass(frozen=True)
class GymnaxEnv:
    """A gymnax environment, without gymnax's auto-reset (which resets at every step).

    Observations that a network cannot take are turned into ones that it can: FrozenLake's index to one-hot, integer
    vectors to float. MinAtar's 0/1 planes are kept as bool, an eighth of the memory of float32 and more.

    Attributes:
        name: gymnax's name.
        params: sorted (name, value) pairs that differ from the environment's defaults.
        full_action_set: MinAtar only.
    """

    name: str
    params: tuple[tuple[str, Any], ...] = ()
    full_action_set: bool = False

    def __post_init__(self) -> None:
        known = [n for n in _gymnax().registered_envs if n not in _NEEDS_DOWNLOAD]
        if self.name in _NEEDS_DOWNLOAD:
            raise ValueError(f"environment {self.name!r} downloads its data when made, which is not supported")
        if self.name not in known:
            raise ValueError(unknown_name("environment", self.name, known, 'Also "brax:hopper", "mdp:maze" and so on.'))
        is_minatar = self.name.endswith("-MinAtar")
        check(is_minatar or not self.full_action_set, "full_action_set", True, "False outside MinAtar")
        fields = [f.name for f in dataclasses.fields(_gymnax_make(self.name, False)[1])]
        for key, _ in self.params:
            if key not in fields:
                raise ValueError(unknown_name(f"env_params of {self.name}", key, fields))
        # Now, outside any trace: spaces hold arrays, which a trace would turn into tracers.
        _ = self.action_space
        limit = self.time_limit
        check(limit > 0, "env_params['max_steps_in_episode']", limit, "a positive int")

    @property
    def _env(self) -> Any:
        return _gymnax_make(self.name, self.full_action_set)[0]

    @property
    def env_params(self) -> Any:
        """gymnax's own parameter struct, with ours put in."""
        return _gymnax_make(self.name, self.full_action_set)[1].replace(**dict(self.params))

    @property
    def time_limit(self) -> int:
        return int(self.env_params.max_steps_in_episode)

    @functools.cached_property
    def action_space(self) -> Discrete | Box:
        space = self._env.action_space(self.env_params)
        if hasattr(space, "n"):
            return Discrete(int(space.n))
        low, high = (np.broadcast_to(np.asarray(x, np.float32), space.shape) for x in (space.low, space.high))
        return Box(tuple(low.ravel().tolist()), tuple(high.ravel().tolist()))

    @functools.cached_property
    def observation_shape(self) -> tuple[int, ...]:
        return jax.eval_shape(self.reset, abstract_key())[1].shape

    @functools.cached_property
    def _num_observations(self) -> int | None:
        return getattr(self._env.observation_space(self.env_params), "n", None)

    @functools.cached_property
    def _state_kinds(self) -> PyTree:
        # reset gives Python ints and weak types where step gives arrays: a scan wants one kind.
        env, params = self._env, self.env_params
        action = jnp.zeros(
            self.action_space.shape, jnp.int32 if isinstance(self.action_space, Discrete) else jnp.float32
        )

        def first(key: Array) -> PyTree:
            return env.step_env(key, env.reset_env(key, params)[1], action, params)[1]

        with jax.numpy_rank_promotion("allow"):
            return jax.eval_shape(first, abstract_key())

    def _observe(self, obs: Array) -> Array:
        if self._num_observations is not None:
            return jax.nn.one_hot(obs, self._num_observations)
        return obs.astype(jnp.bool_) if self.name.endswith("-MinAtar") else obs.astype(jnp.float32)

    def _settle(self, state: PyTree) -> PyTree:
        return jax.tree.map(lambda kind, x: jnp.asarray(x, kind.dtype).reshape(kind.shape), self._state_kinds, state)

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        with jax.numpy_rank_promotion("allow"):
            obs, state = self._env.reset_env(key, self.env_params)
        return self._settle(state), self._observe(obs)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        with jax.numpy_rank_promotion("allow"):
            obs, state, reward, terminated, _ = self._env.step_env(key, env_state, action, self.env_params)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        return EnvStep(self._settle(state), self._observe(obs), reward, jnp.asarray(terminated, jnp.bool_).reshape(()))


@functools.cache
def _brax_make(name: str, params: tuple[tuple[str, Any], ...]) -> Any:
    try:
        from brax import envs as brax_envs
    except ImportError as error:
        raise ImportError("Brax environments need the extra: pip install 'purejaxrl_ext[brax]'") from error
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
        check(self.time_limit > 0, "env_params['episode_length']", self.time_limit, "a positive int")

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


# ---------------------------------------------------------------------------------------------------------------------
# Wrappers
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wrapper:
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
class StickyActions(_Wrapper):
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
class MaskRewards(_Wrapper):
    """With probability ``probability`` the agent gets 0 for a reward; the episode's return counts the true one."""

    probability: float = 0.9

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        env_key, mask_key = jax.random.split(key)
        step = self.env.step(env_key, env_state, action)
        masked = jnp.where(jax.random.bernoulli(mask_key, self.probability), 0.0, step.reward)
        return step._replace(reward=masked, score=step.reward if step.score is None else step.score)


@dataclass(frozen=True)
class SignRewards(_Wrapper):
    """The agent gets the sign of a reward; the episode's return counts the true one."""

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        step = self.env.step(key, env_state, action)
        return step._replace(reward=jnp.sign(step.reward), score=step.reward if step.score is None else step.score)


@dataclass(frozen=True)
class Observe(_Wrapper):
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
class FrameStack(_Wrapper):
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
class AppendTime(_Wrapper):
    """Appends 2t/L − 1 to a vector observation, t the steps done and L the time limit."""

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
