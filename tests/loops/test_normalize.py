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


@pytest.mark.parametrize("value", [0.0, 1e-3, 7.0, 1e6, -3e7])
def test_a_constant_entry_is_nothing(value):
    """0 whatever its size, where rounding would make ±1 of a large one; an entry beside it is scaled as ever."""
    rng = np.random.default_rng(0)
    x = np.stack([np.full(3000, value), rng.normal(size=3000)], axis=-1).astype(np.float32)
    stats = normalize.empty((2,))
    for part in np.split(x, [7, 100, 101, 2000]):
        stats = normalize.update(stats, jnp.asarray(part))
    got = normalize.normalize_obs(normalize.Normalizer(obs=stats), jnp.asarray(x))
    np.testing.assert_array_equal(got[:, 0], 0.0)
    np.testing.assert_allclose(got[:, 1].std(), 1.0, rtol=1e-3)


def test_what_is_appended_is_left_alone():
    """Entries after those that there are statistics of, even beyond the clipping."""
    stats = normalize.Statistics(jnp.array([1.0]), jnp.array([4.0]), jnp.array(10.0))
    got = normalize.normalize_obs(normalize.Normalizer(obs=stats), jnp.array([[3.0, -50.0]]))
    np.testing.assert_allclose(got, [[1.0, -50.0]], rtol=1e-5)
    after = normalize.take_in(normalize.Normalizer(obs=normalize.empty((1,))), jnp.array([[3.0, -50.0]]))
    np.testing.assert_allclose(after.obs.mean, [3.0])


def test_normalised_rewards_can_be_clipped():
    """After the scaling; the statistics are of what came."""
    normalizer = normalize.Normalizer(reward=normalize.empty(()), discounted_return=jnp.zeros(1))
    reward = jnp.array([[1.0], [-1.0], [100.0], [-100.0]])
    done = jnp.ones((4, 1), bool)
    free, scaled = normalize.scale_rewards(normalizer, reward, done, 0.9)
    clipped, bounded = normalize.scale_rewards(normalizer, reward, done, 0.9, clip=0.5)
    assert np.abs(scaled).max() > 0.5
    np.testing.assert_array_equal(bounded, np.clip(scaled, -0.5, 0.5))
    np.testing.assert_array_equal(clipped.reward.variance, free.reward.variance)


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
