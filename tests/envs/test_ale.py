"""Atari: what is chosen, what is seen, and the presets of papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext.envs import vec_reset
from purejaxrl_ext.loops.base import random_steps

pytest.importorskip("ale_py", reason="ale-py is an extra: pip install -e '.[atari]'")

KEY = jax.random.key(0)


def test_what_is_seen():
    """Grey uint8 frames on the last axis, in rollouts too; half an hour of frames is the limit."""
    env = prx.make_env("ale:Pong")
    assert env.observation_shape == (84, 84, 4) and env.action_space == prx.Discrete(6)
    assert env.time_limit == 27_000 and prx.make_env("ale:Pong", {"frameskip": 3}).time_limit == 36_000
    _, obs, _, transition = random_steps(env, vec_reset(env, KEY, 2), KEY, 5, 1)
    assert obs.dtype == jnp.uint8 and transition.final_obs.dtype == jnp.uint8 and obs.max() > 80
    # The last three frames are the first three of the next observation.
    np.testing.assert_array_equal(obs[1:, ..., :3], obs[:-1, ..., 1:])
    state, _ = env.reset(KEY)
    assert env.render(state).shape == (168, 168, 3)


def test_scores_are_true_and_their_sign_is_learned_from():
    """Phoenix gives 20 and more a hit: ale-py's default would clip them to 1."""
    env = prx.make_env("ale:Phoenix", sign_rewards=True)
    step = jax.jit(jax.vmap(env.step))
    keys = jax.random.split(KEY, 4)
    state, _ = jax.vmap(env.reset)(keys)
    rewards, scores = [], []
    for i in range(60):
        after = step(keys, state, jnp.full(4, 1 if i % 2 else 2))
        state = after.state
        rewards.append(after.reward)
        scores.append(after.score)
    assert max(map(float, map(jnp.max, scores))) >= 20 and set(np.unique(rewards)) == {0.0, 1.0}
    np.testing.assert_array_equal(np.sign(scores), rewards)


def test_a_time_limit_goes_on_to_the_next_episode():
    env = prx.make_env("ale:Pong", {"max_num_frames": 40, "noop_max": 0})
    after, _, _, transition = random_steps(env, vec_reset(env, KEY, 2), KEY, 25, 1)
    np.testing.assert_array_equal(np.flatnonzero(transition.truncated[:, 0]), [9, 19])
    assert after.episode_length.tolist() == [5, 5]
    np.testing.assert_array_equal(after.env_state[0].steps, 25)


def made_by_presets():
    """The paper's and Mnih et al.'s, but with less data."""
    pfo = prx.make("pfo", "ale:Phoenix", preset="pfo-paper-ale", num_envs=2, num_steps=8, metrics_every=0)
    small = {"replay_capacity": 64, "prefill_steps": 16, "updates_per_step": 2, "metrics_every": 0}
    return pfo, prx.make("dqn", "ale:Phoenix", preset="mnih-2015", **small)


def test_what_the_presets_say_of_a_game():
    pfo, dqn = made_by_presets()
    game = dict(pfo.env.env.params)
    assert game["frameskip"] == 3 and game["repeat_action_probability"] == 0.25
    assert pfo.env.time_limit == 36_000 and type(pfo.env).__name__ == "SignRewards"
    game = dict(dqn.env.env.params)
    assert game["frameskip"] == 4 and game["repeat_action_probability"] == 0.0 and dqn.env.time_limit == 4_500
    with pytest.raises(ValueError, match=r"mnih-2015.*it is for dqn"):
        prx.make("ppo", "ale:Pong", preset="mnih-2015")


@pytest.mark.thorough
def test_the_presets_make_updates():
    for made in made_by_presets():
        state, metrics = made.step(made.init(KEY))
        assert jnp.isfinite(metrics["loss"]) and state.env.obs.dtype == jnp.uint8
    assert state.replay.transitions.obs.dtype == jnp.uint8


def test_what_is_not_there():
    with pytest.raises(ValueError, match="Did you mean 'Phoenix'"):
        prx.make_env("ale:Phenix")
    with pytest.raises(ValueError, match="Did you mean 'frameskip'"):
        prx.make_env("ale:Pong", {"frame_skip": 3})
    with pytest.raises(ValueError, match=r"frameskip.*positive int"):
        prx.make_env("ale:Pong", {"frameskip": 0})
    with pytest.raises(ValueError, match=r"sticky_actions=0.25 is not allowed.*repeat_action_probability"):
        tiny("ppo", "ale:Pong", sticky_actions=0.25)
