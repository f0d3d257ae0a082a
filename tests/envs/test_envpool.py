"""EnvPool's environments; what all environments on the host share is in ``test_pools``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext.envs import vec_reset
from purejaxrl_ext.loops.base import random_steps

pytest.importorskip("envpool", reason="envpool is an extra: pip install -e '.[envpool]'")

KEY = jax.random.key(0)


def test_lunar_lander():
    """Episodes end, their next one begins at once high above the ground, and no step is a reset's."""
    env = prx.make_env("envpool:LunarLander-v3")
    assert env.observation_shape == (8,) and env.action_space == prx.Discrete(4) and env.time_limit == 1000
    _, obs, _, transition = random_steps(env, vec_reset(env, KEY, 4), KEY, 300, 1)
    ended = np.asarray(transition.terminated)
    assert ended.sum() > 4 and (transition.finished_length[ended] > 40).all()
    begins = np.asarray(obs)[1:][ended[:-1]]
    np.testing.assert_allclose(begins[:, 1], 1.41, atol=0.05)
    assert (np.abs(np.asarray(transition.reward)[ended]) >= 99).mean() > 0.8


def test_runs_repeat():
    made = tiny("ppo", "envpool:LunarLander-v3")
    first, again = (prx.train(made, KEY, 2 * made.steps_per_update)[0] for _ in range(2))
    np.testing.assert_array_equal(first.env.obs, again.env.obs)


def test_atari_is_not_by_default():
    """Scores as they are, channels last."""
    env = prx.make_env("envpool:Phoenix-v5")
    pool = env.pools.make(np.zeros(1, np.int32))
    config = pool.envs.spec.config
    assert not (config.reward_clip or config.episodic_life or config.use_fire_reset)
    assert env.observation_shape == (84, 84, 4) and env.reset(KEY)[1].dtype == jnp.uint8


def test_real_actions():
    env = prx.make_env("envpool:Pendulum-v1")
    assert env.action_space == prx.Box((-2.0,), (2.0,))
    made = tiny("ppo", env)
    assert jnp.isfinite(made.step(made.init(KEY))[1]["loss"])


def test_what_is_not_there():
    with pytest.raises(ValueError, match="Did you mean 'LunarLander-v3'"):
        prx.make_env("envpool:LunarLander-v4")
    with pytest.raises(ValueError, match="unknown env_params of envpool:LunarLander-v3 'gravity'"):
        prx.make_env("envpool:LunarLander-v3", {"gravity": 3})
