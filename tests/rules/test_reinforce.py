"""REINFORCE: its returns on literal arrays, and its gradient estimate against the exact one of a small MDP."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import TWO, Clock, tiny

import purejaxrl_ext as prx
from purejaxrl_ext import loops
from purejaxrl_ext.rules import reinforce, returns

KEY = jax.random.key(0)
HPARAMS = reinforce.REINFORCEHparams()
GAMMA = 0.8


# --- targets and loss ------------------------------------------------------------------------------------------------


def rollout_of(reward, terminated, truncated, value, beyond):
    def column(x, kind):
        return jnp.asarray(x, kind)[:, None]

    steps = len(reward)
    return prx.Rollout(
        obs=jnp.zeros((steps, 1, 1)),
        action=jnp.zeros((steps, 1), jnp.int32),
        reward=column(reward, jnp.float32),
        terminated=column(terminated, bool),
        truncated=column(truncated, bool),
        output=prx.Output(policy=prx.Categorical(jnp.zeros((steps, 1, 2))), value=column(value, jnp.float32)),
        next_output=prx.Output(value=column(beyond, jnp.float32)),
        next_online=(),
        discount=jnp.full((steps, 1), 0.5),
    )


ENDS = {
    "terminated": ([0, 0, 1, 0], [0, 0, 0, 0], 4.0),
    "truncated": ([0, 0, 0, 0], [0, 0, 1, 0], 4.0 + 0.5 * 6.0),
}


@pytest.mark.parametrize(("terminated", "truncated", "last"), ENDS.values(), ids=ENDS)
def test_targets_on_literals(terminated, truncated, last):
    """Rewards 1, 2, 4 of the first episode, then 100 of the next; γ = 0.5; V(final) = 6 counts at a truncation alone."""
    rollout = rollout_of([1, 2, 4, 100], terminated, truncated, [1, 1, 1, 1], [9, 9, 6, 9])
    hparams = dataclasses.replace(HPARAMS, gamma=0.5)
    full = np.array([1 + 0.5 * (2 + 0.5 * last), 2 + 0.5 * last, last])
    expected = {
        (True, False): full - 1,
        (True, True): (full - 1) * [1, 0.5, 0.25],
        (False, False): np.repeat(full[0] - 1, 3),
    }
    for (to_go, discounted), advantage in expected.items():
        batch = reinforce.targets(rollout, hparams, reward_to_go=to_go, discounted_visits=discounted)
        np.testing.assert_allclose(batch.target[:3, 0], full, rtol=1e-6)
        np.testing.assert_allclose(batch.advantage[:3, 0], advantage, rtol=1e-6)
        np.testing.assert_allclose(batch.weight[:, 0], [4, 4, 4, 0])
    alone = reinforce.targets(rollout, hparams, baseline=False)
    np.testing.assert_allclose(alone.advantage[:3, 0], [2.0 + 1.0, 2.0 + 2.0, 4.0], rtol=1e-6)


def test_first_episode():
    ends = jnp.array([[0, 1, 0], [1, 0, 0], [1, 1, 0]], bool)
    np.testing.assert_array_equal(returns.first_episode(ends), [[1, 1, 1], [1, 0, 1], [0, 0, 1]])


def test_loss_against_numpy():
    rng = np.random.default_rng(0)
    logits, value = rng.normal(size=(6, 2)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    target, advantage = rng.normal(size=(2, 6)).astype(np.float32)
    weight = np.array([3, 3, 0, 3, 0, 3], np.float32)
    action = np.array([0, 1, 0, 1, 1, 0])
    batch = reinforce.REINFORCEBatch(jnp.zeros((6, 1)), *map(jnp.asarray, (action, target, advantage, weight)))
    output = prx.Output(policy=prx.Categorical(jnp.asarray(logits)), value=jnp.asarray(value))
    hparams = dataclasses.replace(HPARAMS, entropy_coef=0.3, value_coef=0.7)

    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    policy_loss = -(weight * advantage * log_p[np.arange(6), action]).mean()
    value_loss = 0.5 * (weight * (value - target) ** 2).mean()
    entropy = -(np.exp(log_p) * log_p).sum(-1)
    total, metrics = reinforce.loss(output, batch, hparams)
    np.testing.assert_allclose(total, policy_loss + 0.7 * value_loss - 0.3 * (weight * entropy).mean(), rtol=1e-5)
    got = [metrics[name] for name in ("policy_loss", "value_loss", "entropy")]
    np.testing.assert_allclose(got, [policy_loss, value_loss, entropy[weight > 0].mean()], rtol=1e-5)
    total, metrics = reinforce.loss(output, batch, hparams, baseline=False)
    np.testing.assert_allclose(total, policy_loss - 0.3 * (weight * entropy).mean(), rtol=1e-5)
    assert "value_loss" not in metrics


# --- the gradient ----------------------------------------------------------------------------------------------------

# P[s, a, s'], what is missing to 1 terminates; r[s, a]. All rewards are positive, so that a baseline has something to take.
MOVES = np.array([[[0.6, 0.3], [0.1, 0.7]], [[0.2, 0.5], [0.5, 0.1]]])
REWARDS = np.array([[1.0, 3.0], [2.0, 0.5]])
FIRST = np.array([0.7, 0.3])
THETA = np.array([[0.4, -0.3], [-0.2, 0.5]])
LIMIT = 12


@dataclass(frozen=True)
class MDP:
    """Two states, shown one-hot."""

    name: str = "mdp"
    observation_shape: tuple[int, ...] = (2,)
    action_space: Any = TWO
    time_limit: int | None = LIMIT

    def reset(self, key):
        state = jax.random.choice(key, 2, p=jnp.asarray(FIRST, jnp.float32))
        return state, jax.nn.one_hot(state, 2)

    def step(self, key, env_state, action):
        going = jnp.asarray(MOVES, jnp.float32)[env_state, action]
        drawn = jax.random.choice(key, 3, p=jnp.append(going, 1.0 - going.sum()))
        state = jnp.minimum(drawn, 1)
        reward = jnp.asarray(REWARDS, jnp.float32)[env_state, action]
        return prx.EnvStep(state, jax.nn.one_hot(state, 2), reward, drawn == 2)


class Table:
    """Softmax of a table, and a table of values."""

    def init(self, key, obs):
        return {"params": {"theta": jnp.asarray(THETA, jnp.float32), "value": exact_values()}}

    def apply(self, params, obs):
        table = params["params"]
        return prx.Output(policy=prx.Categorical(obs @ table["theta"]), value=obs @ table["value"])


def policy_of(theta):
    """π [s, a], P_π [s, s'] and r_π [s]."""
    pi = jax.nn.softmax(theta)
    return pi, jnp.einsum("sa,sax->sx", pi, jnp.asarray(MOVES, jnp.float32)), (pi * REWARDS).sum(-1)


def exact_values():
    """V = (I − γ P_π)⁻¹ r_π at THETA, without the time limit."""
    _, moves, reward = policy_of(jnp.asarray(THETA, jnp.float32))
    return jnp.linalg.solve(jnp.eye(2) - GAMMA * moves, reward)


def exact_gradient(gamma):
    """Of J(θ) = Σ_{t < L} γ^t d₀ P_π^t r_π, the discounted return up to the time limit."""

    def objective(theta):
        _, moves, reward = policy_of(theta)
        total, visits = 0.0, jnp.asarray(FIRST, jnp.float32)
        for t in range(LIMIT):
            total, visits = total + gamma**t * visits @ reward, visits @ moves
        return total

    return np.asarray(jax.grad(objective)(jnp.asarray(THETA, jnp.float32)))


def shifted(rollout, hparams, **settings):
    """The defect: the return of the step after."""
    batch = reinforce.targets(rollout, hparams, **settings)
    return batch.replace(advantage=jnp.concatenate([batch.advantage[1:], jnp.zeros_like(batch.advantage[:1])]))


def estimates(gamma, targets=reinforce.targets, **settings):
    """2,000 estimates of ∇J, of 16 episodes each: the gradients that the loop's learning takes at THETA, ``[2000, 2, 2]``."""
    config = prx.ALGORITHMS["reinforce"].config(
        num_envs=16, num_steps=LIMIT, metrics_every=0, time_limit_terminates=True, **settings
    )
    rule = reinforce.rule(config, TWO)
    options = {name: settings[name] for name in ("baseline", "reward_to_go", "discounted_visits") if name in settings}
    rule = rule._replace(targets=partial(targets, **options))
    loop = loops.OnPolicy(rule, MDP(), Table(), config)
    hparams = dataclasses.replace(HPARAMS, gamma=gamma)

    def one(key):
        # Adam's first moment after one step from zero is (1 − β₁) times the gradient.
        state, _ = loop.step(loop.init(key, hparams), hparams)
        return -state.opt_state[0].mu["params"]["theta"] / (1.0 - hparams.adam_b1)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, 2_000)))


