"""CHIP-8 games."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_ext as prx
from purejaxrl_ext import envs, render

pytest.importorskip("octax", reason="octax is an extra: pip install -e '.[octax]'")

# Of octax itself: it writes ints into bools.
pytestmark = pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning")

KEY = jax.random.key(0)


def test_a_game_is_as_octax_has_it():
    """The same moves from the same start: rewards, and frames as a bool image whose newest is the screen."""
    env = prx.make_env("octax:pong", {"max_num_steps_per_episodes": 20})
    assert env.observation_shape == (32, 64, 4) and env.action_space == prx.Discrete(3) and env.time_limit == 20
    state, _ = env.reset(KEY)
    theirs, step = env._env.reset(jax.random.key_data(KEY))[0], jax.jit(env.step)
    for action in (0, 1, 2):
        after = step(KEY, state, jnp.int32(action))
        state = after.state
        theirs, frames, reward, *_ = env._env.step(theirs, action)
        assert after.reward == reward and not after.terminated
        np.testing.assert_array_equal(after.obs, np.asarray(frames).transpose(2, 1, 0))
    picture = render.frames(env, jax.tree.map(lambda x: x[None], state), after.obs[None])
    np.testing.assert_array_equal(picture[0, ::4, ::4, 0] > 0, after.obs[..., -1])


def test_what_is_not_there():
    with pytest.raises(ValueError, match="Did you mean 'pong'"):
        envs.make_env("octax:pongg")
    with pytest.raises(ValueError, match="Did you mean 'frame_skip'"):
        envs.make_env("octax:pong", {"frameskip": 2})
