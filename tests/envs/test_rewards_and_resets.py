"""What a reward is made of, and how many initial states are drawn."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Clock, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.envs.vector import default_pool_size

KEY = jax.random.key(0)


@dataclass(frozen=True)
class Rewards:
    """Reward 1 for ever, as a number of some kind."""

    kind: str = "int32"
    name: str = "rewards"
    observation_shape: tuple[int, ...] = (1,)
    action_space: Any = prx.Discrete(2)
    time_limit: int | None = None

    def reset(self, key):
        return jnp.zeros(()), jnp.ones(1)

    def step(self, key, env_state, action):
        return prx.EnvStep(env_state, jnp.ones(1), jnp.ones((), self.kind), jnp.zeros((), bool))


@pytest.mark.parametrize("name", ["expected_sarsa", "ppo", "dqn"])
def test_integer_rewards_leave_gamma_as_it_is(name):
    """γ of the rewards' kind would be 0, and every value the reward."""

    def updates(kind):
        algorithm = tiny(name, Rewards(kind), gamma=0.9, metrics_every=0, learning_rate=0.05)
        return prx.train(algorithm, KEY, 20 * algorithm.steps_per_update)[1]["value"]

    np.testing.assert_array_equal(updates("int32"), updates("float32"))
    assert updates("bool")[-1] > 1.2


def test_evaluation_counts_integer_rewards():
    algorithm = tiny("ppo", Rewards("int32"))
    assert prx.evaluate(algorithm, algorithm.init(KEY), KEY, 2, max_steps=7).tolist() == [7.0, 7.0]


def test_initial_states_for_all_episodes_that_a_time_limit_ends():
    """One-step episodes, 16 × 32 steps: 32 initial states for 512 resets would show each 16 times."""
    one_step = prx.make("ppo", Clock(time_limit=1), num_envs=16, num_steps=32)
    assert one_step.config.pool_size == 512
    assert default_pool_size(Clock(), 16, 512) == 128
    assert default_pool_size(Clock(time_limit=500), 4, 512) == 128
    assert default_pool_size(Clock(time_limit=5), 4, 512) == 128
    given = prx.make("ppo", Clock(time_limit=1), num_envs=16, num_steps=32, reset_pool_size=7)
    assert given.config.pool_size == 7
    rows = tiny("dqn", Clock(time_limit=1), prefill_steps=40).init(KEY).replay.transitions.obs[:40, 0]
    assert len(set(np.asarray(rows).tolist())) == 40
