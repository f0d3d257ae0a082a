"""Small environments and networks with known answers, and the settings that tests share.

Equal settings share one compiled program, so tests that use ``tiny`` as it is compile once between them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purejaxrl_ext as prx

TWO = prx.Discrete(2)
TINY: dict[str, Any] = {
    "num_envs": 2,
    "num_steps": 8,
    "num_epochs": 2,
    "num_minibatches": 2,
    "hidden_sizes": (8,),
    "metrics_every": 4,
    "learning_rate": 1e-3,
    # Off-policy algorithms have these.
    "replay_capacity": 50,
    "batch_size": 4,
    "prefill_steps": 8,
    "env_steps_per_update": 2,
    "updates_per_step": 4,
}


def tiny(algorithm: str = "ppo", env: Any = "CartPole-v1", **settings: Any) -> prx.Algorithm:
    """An algorithm with as little work as shows what it does; settings that it does not have are left out.

    REINFORCE's rollouts are whole episodes, so its time limit is cut to theirs.
    """
    recipe = prx.ALGORITHMS[algorithm]
    known = {f.name for kind in (recipe.config, recipe.hparams) for f in dataclasses.fields(kind)}
    settings = {k: v for k, v in TINY.items() if k in known} | settings
    if getattr(recipe.config, "episodic", False):
        settings["num_steps"] = None
        if isinstance(env, str):
            settings["env_params"] = {"max_steps_in_episode": 12}
    return prx.make(algorithm, env, **settings)


@dataclass(frozen=True)
class Clock:
    """Observation (origin, t): a reset draws ``origin``, a step adds 1 to t, so each state names its true successor.

    Attributes:
        time_limit: the loop truncates there.
        truncate_every: the environment truncates by itself at origin-dependent times; 0: never (``truncated`` is None).
        terminate_at: episodes whose origin is above 0.5 terminate after so many steps; 0: never.
    """

    time_limit: int | None = None
    truncate_every: int = 0
    terminate_at: int = 0
    name: str = "clock"
    observation_shape: tuple[int, ...] = (2,)
    action_space: Any = TWO

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jnp.stack([jax.random.uniform(key), jnp.zeros(())])
        return state, state

    def step(self, key: jax.Array, env_state: jax.Array, action: jax.Array) -> prx.EnvStep:
        state = env_state + jnp.array([0.0, 1.0])
        terminated = (self.terminate_at > 0) & (state[0] > 0.5) & (state[1] >= max(self.terminate_at, 1))
        truncated = None
        if self.truncate_every:
            truncated = state[1] >= self.truncate_every + jnp.floor(3.0 * state[0])
        return prx.EnvStep(state, state, state[1], terminated, truncated)


class ClockNetwork:
    """V(origin, t) = 100 origin + t: V of the true successor is V + 1, of a reset it is not."""

    def init(self, key: jax.Array, obs: jax.Array) -> Any:
        return {"params": {"w": jnp.zeros(2)}}

    def apply(self, params: Any, obs: jax.Array) -> prx.Output:
        logits = jnp.broadcast_to(params["params"]["w"], (*obs.shape[:-1], 2))
        return prx.Output(policy=prx.Categorical(logits), value=100.0 * obs[..., 0] + obs[..., 1])


@dataclass(frozen=True)
class Echo:
    """A Box environment that shows the action it was given: observation = last action; never ends."""

    low: float = -2.0
    high: float = 4.0
    target: float = 0.0
    name: str = "echo"
    observation_shape: tuple[int, ...] = (1,)
    time_limit: int | None = None

    @property
    def action_space(self) -> prx.Box:
        return prx.Box((self.low,), (self.high,))

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        zeros = jnp.zeros(1, jnp.float32)
        return zeros, zeros

    def step(self, key: jax.Array, env_state: jax.Array, action: jax.Array) -> prx.EnvStep:
        return prx.EnvStep(action, action, -jnp.square(action[0] - self.target), jnp.zeros((), bool))


@dataclass(frozen=True)
class Poison:
    """Never ends; a first state drawn below ``share`` gives NaN rewards, so a run is poisoned by its seed alone.

    Attributes:
        share: of the states that are poisoned.
        after: steps before the poison acts.
    """

    share: float = 0.2
    after: int = 0
    name: str = "poison"
    observation_shape: tuple[int, ...] = (1,)
    action_space: Any = TWO
    time_limit: int | None = None

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = jax.random.uniform(key, (1,))
        return jnp.stack([drawn[0], 0.0]), drawn

    def step(self, key: jax.Array, env_state: jax.Array, action: jax.Array) -> prx.EnvStep:
        bad = (env_state[0] < self.share) & (env_state[1] >= self.after)
        reward = jnp.where(bad, jnp.nan, action.astype(jnp.float32))
        return prx.EnvStep(env_state + jnp.array([0.0, 1.0]), env_state[:1], reward, jnp.zeros((), bool))


@dataclass(frozen=True)
class Gate:
    """A number n in 0 … 3 is shown; of four actions n and n + 1 (mod 4) are legal, and n + 1 is worth 1. An illegal action
    costs 100, and the episode counts it in its return."""

    name: str = "gate"
    observation_shape: tuple[int, ...] = (4,)
    action_space: Any = prx.Discrete(4)
    time_limit: int | None = 8

    def show(self, n: jax.Array) -> jax.Array:
        return jax.nn.one_hot(n, 4)

    def legal_actions(self, env_state: jax.Array) -> jax.Array:
        ahead = (jnp.arange(4) - env_state) % 4
        return ahead < 2

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        n = jax.random.randint(key, (), 0, 4)
        return n, self.show(n)

    def step(self, key: jax.Array, env_state: jax.Array, action: jax.Array) -> prx.EnvStep:
        n = jax.random.randint(key, (), 0, 4)
        reward = jnp.where(self.legal_actions(env_state)[action], (action - env_state) % 4 == 1, -100.0)
        return prx.EnvStep(n, self.show(n), reward, jnp.zeros((), bool))


def equal_trees(a: Any, b: Any) -> None:
    """Bit for bit, NaN equal to NaN."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=jax.tree_util.keystr(path))


def equations(jaxpr: Any) -> Any:
    """All equations of a jaxpr and of the jaxprs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)
