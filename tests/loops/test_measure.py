"""What enters the measures of an update: samples of all environments, evenly over time."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_ext as prx
from purejaxrl_ext import loops


@pytest.mark.parametrize(("num_envs", "num_steps"), [(4, 2048), (64, 128), (2, 1024), (3, 1000), (1, 50), (4096, 4)])
@pytest.mark.parametrize("most", [1, 7, 256, 2048, 0])
def test_samples_are_of_all_environments_and_times(num_envs, num_steps, most):
    total = num_envs * num_steps
    index = np.asarray(loops.spread(total, num_envs, most))
    assert len(index) == min(most or total, total)
    assert len(set(index.tolist())) == len(index)
    assert index.min() >= 0
    assert index.max() < total
    env, time = index % num_envs, index // num_envs
    counts = np.bincount(env, minlength=num_envs)
    assert counts.max() - counts.min() <= 1
    if len(index) >= num_envs:
        # Each environment's samples are of the whole rollout, with gaps of one size.
        for own in (np.sort(time[env == e]) for e in range(min(num_envs, 8))):
            gaps = np.diff(own)
            assert len(own) < 2 or gaps.max() - gaps.min() <= 1
            assert own[-1] >= num_steps - 2 * num_steps / len(own)


@dataclass(frozen=True)
class Numbered:
    """Each of its copies shows a number of its own, one-hot, for ever."""

    size: int = 8
    name: str = "numbered"
    action_space: Any = prx.Discrete(2)
    time_limit: int | None = None

    @property
    def observation_shape(self):
        return (self.size,)

    def reset(self, key):
        obs = jax.nn.one_hot(jax.random.randint(key, (), 0, self.size), self.size)
        return obs, obs

    def step(self, key, env_state, action):
        return prx.EnvStep(env_state, env_state, jnp.zeros(()), jnp.zeros((), bool))


def test_the_rank_of_many_environments_is_theirs():
    """16 environments × 256 steps show as many different observations as were drawn; a stride of 16 would see one of them."""
    algorithm = prx.make(
        "ppo",
        Numbered(),
        num_envs=16,
        num_steps=256,
        metrics_samples=256,
        hidden_sizes=(32,),
        num_epochs=1,
        num_minibatches=1,
    )
    state = algorithm.init(jax.random.key(0))
    shown = len(set(np.asarray(state.env.obs).argmax(-1).tolist()))
    assert shown > 4
    logged = jax.jit(algorithm.step)(state)[1]
    assert shown - 1 <= float(logged["actor_rank"]) <= shown
