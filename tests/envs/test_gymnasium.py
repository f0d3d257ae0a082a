"""Gymnasium's environments: names, spaces, episodes; what all environments on the host share is in ``test_pools``."""

import importlib.util

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext import envs
from purejaxrl_ext.envs import vec_reset
from purejaxrl_ext.envs.gymnasium import GymnasiumEnv, action_space, shown, taken
from purejaxrl_ext.loops.base import random_steps

KEY = jax.random.key(0)
NAME = "purejaxrl_ext_test/Count-v0"


class Count(gymnasium.Env):
    """Shows the seed modulo 100, the episode and the time, and gives the action as reward; ends after ``length`` steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def __init__(self, length=3):
        self.length, self.episode = length, -1

    def reset(self, *, seed=None, options=None):
        self.seed = self.seed if seed is None else seed % 100
        self.episode, self.time = self.episode + 1, 0
        return self._obs(), {}

    def _obs(self):
        return np.array([self.seed, self.episode, self.time])

    def step(self, action):
        self.time += 1
        return self._obs(), float(action), self.time >= self.length, False, {}


@pytest.fixture(autouse=True, scope="module")
def _register():
    gymnasium.register(NAME, Count, max_episode_steps=7)
    yield
    gymnasium.registry.pop(NAME)


def test_episodes():
    """Gymnasium's own actions, observations as float32, and the next episode of the same object after an end."""
    env = GymnasiumEnv(NAME)
    state, obs = jax.vmap(env.reset)(jax.random.split(KEY, 2))
    assert obs.dtype == jnp.float32 and env.time_limit == 7
    seen = []
    for _ in range(4):
        step = jax.jit(jax.vmap(env.step))(jax.random.split(KEY, 2), state, jnp.array([0, 2]))
        state = step.state
        seen.append((*step.obs[0, 1:].tolist(), bool(step.terminated[0])))
        np.testing.assert_array_equal(step.reward, [5, 7])
    assert seen == [(0, 1, False), (0, 2, False), (0, 3, True), (1, 1, False)]


def test_a_time_limit_below_the_end():
    env = prx.make_env(f"gymnasium:{NAME}", {"length": 5, "max_episode_steps": 2})
    made = tiny("ppo", env)
    _, metrics = prx.train(made, KEY, 2 * made.steps_per_update)
    assert metrics["num_episodes"].tolist() == [8, 8] and metrics["episode_length"].tolist() == [2, 2]


def test_as_gymnasium_plays_it():
    """The seed of the state is the seed of Gymnasium's reset."""
    env, theirs = GymnasiumEnv("CartPole-v1"), gymnasium.make("CartPole-v1")
    state, obs = env.reset(KEY)
    np.testing.assert_allclose(obs, theirs.reset(seed=int(state[0].seed))[0], rtol=1e-6)
    step = env.step(KEY, state, jnp.int32(1))
    np.testing.assert_allclose(step.obs, theirs.step(1)[0], rtol=1e-6)


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


def test_lunar_lander():
    if importlib.util.find_spec("Box2D") is None:
        pytest.skip("Box2D is an extra: pip install -e '.[box2d]'")
    env = prx.make_env("gymnasium:LunarLander-v3")
    assert env.observation_shape == (8,) and env.action_space == prx.Discrete(4) and env.time_limit == 1000
    _, obs, _, transition = random_steps(env, vec_reset(env, KEY, 2), KEY, 200, 1)
    ended = np.asarray(transition.terminated)
    assert ended.any() and (transition.finished_length[ended] > 40).all()
    np.testing.assert_allclose(np.asarray(obs)[1:][ended[:-1]][:, 1], 1.41, atol=0.05)
