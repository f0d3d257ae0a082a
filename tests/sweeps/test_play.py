"""A trained policy in an environment that Gymnasium steps."""

from dataclasses import dataclass
from typing import ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toys import Clock, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.sweeps.trained import Policy


def fresh(env="CartPole-v1", greedy=True, **settings):
    algorithm = tiny("ppo", env, **settings)
    return Policy(algorithm, algorithm.init(jax.random.key(0)), greedy, algorithm.hparams)


class Rows(gymnasium.Env):
    """Eight steps of drawn observations; of its two actions, ``only`` is legal. Actions are kept."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, only=None, render_mode=None):
        self.actions, self.render_mode = [], render_mode
        self.info = {} if only is None else {"action_mask": np.arange(2) == only}

    def reset(self, *, seed=None, options=None):
        self.rows, self.actions = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32), []
        return self.rows[0], self.info

    def step(self, action):
        self.actions.append(action)
        return self.rows[len(self.actions)], 0.5, False, len(self.actions) == 8, self.info

    def render(self):
        return np.full((8, 8, 3), 20 * len(self.actions), np.uint8)


@dataclass(frozen=True)
class Free(Clock):
    """A clock of four numbers that knows of legal actions."""

    observation_shape: tuple[int, ...] = (4,)

    def legal_actions(self, env_state):
        return jnp.ones(2, bool)

    def reset(self, key):
        return jnp.zeros(()), jnp.zeros(4)

    def step(self, key, env_state, action):
        return prx.EnvStep(env_state, jnp.zeros(4), action, jnp.zeros((), bool))


def test_it_acts_on_what_it_sees_through_its_wrappers():
    """Two frames and the time; sticky actions stay behind."""
    policy = fresh(frame_stack=2, append_time=True, sticky_actions=0.9, observe=(1, 0))
    env = Rows()
    played = policy.play(env)
    assert played.returns.tolist() == [4.0] and played.lengths.tolist() == [8]
    rows = env.rows[:8, [1, 0]]
    before = np.concatenate([rows[:1], rows[:-1]])
    time = 2 * np.arange(8, dtype=np.float32)[:, None] / 500 - 1
    np.testing.assert_array_equal(env.actions, policy(np.concatenate([before, rows, time], axis=1)))


def test_episodes_and_a_picture(tmp_path):
    played = fresh(greedy=False).play(Rows(render_mode="rgb_array"), 2, path=tmp_path / "rows.gif", max_steps=3)
    assert played.lengths.tolist() == [3, 3] and played.returns.tolist() == [1.5, 1.5]
    with Image.open(played.path) as picture:
        assert picture.n_frames == 8 and picture.info["duration"] == 100


@pytest.mark.parametrize("only", [0, 1])
def test_a_mask_comes_from_info(only):
    env = Rows(only)
    fresh(Free()).play(env)
    assert env.actions == 8 * [only]


def test_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="action_space"):
        fresh().play(gymnasium.make("Acrobot-v1"))
    with pytest.raises(ValueError, match=r"obs\.shape"):
        fresh(Clock()).play(Rows())
    with pytest.raises(ValueError, match="render_mode"):
        fresh().play(gymnasium.make("CartPole-v1"), path=tmp_path / "x.gif")
    with pytest.raises(ValueError, match=r"\.gif"):
        fresh().play(gymnasium.make("CartPole-v1", render_mode="rgb_array"), path=tmp_path / "x.png")