def z_scores(samples, exact):
    return (samples.mean(0) - exact) / (samples.std(0) / np.sqrt(len(samples)))


EXACT = {
    "to go, baseline": (GAMMA, {"discounted_visits": True}),
    "to go, none": (GAMMA, {"discounted_visits": True, "baseline": False}),
    "whole, baseline": (GAMMA, {"reward_to_go": False}),
    "whole, none": (GAMMA, {"reward_to_go": False, "baseline": False}),
    "undiscounted": (1.0, {}),
}


@pytest.fixture(scope="module")
def sampled():
    return {name: estimates(gamma, **settings) for name, (gamma, settings) in EXACT.items()}


@pytest.mark.parametrize("name", EXACT)
def test_the_estimate_is_the_exact_gradient(sampled, name):
    exact = exact_gradient(EXACT[name][0])
    assert np.abs(exact).min() > 0.05
    assert np.abs(z_scores(sampled[name], exact)).max() < 4.0


def test_a_return_shifted_by_one_step_is_not():
    """32,000 episodes tell it apart, so the test above would."""
    gamma, settings = EXACT["to go, none"]
    assert np.abs(z_scores(estimates(gamma, shifted, **settings), exact_gradient(gamma))).max() > 20.0


def test_baseline_and_reward_to_go_lower_the_variance(sampled):
    """Each by a good part, in the sum over parameters."""
    spread = {name: samples.var(0).sum() for name, samples in sampled.items()}
    assert spread["to go, baseline"] < 0.7 * spread["to go, none"]
    assert spread["whole, baseline"] < 0.7 * spread["whole, none"]
    assert spread["to go, none"] < 0.9 * spread["whole, none"]


