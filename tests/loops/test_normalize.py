"""Running statistics against NumPy over all the data so far."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_ext.loops import normalize


def test_statistics_of_batches_are_those_of_all_data():
    rng = np.random.default_rng(0)
    batches = [rng.normal(loc, 2.0, size=(n, 3, 2)).astype(np.float32) for loc, n in ((5, 4), (-1, 10), (3, 1))]
    stats = normalize.empty((2,))
    for batch in batches:
        stats = normalize.update(stats, jnp.asarray(batch))
    seen = np.concatenate(batches).reshape(-1, 2)
    np.testing.assert_allclose(stats.mean, seen.mean(0), rtol=1e-4)
    np.testing.assert_allclose(stats.variance, seen.var(0), rtol=1e-4)
    assert stats.count == len(seen)


def test_boolean_observations_are_counted_as_numbers():
    planes = np.random.default_rng(0).random((20, 4)) < 0.3
    stats = normalize.update(normalize.empty((4,)), jnp.asarray(planes))
    np.testing.assert_allclose(stats.mean, planes.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats.variance, planes.var(0), rtol=1e-4)


def test_observations_are_scaled_and_bounded():
    stats = normalize.Statistics(jnp.array([1.0, 2.0]), jnp.array([4.0, 1e-6]), jnp.array(10.0))
    normalizer = normalize.Normalizer(obs=stats)
    got = normalize.normalize_obs(normalizer, jnp.array([[[3.0, 5.0], [-1.0, 2.0]]]))
    np.testing.assert_allclose(got, [[[1.0, 10.0], [-1.0, 0.0]]], rtol=1e-4)


def test_without_statistics_an_observation_stays_as_it_is():
    obs = jnp.array([[True, False]])
    for normalizer in ((), normalize.Normalizer(reward=normalize.empty(()))):
        got = normalize.normalize_obs(normalizer, obs)
        assert got.dtype == obs.dtype
        np.testing.assert_array_equal(got, obs)


@pytest.mark.parametrize("gamma", [0.9, 0.0])
def test_reward_scaling_is_the_loop(gamma):
    """R_t = r_t + γ (1 − done_{t−1}) R_{t−1}, over three rollouts: the sum goes on where no episode ended."""
    rng = np.random.default_rng(0)
    num_steps, num_envs = 7, 3
    normalizer = normalize.Normalizer(reward=normalize.empty(()), discounted_return=jnp.zeros(num_envs))
    running, seen = np.zeros(num_envs), []
    ended = np.zeros(num_envs, bool)
    scale = jax.jit(normalize.scale_rewards)
    for _ in range(3):
        reward = rng.normal(1.0, 3.0, size=(num_steps, num_envs)).astype(np.float32)
        done = rng.random((num_steps, num_envs)) < 0.2
        for t in range(num_steps):
            running = reward[t] + gamma * np.where(ended, 0.0, running)
            ended = done[t]
            seen.append(running)
        normalizer, scaled = scale(normalizer, jnp.asarray(reward), jnp.asarray(done), gamma)
        np.testing.assert_allclose(scaled, reward / np.std(seen), rtol=1e-4)
    np.testing.assert_allclose(normalizer.reward.mean, np.mean(seen), rtol=1e-4)
    np.testing.assert_allclose(normalizer.discounted_return, np.where(ended, 0.0, running), rtol=1e-4)
