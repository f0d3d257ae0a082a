"""MiniGrid's worlds in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_ext as prx
from purejaxrl_ext import envs, render

pytest.importorskip("xminigrid", reason="xminigrid is an extra: pip install -e '.[xminigrid]'")

KEY = jax.random.key(0)


def test_a_walk_to_the_goal():
    """Two forward, right, two forward in an empty room: the goal ends the episode and pays less the later it comes."""
    env = prx.make_env("xminigrid:MiniGrid-Empty-5x5", {"max_steps": 50, "view_size": 5})
    state, obs = env.reset(KEY)
    assert (
        env.time_limit == 50
        and state.state.grid.shape == (5, 5, 2)
        and obs.shape == env.observation_shape
        and obs.dtype == bool
    )
    assert (obs.sum(-1) == 2).all()
    step = jax.jit(env.step)
    for action in (0, 0, 1, 0, 0):
        after = step(KEY, state, jnp.int32(action))
        state = after.state
    assert after.terminated and after.reward == pytest.approx(1 - 0.9 * 5 / 50)
    (picture,) = render.frames(env, jax.tree.map(lambda x: x[None], state), np.asarray(after.obs)[None])
    assert picture.shape[-1] == 3 and picture.dtype == np.uint8


def test_what_is_not_there():
    with pytest.raises(ValueError, match="Did you mean 'MiniGrid-DoorKey-8x8'"):
        envs.make_env("xminigrid:DoorKey-8x8")
    with pytest.raises(ValueError, match="a positive int"):
        envs.make_env("xminigrid:MiniGrid-FourRooms", {"view_size": 0})
