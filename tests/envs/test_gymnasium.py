"""Gymnasium's environments behind a callback: folding, order, resets, spaces."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext import envs
from purejaxrl_ext.envs.gymnasium import FRESH, OVER, GymnasiumEnv, action_space, shown, taken

KEY = jax.random.key(0)
NAME = "purejaxrl_ext_test/Count-v0"


class Count(gymnasium.Env):
    """Shows the seed modulo 100 and the time, and gives the action as reward; ends after ``length`` steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(3, start=5)
    calls = 0

    def __init__(self, length=3):
        self.length = length

    def reset(self, *, seed=None, options=None):
        self.seed, self.time = seed % 100, 0
        return np.array([self.seed, self.time]), {}

    def step(self, action):
        Count.calls += 1
        self.time += 1
        return np.array([self.seed, self.time]), float(action), self.time >= self.length, False, {}


@pytest.fixture(autouse=True, scope="module")
def _register():
    gymnasium.register(NAME, Count, max_episode_steps=7)
    yield
    gymnasium.registry.pop(NAME)


def run(env, state, num_steps):
    """Action 1 in N environments, T times: the final state and the steps ``[T, N]``."""

    def step(state, _):
        after = jax.vmap(env.step)(
            jax.random.split(KEY, len(state["time"])), state, jnp.ones(len(state["time"]), jnp.int32)
        )
        return after.state, after

    return jax.jit(lambda s: jax.lax.scan(step, s, None, num_steps))(state)


def test_a_batch_is_one_call_and_each_step_happens_once():
    """In order, whatever the batch; a step after the end does nothing."""
    env = GymnasiumEnv(NAME)
    state, obs = jax.vmap(env.reset)(jax.random.split(KEY, 4))
    assert obs.dtype == jnp.float32 and len(np.unique(obs[:, 0])) > 1
    before = Count.calls
    state, steps = run(env, state, 5)
    assert Count.calls - before == 4 * 3
    np.testing.assert_array_equal(steps.obs[:, 0, 1], [1, 2, 3, 3, 3])
    np.testing.assert_array_equal(steps.obs[:, :, 0], np.broadcast_to(obs[None, :, 0], (5, 4)))
    np.testing.assert_array_equal(steps.reward[:, 1], [6, 6, 6, 0, 0])
    np.testing.assert_array_equal(steps.terminated[:, 2], [False, False, True, False, False])
    assert (state["number"] == OVER).all()


def test_seeds_are_folded_into_the_batch():
    """vmap over seeds over vmap over environments is one callback: each row is what it is alone."""
    env = GymnasiumEnv(NAME)
    keys = jax.random.split(KEY, (2, 3))
    states, obs = jax.vmap(jax.vmap(env.reset))(keys)
    step = jax.jit(jax.vmap(jax.vmap(env.step)))(keys, states, jnp.arange(6).reshape(2, 3) % 3)
    np.testing.assert_array_equal(step.reward, [[5, 6, 7], [5, 6, 7]])
    np.testing.assert_array_equal(step.obs[..., 0], obs[..., 0])
    program = jax.make_jaxpr(jax.vmap(jax.vmap(env.step)))(keys, states, jnp.zeros((2, 3), jnp.int32))
    assert str(program).count("io_callback[") == 1


def test_the_loop_resets_and_truncates():
    """A time limit below the environment's own end; the auto-reset goes on from fresh episodes."""
    env = prx.make_env(f"gymnasium:{NAME}", {"length": 5, "max_episode_steps": 2})
    made = tiny("ppo", env)
    state, metrics = prx.train(made, KEY, 2 * made.steps_per_update)
    assert metrics["num_episodes"].tolist() == [8, 8] and metrics["episode_length"].tolist() == [2, 2]
    again, _ = prx.train(made, KEY, 2 * made.steps_per_update)
    np.testing.assert_array_equal(state.env.obs, again.env.obs)


def test_a_state_whose_object_is_gone_is_cut():
    env = GymnasiumEnv(NAME)
    state, _ = env.reset(KEY)
    first = env.step(KEY, state, jnp.int32(0))
    second = env.step(KEY, first.state, jnp.int32(0))
    with pytest.warns(UserWarning, match="is cut"):
        again = jax.block_until_ready(env.step(KEY, first.state, jnp.int32(0)))
    assert second.obs[1] == 2 and not second.truncated
    assert again.truncated and again.reward == 0 and again.obs[1] == 1 and state["number"] == FRESH


def test_a_sweep_of_two_seeds():
    """On as many devices: equal to each alone."""
    made = tiny("ppo", f"gymnasium:{NAME}", reset_pool_size=8, metrics_every=0)
    ds = prx.sweep(made, num_seeds=2, total_steps=2 * made.steps_per_update, progress=False)
    _, alone = prx.train(made, jax.random.key(1), 2 * made.steps_per_update)
    np.testing.assert_allclose(ds["episode_return"].isel(seed=1).squeeze(), alone["episode_return"], rtol=1e-5)


def test_spaces():
    spaces = gymnasium.spaces
    pair = spaces.Tuple([spaces.MultiBinary(2), spaces.Box(0, 255, (1, 2), np.uint8)])
    tree = spaces.Dict({"a": spaces.Discrete(3, start=1), "b": pair})
    seen = shown(tree, {"a": 3, "b": (np.array([1, 0], np.int8), np.array([[7, 9]], np.uint8))}, "x")
    assert seen["a"].tolist() == [0, 0, 1] and seen["b"][0].tolist() == [1, 0] and seen["b"][1].dtype == np.uint8
    assert shown(spaces.MultiDiscrete([2, 3]), np.array([1, 2]), "x").tolist() == [0, 1, 0, 0, 1]
    several = spaces.MultiDiscrete([2, 3], start=[0, 4])
    assert action_space(several, "x") == prx.MultiDiscrete((2, 3)) and taken(several, np.array([1, 2])).tolist() == [
        1,
        6,
    ]
    assert action_space(spaces.MultiBinary(2), "x") == prx.MultiDiscrete((2, 2))
    box = spaces.Box(-1.0, 2.0, (2, 1))
    assert action_space(box, "x") == prx.Box((-1.0, -1.0), (2.0, 2.0)) and taken(box, np.zeros(2)).shape == (2, 1)
    for bad in (shown, action_space):
        with pytest.raises(ValueError, match="env='x' is not allowed"):
            bad(spaces.Text(3), *(("abc", "x") if bad is shown else ("x",)))


def test_what_is_not_there():
    with pytest.raises(ValueError, match="Did you mean 'CartPole-v1'"):
        prx.make_env("gymnasium:CartPole-v")
    with pytest.raises(ValueError, match="cannot be made"):
        prx.make_env("gymnasium:CartPole-v1", {"mass": 3})
    assert envs.make_env("gymnasium:CartPole-v1").time_limit == 500
