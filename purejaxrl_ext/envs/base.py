"""The environment protocol: what a loop asks of a world.

An environment of your own is any hashable object with these members::

    name: str
    observation_shape: tuple[int, ...]
    action_space: Discrete | Box
    time_limit: int | None               # the loop truncates episodes at this many steps
    reset(key) -> (env_state, obs)
    step(key, env_state, action) -> EnvStep      # one transition, without auto-reset

``step`` sees one environment; the loops vmap it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from purejaxrl_ext.errors import check
from purejaxrl_ext.types import Array, Box, Discrete, PyTree, abstract_key


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


def check_env(env: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` where an environment doesn't follow the protocol; compiles nothing."""
    for member in ("name", "observation_shape", "action_space", "time_limit", "reset", "step"):
        if not hasattr(env, member):
            raise TypeError(f"environment {env!r} has no {member!r}; see purejaxrl_ext.envs.base for what one needs")
    check(isinstance(env.action_space, Discrete | Box), "action_space", env.action_space, "a prx.Discrete or a prx.Box")
    check(env.time_limit is None or env.time_limit > 0, "time_limit", env.time_limit, "None or a positive int")
    try:
        hash(env)
    except TypeError as error:
        raise TypeError(f"environment {env.name!r} must be hashable (make it a frozen dataclass): {error}") from error
    (state, obs), step = jax.eval_shape(lambda key: (env.reset(key), first_step(env)(key)), abstract_key())
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


def first_step(env: Environment) -> Callable[[Array], EnvStep]:
    """A step from a fresh state, for ``jax.eval_shape``."""
    space = env.action_space
    action = jnp.zeros((), jnp.int32) if isinstance(space, Discrete) else jnp.zeros(space.shape, jnp.float32)
    return lambda key: env.step(key, env.reset(key)[0], action)
