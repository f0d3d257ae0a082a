"""Observations of several arrays, several actions at once, and pixels that stay bytes."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import TWO, tiny

import purejaxrl_ext as prx
from purejaxrl_ext import envs
from purejaxrl_ext.networks import policies

KEY = jax.random.key(0)


@dataclass(frozen=True)
class Dungeon:
    """A map and a number, as a dict; the two actions must equal the number's digits."""

    name: str = "dungeon"
    observation_shape: Any = None
    action_space: Any = prx.MultiDiscrete((2, 3))
    time_limit: int | None = 4

    def show(self, state: jax.Array) -> dict[str, jax.Array]:
        board = jnp.zeros((2, 3), jnp.uint8).at[state[0], state[1]].set(1)
        return {"map": board, "health": jnp.float32(0.5)}

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        state = jax.random.randint(key, (2,), 0, jnp.array([2, 3]))
        return state, self.show(state)

    def step(self, key: jax.Array, env_state: jax.Array, action: jax.Array) -> prx.EnvStep:
        fresh, obs = self.reset(key)
        return prx.EnvStep(fresh, obs, (action == env_state).mean(), jnp.zeros((), bool))


@dataclass(frozen=True)
class Pixels:
    """A grey square of a random shade."""

    name: str = "pixels"
    observation_shape: tuple[int, ...] = (6, 6, 1)
    action_space: Any = TWO
    time_limit: int | None = 4

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        obs = jnp.full((6, 6, 1), jax.random.randint(key, (), 0, 256), jnp.uint8)
        return obs, obs

    def step(self, key: jax.Array, env_state: jax.Array, action: jax.Array) -> prx.EnvStep:
        return prx.EnvStep(env_state, env_state, action, jnp.zeros((), bool))


def test_a_dict_becomes_one_vector_and_a_dict_again():
    env = envs.make_env(Dungeon())
    assert env.observation_shape == (7,)
    state, obs = env.reset(KEY)
    assert obs.shape == (7,) and obs.dtype == jnp.float32
    parts = env.tree(jnp.stack([obs, obs]))
    np.testing.assert_array_equal(parts["map"][1], Dungeon().show(state)["map"])
    assert parts["health"].tolist() == [0.5, 0.5]


def test_a_tree_must_hold_arrays():
    @dataclass(frozen=True)
    class Empty(Dungeon):
        def show(self, state):
            return {}

    with pytest.raises(TypeError, match="a tree of arrays"):
        envs.make_env(Empty())


def test_several_actions_are_independent_categoricals():
    logits = jnp.array([[0.0, 1.0, 2.0, 0.5, -1.0]])
    policy = prx.MultiCategorical(logits, (2, 3))
    rows = [prx.Categorical(logits[:, :2]), prx.Categorical(logits[:, 2:])]
    action = jnp.array([[1, 2]])
    for name, arguments in (("entropy", ()), ("log_prob", (action,))):
        parts = [getattr(policies, name)(row, *(a[:, i] for a in arguments)) for i, row in enumerate(rows)]
        np.testing.assert_allclose(getattr(policies, name)(policy, *arguments), sum(parts), rtol=1e-6)
    flat = prx.MultiCategorical(jnp.zeros((1, 5)), (2, 3))
    assert policies.kl_divergence(policy, flat)[0] == pytest.approx(
        float(np.log(6) - policies.entropy(policy)[0]), rel=1e-5
    )
    assert policies.sample(policy, None).tolist() == [[1, 0]]
    assert jnp.isfinite(jax.grad(lambda x: policies.entropy(policy.replace(logits=x)).sum())(logits)).all()
    noise = policies.noise(KEY, (3000,), prx.MultiDiscrete((2, 3)))
    drawn = policies.sample(policy.replace(logits=logits.repeat(3000, 0)), noise)
    joint = np.zeros((2, 3))
    np.add.at(joint, tuple(np.asarray(drawn).T), 1 / 3000)
    expected = np.outer(jax.nn.softmax(logits[0, :2]), jax.nn.softmax(logits[0, 2:]))
    np.testing.assert_allclose(joint, expected, atol=0.03)
    uniform = np.asarray(policies.uniform_actions(KEY, (600,), prx.MultiDiscrete((2, 3))))
    assert uniform.max(0).tolist() == [1, 2] and uniform.min() == 0
    assert float(policies.variance(policy.replace(logits=logits.repeat(2, 0)))) == 0.0


def test_ppo_plays_a_dict_with_two_actions():
    made = tiny("ppo", Dungeon())
    state, metrics = prx.train(made, KEY, made.steps_per_update)
    assert made.config.policy == "categorical"
    assert jnp.isfinite(metrics["loss"]).all()
    assert prx.Policy(made, state, True, made.hparams)(made.env.reset(KEY)[1]).shape == (2,)


def test_q_learning_needs_one_discrete_action():
    with pytest.raises(ValueError, match="one of discrete actions"):
        prx.make("dqn", Dungeon())


@pytest.mark.parametrize("sizes", [(), (2, 0), [2, 3]])
def test_sizes_of_several_actions(sizes):
    with pytest.raises(ValueError, match="positive ints"):
        envs.make_env(Dungeon(action_space=prx.MultiDiscrete(sizes)))


def test_pixels_stay_bytes():
    """In the replay, in a rollout and at its end; the network sees them in [0, 1]."""
    made = tiny("dqn", Pixels(), conv_layers=(), time_limit_terminates=False)
    ring = made.init(KEY).replay.transitions
    assert ring.obs.dtype == ring.next_obs.dtype == jnp.uint8
    made = tiny("ppo", Pixels(), conv_layers=())
    state = jax.eval_shape(made.init, KEY)
    keys = (KEY, KEY, KEY)
    _, rollout, seen = jax.eval_shape(
        lambda s, e: made.loop.collect(s, made.hparams, keys, e), state, jax.ShapeDtypeStruct((), jnp.float32)
    )
    assert rollout.obs.dtype == seen.obs.dtype == seen.beyond[0].dtype == jnp.uint8