# --- in its loop -----------------------------------------------------------------------------------------------------


def test_every_rollout_begins_anew_and_counts_first_episodes_alone():
    """Episodes of two kinds, two and five steps: those that end in a rollout are mostly short, first ones are not."""
    env = Clock(time_limit=5, terminate_at=2)
    algorithm = prx.make("reinforce", env, num_envs=400, metrics_every=0, hidden_sizes=(4,))
    assert algorithm.config.num_steps == 5
    state = algorithm.init(KEY)
    for _ in range(2):
        state, logged = jax.jit(algorithm.step)(state)
        assert logged["num_episodes"] == 400
        np.testing.assert_allclose(logged["episode_length"], 3.5, atol=0.3)
        np.testing.assert_allclose(logged["episode_return"], (3 + 15) / 2, atol=1.2)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="time limit"):
        tiny("reinforce", Clock())
    for settings, words in (
        ({"num_steps": 100}, "num_steps=100.*500"),
        ({"discounted_visits": True, "reward_to_go": False}, "discounted_visits=True.*reward_to_go"),
        ({"value_coef": 1.0, "baseline": False}, "value_coef=1.0.*baseline"),
        ({"normalize_rewards": True}, "normalize_rewards"),
    ):
        with pytest.raises(ValueError, match=words):
            prx.make("reinforce", "CartPole-v1", **settings)
