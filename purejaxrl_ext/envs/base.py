"""The environment protocol: what a loop asks of a world.

An environment of your own is any hashable object with these members::

    name: str
    observation_shape: tuple[int, ...]   # where an observation is a tree of arrays, anything: make flattens it
    action_space: Discrete | MultiDiscrete | Box
    time_limit: int | None               # the loop truncates episodes at this many steps
    reset(key) -> (env_state, obs)
    step(key, env_state, action) -> EnvStep      # one transition, without auto-reset

``step`` sees one environment; the loops vmap it. Where not all actions are there in every state, a further member says which
(at a termination anything; see :class:`purejaxrl_ext.networks.Masked` for what it does)::

    legal_actions(env_state) -> bool [A]

An environment that goes on to its next episode by itself, as those on the host do, is asked for it, and no fresh states are drawn::

    renew(env_state) -> (env_state, obs)         # of the state after a step that ended an episode

Two members more are for pictures, and may be missing::

    render(env_state) -> uint8 [H, W, 3]         # None: its observations are drawn
    fps: float                                   # pictures a second, at most 50 (what a GIF can show)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.errors import check, is_int
from purejaxrl_ext.types import Array, Box, Discrete, MultiDiscrete, PyTree, abstract_key


def plain(value: Any) -> Any:
    """Python's own numbers for numpy's and JAX's, and tuples for arrays and lists, inside them too; else as it is."""
    if isinstance(value, np.generic | np.ndarray | jax.Array) and not isinstance(value, jax.core.Tracer):
        value = np.asarray(value).tolist()
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


_NUMBERS = (jnp.floating, jnp.integer, jnp.bool_)  # what may be observed or rewarded


class EnvStep(NamedTuple):
    """One transition.

    Attributes:
        state: the environment's next state.
        obs: the observation there: the final one if the episode ends.
        reward: scalar, what the agent learns from: a float, an int or a bool.
        terminated: bool scalar, the episode has ended and nothing follows.
        truncated: bool scalar if the environment cuts episodes by itself other than by ``time_limit``; None if never.
        score: scalar counted in the episode's return, where that is not the reward (masked or clipped rewards).
    """

    state: PyTree
    obs: Array
    reward: Array
    terminated: Array
    truncated: Any = None
    score: Any = None


@runtime_checkable
class Environment(Protocol):
    """The members an environment needs (see the module's docstring)."""

    name: str
    observation_shape: tuple[int, ...]
    action_space: Discrete | MultiDiscrete | Box
    time_limit: int | None

    def reset(self, key: Array) -> tuple[PyTree, Array]: ...

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep: ...


def settle(env: Environment, step: EnvStep, length: Array) -> EnvStep:
    """A step with every field filled in, of one environment or of ``[N]``: whoever steps one reads it so.

    Args:
        env: the environment, or its wrappers.
        step: what its ``step`` gave.
        length: steps of the episode, this one counted.

    Returns:
        the step, its ``reward`` and ``score`` float32 (as integers they would make a γ of their kind 0), ``score`` the reward
        where there is no other, ``truncated`` also at the time limit. If an episode terminates there, it terminated.
    """
    reward = jnp.asarray(step.reward).astype(jnp.float32)
    score = reward if step.score is None else jnp.asarray(step.score).astype(jnp.float32)
    terminated = jnp.asarray(step.terminated)
    truncated = jnp.zeros_like(terminated) if step.truncated is None else jnp.asarray(step.truncated)
    if env.time_limit is not None:
        truncated = truncated | (length >= env.time_limit)
    return step._replace(reward=reward, score=score, terminated=terminated, truncated=truncated & ~terminated)


