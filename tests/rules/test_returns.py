"""Returns and advantages against plain NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_ext.rules import returns

T, N = 23, 5


@pytest.fixture(scope="module")
def data():
    """Random arrays in which steps terminate, truncate, do both and do neither."""
    rng = np.random.default_rng(0)
    reward, value, next_value = rng.normal(size=(3, T, N)).astype(np.float32)
    terminated, truncated = rng.random((2, T, N)) < 0.25
    assert (terminated & truncated).any()
    assert (~terminated & truncated).any()
    assert (terminated & ~truncated).any()
    return reward, value, next_value, terminated, truncated


def numpy_gae(reward, value, next_value, terminated, truncated, gamma, lambda_):
    advantage = np.zeros_like(reward)
    for n in range(reward.shape[1]):
        following = 0.0
        for t in reversed(range(reward.shape[0])):
            bootstrap = 0.0 if terminated[t, n] else next_value[t, n]
            delta = reward[t, n] + gamma * bootstrap - value[t, n]
            if terminated[t, n] or truncated[t, n]:
                following = 0.0
            following = delta + gamma * lambda_ * following
            advantage[t, n] = following
    return advantage


@pytest.mark.parametrize(("gamma", "lambda_"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0), (0.0, 0.5)])
def test_gae_is_the_loop(data, gamma, lambda_):
    got = jax.jit(returns.gae)(*map(jnp.asarray, data), gamma, lambda_)
    np.testing.assert_allclose(got, numpy_gae(*data, gamma, lambda_), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("gamma", "lambda_"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_lambda_return_is_the_loop(data, gamma, lambda_):
    reward, _, next_value, terminated, truncated = data
    expected = np.zeros_like(reward)
    for n in range(N):
        for t in reversed(range(T)):
            bootstrap = 0.0 if terminated[t, n] else next_value[t, n]
            ends = terminated[t, n] or truncated[t, n] or t == T - 1
            later = bootstrap if ends else (1 - lambda_) * bootstrap + lambda_ * expected[t + 1, n]
            expected[t, n] = reward[t, n] + gamma * later
    arrays = map(jnp.asarray, (reward, next_value, terminated, truncated))
    np.testing.assert_allclose(returns.lambda_return(*arrays, gamma, lambda_), expected, rtol=2e-5, atol=2e-5)


def late_lambda_returns(reward, done, values, gamma, lambda_, stored):
    """A backward scan over one environment whose carried value belongs to a state too late.

    It begins at the last step but one with the value after the last, and goes on with what a step has stored: that of the state
    where it "starts" (right from there on: PQN's own code, purejaxql issue 12), or where it "lands" (rejax, issues 34 and 35).

    Args:
        reward, done: ``[T]``.
        values: ``[T + 1]``, of each state and of the one after the last step.
    """
    carried = values[-1] * (1 - done[-1])
    target = np.zeros(len(reward))
    target[-1] = reward[-1] + gamma * carried
    for t in reversed(range(len(reward) - 1)):
        mixed = (1 - lambda_) * carried + lambda_ * target[t + 1]
        target[t] = reward[t] + gamma * mixed * (1 - done[t])
        carried = values[t] if stored == "starts" else values[t + 1]
    return target


@pytest.mark.parametrize("end", [None, 3])
@pytest.mark.parametrize("stored", ["starts", "lands"])
def test_a_lambda_return_one_state_late_would_show(stored, end):
    """Defects of two libraries: where they differ from the λ-return, and by how much. γ(1 − λ) times the difference of the
    values of two successive states, which earlier steps take on with (γλ)^k, up to an end of an episode."""
    rng = np.random.default_rng(3)
    steps, gamma, lambda_ = 8, 0.9, 0.65
    reward, values = rng.normal(size=steps), rng.normal(size=steps + 1)
    done = np.zeros(steps, bool) if end is None else np.arange(steps) == end
    arrays = (jnp.asarray(x, jnp.float32)[:, None] for x in (reward, values[1:]))
    ends = jnp.asarray(done)[:, None]
    right = returns.lambda_return(*arrays, ends, jnp.zeros_like(ends), gamma, lambda_)[:, 0]
    wrong = late_lambda_returns(reward, done, values, gamma, lambda_, stored)

    late = np.zeros(steps)
    late[-2] = values[-1] - values[-2]
    if stored == "lands":
        late[:-1] = values[2:] - values[1:-1]
    expected = np.zeros(steps)
    for t in reversed(range(steps - 1)):
        expected[t] = 0.0 if done[t] else gamma * ((1 - lambda_) * late[t] + lambda_ * expected[t + 1])
    np.testing.assert_allclose(wrong - right, expected, atol=1e-5)
    differs = np.abs(wrong - right) > 1e-4
    assert differs[-2]
    assert not differs[-1]
    if end is not None:
        # Up to the end of an episode the reference is right; the other is late within every episode.
        assert differs[:end].any() == (stored == "lands")
        assert not differs[end]


@pytest.mark.parametrize("gamma", [0.9, 1.0])
@pytest.mark.parametrize("n", [1, 2, 5, T + 3])
def test_n_step_return_is_the_loop(data, gamma, n):
    reward, _, next_value, terminated, truncated = data
    expected, last = np.zeros_like(reward), np.zeros(reward.shape, int)
    for start, lane in np.ndindex(T, N):
        total, discount, t = 0.0, 1.0, start
        while True:
            total, discount = total + discount * reward[t, lane], discount * gamma
            if terminated[t, lane] or truncated[t, lane] or t == T - 1 or t - start == n - 1:
                break
            t += 1
        bootstrap = 0.0 if terminated[t, lane] else next_value[t, lane]
        expected[start, lane], last[start, lane] = total + discount * bootstrap, t
    reward, next_value, terminated, truncated = map(jnp.asarray, (reward, next_value, terminated, truncated))
    got = jax.jit(returns.n_step_return)(reward, next_value, terminated, truncated, gamma, n)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(returns.n_step_last(terminated, truncated, n), last)


def test_n_step_return_is_the_lambda_return_at_either_end(data):
    reward, _, next_value, terminated, truncated = map(jnp.asarray, data)
    for n, lambda_ in ((1, 0.0), (T, 1.0)):
        np.testing.assert_allclose(
            returns.n_step_return(reward, next_value, terminated, truncated, 0.9, n),
            returns.lambda_return(reward, next_value, terminated, truncated, 0.9, lambda_),
            rtol=2e-5,
            atol=2e-5,
        )


def test_gae_plus_value_is_the_lambda_return():
    """Holds where V(s'_t) is V(s_{t+1}) inside an episode."""
    rng = np.random.default_rng(1)
    reward, value = rng.normal(size=(2, T, N)).astype(np.float32)
    terminated, truncated = rng.random((2, T, N)) < 0.2
    final = rng.normal(size=(T, N)).astype(np.float32)
    next_value = np.where(truncated, final, np.concatenate([value[1:], final[:1]]))
    reward, value, next_value, terminated, truncated = map(
        jnp.asarray, (reward, value, next_value, terminated, truncated)
    )
    advantage = returns.gae(reward, value, next_value, terminated, truncated, 0.97, 0.9)
    target = returns.lambda_return(reward, next_value, terminated, truncated, 0.97, 0.9)
    np.testing.assert_allclose(advantage + value, target, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("terminated", "truncated", "first"),
    [
        # δ_0 = 1 + 0.5 · V' − 2, δ_1 = 1 + 0.5 · 6 − 2 = 2, and γλ = 0.25 of it follows where the episode goes on.
        (False, False, 1 + 0.5 * 10 - 2 + 0.25 * 2),
        (False, True, 1 + 0.5 * 10 - 2),
        (True, False, 1 - 2),
        (True, True, 1 - 2),
    ],
)
def test_termination_truncation_and_both(terminated, truncated, first):
    """If both flags are set, termination wins."""
    got = returns.gae(
        jnp.array([1.0, 1.0]),
        jnp.array([2.0, 2.0]),
        jnp.array([10.0, 6.0]),
        jnp.array([terminated, False]),
        jnp.array([truncated, False]),
        0.5,
        0.5,
    )
    np.testing.assert_allclose(got, [first, 2.0], rtol=1e-6)


def test_nan_beyond_a_termination_stays_there():
    """The value beyond a termination has no meaning, so nothing may come of it, not even through 0 · NaN."""
    nan = jnp.array([jnp.nan, 1.0])
    ends = jnp.array([True, False])
    assert np.isfinite(returns.gae(jnp.ones(2), jnp.ones(2), nan, ends, ~ends & False, 0.9, 0.9)).all()
    assert np.isfinite(returns.lambda_return(jnp.ones(2), nan, ends, ~ends & False, 0.9, 0.9)).all()
    assert np.isfinite(returns.n_step_return(jnp.ones(2), nan, ends, ~ends & False, 0.9, 2)).all()


def test_discounted_sum_on_literals():
    got = returns.discounted_sum(jnp.array([1.0, 2.0, 4.0]), jnp.array([False, True, False]), 0.5)
    np.testing.assert_allclose(got, [2.0, 2.0, 4.0])


def test_shapes_must_agree():
    with pytest.raises(AssertionError):
        returns.gae(jnp.ones(3), jnp.ones(2), jnp.ones(3), jnp.zeros(3, bool), jnp.zeros(3, bool), 0.9, 0.9)
