"""Probe environments, whose values and best actions are known: each fails for its own reason.

All of them are in one environment, as kinds that an episode draws, so that one program trains on them all.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import TWO, Echo

import purejaxrl_ext as prx

GAMMA = 0.5
KINDS = (
    "constant reward",
    "reward by observation",
    "delayed reward",
    "reward by action",
    "time limit",
    "action by obs",
)
LIMIT = 4


@dataclass(frozen=True)
class Probes:
    """Observation: the kind, one-hot, and x.

    constant reward: 1, then the end. reward by observation: x = ±1, then the end. delayed reward: 0 at x = 0, then 1 at
    x = 1 and the end. reward by action: 1 for action 1, −1 for 0, then the end. time limit: 1 for ever, cut at 4 steps.
    action by obs: 1 where the action says whether x = 1, −1 where not, then the end.
    """

    name: str = "probes"
    observation_shape: tuple[int, ...] = (len(KINDS) + 1,)
    action_space: Any = TWO
    time_limit: int | None = LIMIT

    def observe(self, kind, x):
        return jnp.append(jax.nn.one_hot(kind, len(KINDS)), x)

    def reset(self, key):
        kind_key, x_key = jax.random.split(key)
        kind = jax.random.randint(kind_key, (), 0, len(KINDS))
        sign = jnp.where(jax.random.bernoulli(x_key), 1.0, -1.0)
        x = jnp.where((kind == 1) | (kind == 5), sign, 0.0)
        return (kind, x), self.observe(kind, x)

    def step(self, key, env_state, action):
        kind, x = env_state
        right = jnp.where(action == 1, 1.0, -1.0)
        reward = jnp.stack([jnp.float32(1.0), x, x, right, jnp.float32(1.0), right * x])[kind]
        terminated = (kind != 4) & ~((kind == 2) & (x == 0.0))
        x = jnp.where(kind == 2, x + 1.0, x)
        return prx.EnvStep((kind, x), self.observe(kind, x), reward, terminated)


@pytest.fixture(scope="module", params=["ppo", "pfo"])
def trained(request):
    settings = {"num_envs": 16, "num_steps": 32, "hidden_sizes": (32,), "learning_rate": 5e-3, "anneal_steps": 80_000}
    settings |= {"gamma": GAMMA, "entropy_coef": 0.0, "max_grad_norm": 1.0, "metrics_every": 0}
    settings |= {"feature_coef": 0.1} if request.param == "pfo" else {}
    algorithm = prx.make(request.param, Probes(), **settings)
    state, _ = prx.train(algorithm, jax.random.key(0), 80_000)

    def ask(kind, x):
        obs = Probes().observe(KINDS.index(kind), jnp.float32(x))[None]
        output = algorithm.network.apply(state.params, obs)
        return float(output.value[0]), np.asarray(jax.nn.softmax(output.policy.logits[0]))

    return ask


@pytest.mark.parametrize(
    ("kind", "x", "value"),
    [
        ("constant reward", 0, 1.0),
        ("reward by observation", 1, 1.0),
        ("reward by observation", -1, -1.0),
        ("delayed reward", 0, GAMMA),
        ("delayed reward", 1, 1.0),
        ("reward by action", 0, 1.0),
        # Treated as an end it would lie between 1 and 1.875; with the value of a reset observation, elsewhere too.
        ("time limit", 0, 1.0 / (1.0 - GAMMA)),
        ("action by obs", 1, 1.0),
        ("action by obs", -1, 1.0),
    ],
)
def test_value(trained, kind, x, value):
    assert abs(trained(kind, x)[0] - value) < 0.1


@pytest.mark.parametrize(
    ("kind", "x", "best"), [("reward by action", 0, 1), ("action by obs", 1, 1), ("action by obs", -1, 0)]
)
def test_best_action(trained, kind, x, best):
    assert trained(kind, x)[1][best] > 0.95


@pytest.mark.optimized
@pytest.mark.parametrize("policy", ["gaussian", "tanh_gaussian"])
def test_continuous_action_finds_its_target(policy):
    """−(a − 2.5)² within [−2, 4]: neither the centre nor a bound."""
    env = Echo(low=-2.0, high=4.0, target=2.5)
    algorithm = prx.make(
        "ppo", env, policy=policy, num_envs=16, num_steps=16, hidden_sizes=(8,), learning_rate=3e-3, gamma=0.0,
        entropy_coef=0.0, metrics_every=0, max_grad_norm=float("inf"),
    )  # fmt: skip
    state, _ = prx.train(algorithm, jax.random.key(0), 40_000)
    per_step = prx.evaluate(algorithm, state, jax.random.key(1), num_episodes=4, max_steps=10) / 10
    assert (per_step > -0.1).all(), f"a random policy has about −5: {per_step}"