def check_env(env: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` where an environment doesn't follow the protocol; compiles nothing."""
    _check_members(env)

    def first(key: Array) -> tuple[Any, EnvStep]:
        begun = env.reset(key)
        _check_begun(env, begun)
        return begun, first_step(env)(key)

    begun, step = jax.eval_shape(first, abstract_key())
    _check_legal(env, begun[0])
    _check_step(env, begun, step)


def _check_members(env: Any) -> None:
    if isinstance(env, type):
        raise TypeError(f"environment {env.__name__} is a class: give an instance of it, {env.__name__}(...)")
    for member in ("name", "observation_shape", "action_space", "time_limit", "reset", "step"):
        if not hasattr(env, member):
            raise TypeError(
                f"environment {env!r} has no {member!r}; see purejaxrl_ext.envs.base for what one needs. Environments of "
                'gymnax and Brax are asked for by name: "CartPole-v1", "brax:hopper"'
            )
    check(isinstance(env.name, str), "name", env.name, "a string")
    shape = env.observation_shape
    # Of a tree it means nothing, and what reset gives is not known yet.
    is_shape = shape is None or (isinstance(shape, tuple) and all(is_int(plain(size)) and size >= 0 for size in shape))
    check(
        is_shape, "observation_shape", shape, "a tuple of ints, that of the one array that is observed; None of a tree"
    )
    _check_space(env.action_space)
    limit = env.time_limit
    ok = limit is None or (is_int(plain(limit)) and limit > 0)
    check(ok, "time_limit", limit, "None or a positive int")
    try:
        hash(env)
    except TypeError as error:
        raise TypeError(
            f"environment {env.name!r} must be hashable: make it a frozen dataclass, whose fields are numbers, strings and "
            f"tuples, or give it __hash__ and __eq__ by its contents, as TabularEnv has: {error}"
        ) from error


def _check_space(space: Any) -> None:
    known = isinstance(space, Discrete | MultiDiscrete | Box)
    check(known, "action_space", space, "a prx.Discrete, a prx.MultiDiscrete or a prx.Box")
    if isinstance(space, MultiDiscrete):
        sizes = space.sizes
        ok = isinstance(sizes, tuple) and len(sizes) > 0 and all(is_int(plain(n)) and n > 0 for n in sizes)
        check(ok, "action_space", space, "of a tuple of positive ints")
        return
    if isinstance(space, Discrete):
        check(is_int(plain(space.n)) and space.n > 0, "action_space", space, "of a positive int")
        return
    tuples = isinstance(space.low, tuple) and isinstance(space.high, tuple) and 0 < len(space.low) == len(space.high)
    numbers = tuples and all(isinstance(plain(x), int | float) for x in space.low + space.high)
    check(numbers, "action_space", space, "of two tuples, one number for each entry of the action")
    ordered = all(low < high for low, high in zip(space.low, space.high, strict=True))
    check(ordered, "action_space", space, "of a low below its high in each entry")


def _check_begun(env: Any, begun: Any) -> None:
    """What ``reset`` gives."""
    if not isinstance(begun, tuple | list) or len(begun) != 2:
        count = f"{len(begun)} values" if isinstance(begun, tuple | list) else "one value"
        raise TypeError(f"environment {env.name!r}: reset must give (env_state, obs), got {count}")
    obs = begun[1]
    many = is_tree(obs)
    arrays = (jax.Array, np.ndarray) if many else (jax.Array, np.ndarray, np.generic, int, float)
    if not all(isinstance(leaf, arrays) for leaf in jax.tree.leaves(obs) or [None]):
        kind = f"a {type(obs).__name__}" + (f" of {', '.join(map(str, obs))}" if isinstance(obs, dict) else "")
        raise TypeError(f"environment {env.name!r}: obs must be one array or a tree of arrays, got {kind}")
    if many:
        return
    got = jnp.asarray(obs)
    if not any(jnp.issubdtype(got.dtype, kind) for kind in _NUMBERS):
        raise TypeError(f"environment {env.name!r}: obs must be numbers or bools, got {got.dtype}")
    if env.observation_shape is None or got.shape != tuple(env.observation_shape):
        raise ValueError(
            f"environment {env.name!r}: observation_shape={env.observation_shape}, but reset gives {got.shape}"
        )


def is_tree(obs: Any) -> bool:
    """Whether an observation, or the shapes of one, is of several arrays, not of one."""
    return not jax.tree_util.treedef_is_leaf(jax.tree.structure(obs))


def _check_legal(env: Any, state: PyTree) -> None:
    """``state``: shapes of one."""
    if getattr(env, "legal_actions", None) is None:
        return
    discrete = isinstance(env.action_space, Discrete)
    check(discrete, "legal_actions", env.name, "missing where actions are not discrete, one at a time")
    legal, size = jax.eval_shape(env.legal_actions, state), env.action_space.n
    if getattr(legal, "shape", None) != (size,) or legal.dtype != bool:
        raise TypeError(f"environment {env.name!r}: legal_actions must give bool [{size}], got {legal}")


def _check_step(env: Any, begun: tuple[Any, Any], step: Any) -> None:
    """``begun`` and ``step``: shapes of what ``reset`` and ``step`` give."""
    if not isinstance(step, EnvStep):
        raise TypeError(f"environment {env.name!r}: step must return an EnvStep, got {type(step).__name__}")

    def kinds(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: (x.shape, x.dtype.name), tree)

    for what, first, after in zip(("state", "observation"), begun, (step.state, step.obs), strict=True):
        if kinds(first) != kinds(after):
            raise TypeError(
                f"environment {env.name!r}: the {what} after step must have the structure, shapes and dtypes of that "
                f"after reset: {kinds(after)} against {kinds(first)}"
            )
    for field, allowed in (
        ("terminated", _NUMBERS[2:]),
        ("truncated", _NUMBERS[2:]),
        ("reward", _NUMBERS),
        ("score", _NUMBERS),
    ):
        got = getattr(step, field)
        if got is None and field in ("truncated", "score"):
            continue
        if getattr(got, "shape", None) != () or not any(jnp.issubdtype(got.dtype, kind) for kind in allowed):
            kind = "a bool scalar" if allowed == _NUMBERS[2:] else "a scalar, float, int or bool"
            raise TypeError(f"environment {env.name!r}: {field} must be {kind}, got {got}")


def first_step(env: Environment) -> Callable[[Array], EnvStep]:
    """A step from a fresh state, for ``jax.eval_shape``."""
    action = no_action(env.action_space)
    return lambda key: env.step(key, env.reset(key)[0], action)


def no_action(space: Discrete | MultiDiscrete | Box) -> Array:
    """Action 0 of a space, in its shape and dtype."""
    return jnp.zeros(space.shape, jnp.float32 if isinstance(space, Box) else jnp.int32)
