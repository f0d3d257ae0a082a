"""Estimated values against the book's pseudocode in NumPy, and against the exact ones."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import purejaxrl_ext as prx
from purejaxrl_ext.envs import mdps
from purejaxrl_ext.rules import returns
from purejaxrl_ext.tabular import exact, prediction

WALK = mdps.random_walk(5)
GAMMA = 0.9


@pytest.fixture(scope="module")
def episodes():
    """Forty episodes of a 5-state walk under an uneven policy, some of them cut after 12 steps."""
    policy = jnp.broadcast_to(jnp.array([0.55, 0.45]), (7, 2))
    return jax.jit(functools.partial(prediction.sample_episodes, num_episodes=40, max_steps=12))(
        jax.random.key(1), WALK, policy
    )


def lists(episodes):
    """(states visited, rewards, whether it terminated) of each episode, as the book writes them: S_0 … S_T, R_1 … R_T."""
    episodes = jax.tree.map(np.asarray, episodes)
    for i in range(len(episodes.state)):
        steps = jax.tree.map(operator.itemgetter(i), episodes)
        length = int(steps.mask.sum())
        states = [*steps.state[:length], steps.next_state[length - 1]]
        yield states, steps.reward[:length], bool(steps.terminated[length - 1])


def test_episodes_are_whole_padded_and_follow_the_mdp(episodes):
    assert bool(episodes.truncated.any()) and bool(episodes.terminated.any())
    np.testing.assert_array_equal(episodes.terminated.sum(1) + episodes.truncated.sum(1), 1)
    np.testing.assert_array_equal(episodes.state[:, 0], 3)
    inside = np.asarray(episodes.mask[:, 1:])
    for before, after in (("next_state", "state"), ("next_action", "action")):
        np.testing.assert_array_equal(
            getattr(episodes, before)[:, :-1][inside], getattr(episodes, after)[:, 1:][inside]
        )
    np.testing.assert_array_equal(episodes.reward[~episodes.mask], 0.0)
    moved = np.asarray(episodes.next_state - episodes.state)[episodes.mask]
    np.testing.assert_array_equal(moved, 2 * np.asarray(episodes.action)[episodes.mask] - 1)
    assert 0.4 < np.asarray(episodes.action)[episodes.mask].mean() < 0.5


def test_a_stream_begins_anew_after_each_end():
    stream = prediction.sample_stream(jax.random.key(0), WALK, exact.uniform(WALK), 200)
    ends = np.flatnonzero(stream.terminated)
    assert len(ends) > 5 and bool(stream.mask.all())
    np.testing.assert_array_equal(stream.state[ends[:-1] + 1], 3)
    assert set(np.asarray(stream.next_state)[ends]) == {0, 6}


def test_any_environment_can_be_sampled():
    env = prx.make_env("CartPole-v1", {"max_steps_in_episode": 12})
    sample = jax.jit(jax.vmap(lambda key: prediction.sample_env(key, env, lambda key, obs: obs[2] > 0, 20)))
    obs, _, reward, next_obs, terminated, truncated, mask = sample(jax.random.split(jax.random.key(0), 8))
    np.testing.assert_array_equal(mask.sum(1), reward.sum(1))
    np.testing.assert_array_equal(terminated.sum(1) + truncated.sum(1), 1)
    assert not np.asarray(truncated)[:, :11].any() and truncated[:, 11].all()
    np.testing.assert_array_equal(obs[:, 1:12], next_obs[:, :11])


@pytest.mark.parametrize("n", [1, 3, 100])
def test_n_step_td_is_the_box(episodes, n):
    """Sutton & Barto 2018, section 7.1, step by step; at a truncation the value of the last state follows."""
    alpha, expected = 0.3, np.zeros(7)
    for states, rewards, terminated in lists(episodes):
        end = len(rewards)
        for t in range(end + n - 1):
            tau = t - n + 1
            if tau < 0 or tau >= end:
                continue
            goal = sum(GAMMA ** (i - tau) * rewards[i] for i in range(tau, min(tau + n, end)))
            if tau + n < end or not terminated:
                last = min(tau + n, end)
                goal += GAMMA ** (last - tau) * expected[states[last]]
            expected[states[tau]] += alpha * (goal - expected[states[tau]])
    flat = jax.tree.map(jnp.ravel, episodes)
    got, measured = jax.jit(functools.partial(prediction.n_step_td, measure=jnp.sum))(
        flat, jnp.zeros(7), alpha, GAMMA, n
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert measured.shape == flat.state.shape
    np.testing.assert_allclose(measured[-1], expected.sum(), atol=1e-5)


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_td_lambda_is_the_box(episodes, lambda_):
    """Sutton & Barto 2018, section 12.2."""
    alpha, expected = 0.1, np.zeros(7)
    for states, rewards, terminated in lists(episodes):
        trace = np.zeros(7)
        for t, reward in enumerate(rewards):
            ended = terminated and t == len(rewards) - 1
            trace *= GAMMA * lambda_
            trace[states[t]] += 1.0
            error = reward + (0.0 if ended else GAMMA * expected[states[t + 1]]) - expected[states[t]]
            expected += alpha * error * trace
    got, _ = prediction.td_lambda(jax.tree.map(jnp.ravel, episodes), jnp.zeros(7), alpha, GAMMA, lambda_)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_offline_lambda_return_mixes_the_n_step_returns(episodes, lambda_):
    """G^λ as the weighted sum of n-step returns (Sutton & Barto 2018, eq. 12.3), of the values before the episode."""
    alpha, expected = 0.2, np.linspace(-1.0, 1.0, 7)
    expected[[0, 6]] = 0.0
    start = jnp.asarray(expected, jnp.float32)
    for states, rewards, terminated in lists(episodes):
        end, frozen = len(rewards), expected.copy()

        def goal(t, n, states=states, rewards=rewards, terminated=terminated, frozen=frozen, end=end):
            last = min(t + n, end)
            tail = 0.0 if terminated and last == end else frozen[states[last]]
            return sum(GAMMA ** (i - t) * rewards[i] for i in range(t, last)) + GAMMA ** (last - t) * tail

        for t in range(end):
            mixed = (1 - lambda_) * sum(lambda_ ** (n - 1) * goal(t, n) for n in range(1, end - t))
            mixed += lambda_ ** (end - t - 1) * goal(t, end - t)
            expected[states[t]] += alpha * (mixed - expected[states[t]])
    got, measured = prediction.offline_lambda_return(episodes, start, alpha, GAMMA, lambda_, jnp.sum)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert measured.shape == (40,)


def test_monte_carlo_is_the_mean_after_every_visit(episodes):
    found = [[] for _ in range(7)]
    for states, rewards, _ in lists(episodes):
        for t, state in enumerate(states[:-1]):
            found[state].append(sum(GAMMA ** (i - t) * rewards[i] for i in range(t, len(rewards))))
    expected = [np.mean(x) if x else np.nan for x in found]
    np.testing.assert_allclose(prediction.monte_carlo(episodes, 7, GAMMA), expected, atol=1e-5)


@pytest.fixture(scope="module")
def runs():
    """Forty seeds of 20,000 steps of the walk."""
    keys = jax.random.split(jax.random.key(0), 40)
    return jax.jit(jax.vmap(lambda key: prediction.sample_stream(key, WALK, exact.uniform(WALK), 20_000)))(keys)


V = exact.policy_evaluation(WALK, exact.uniform(WALK), GAMMA)


@pytest.mark.parametrize(
    ("estimator", "value"),
    [
        (prediction.n_step_td, 1),
        (prediction.n_step_td, 4),
        (prediction.n_step_td, 64),
        (prediction.td_lambda, 0.8),
    ],
)
def test_estimates_converge_to_the_linear_solve(runs, estimator, value):
    """With α = 0.01 the mean over 40 seeds has a standard error near 0.01."""
    run = jax.jit(jax.vmap(lambda data: estimator(data, jnp.zeros(7), 0.01, GAMMA, value)[0]))
    np.testing.assert_allclose(run(runs).mean(0), V, atol=0.03)


def test_q_is_v_of_the_pairs(runs):
    data = jax.vmap(prediction.pairs, (0, None))(runs, 2)
    run = jax.jit(jax.vmap(lambda data: prediction.n_step_td(data, jnp.zeros(14), 0.01, GAMMA, 2)[0]))
    np.testing.assert_allclose(run(data).mean(0).reshape(7, 2), exact.action_values(WALK, V, GAMMA), atol=0.03)


def test_monte_carlo_converges_to_the_linear_solve():
    sample = functools.partial(prediction.sample_episodes, num_episodes=20_000, max_steps=200)
    episodes = jax.jit(sample)(jax.random.key(0), WALK, exact.uniform(WALK))
    np.testing.assert_allclose(prediction.monte_carlo(episodes, 7, GAMMA)[1:-1], V[1:-1], atol=0.015)
    q = prediction.monte_carlo(prediction.pairs(episodes, 2), 14, GAMMA).reshape(7, 2)
    np.testing.assert_allclose(q[1:-1], exact.action_values(WALK, V, GAMMA)[1:-1], atol=0.02)


def a_split():
    """Sutton & Barto 2018, example 11.2: A goes to B or C alike, B ends with 1, C with 0; each transition as often as it is."""
    eye = jnp.eye(4)
    a, b, c, end = 0, 1, 2, 3
    return prediction.Experience(
        obs=eye[jnp.array([a, a, b, c])],
        reward=jnp.array([0.0, 0.0, 1.0, 0.0]),
        next_obs=eye[jnp.array([b, c, end, end])],
        terminated=jnp.array([False, False, True, True]),
        truncated=jnp.zeros(4, bool),
    )


def table(w, obs):
    return obs @ w


TD0 = functools.partial(returns.lambda_return, gamma=1.0, lambda_=0.0)


@pytest.mark.parametrize(
    ("gradient", "fixed_point"),
    [(prediction.semi_gradient, [0.5, 1.0, 0.0]), (prediction.residual_gradient, [0.5, 0.75, 0.25])],
)
def test_where_semi_and_residual_gradient_go(gradient, fixed_point):
    """The residual gradient pulls B and C to A: its fixed point is not v (example 11.2 gives both)."""
    data = a_split()

    def descend(w, _):
        return w - gradient(table, w, data, TD0), None

    w, _ = jax.lax.scan(descend, jnp.zeros(4), length=400)
    np.testing.assert_allclose(w[:3], fixed_point, atol=1e-4)


def one_hot(trajectory, size):
    return prediction.Experience(
        obs=jax.nn.one_hot(trajectory.state, size),
        reward=trajectory.reward,
        next_obs=jax.nn.one_hot(trajectory.next_state, size),
        terminated=trajectory.terminated,
        truncated=trajectory.truncated,
    )


@pytest.mark.thorough
def test_a_table_by_semi_gradient_comes_to_the_linear_solve_and_by_residual_gradient_does_not(runs):
    """On one long stream; the walk is stochastic, so squares of TD errors hold the successor's variance."""
    data = one_hot(jax.tree.map(lambda x: x[:10].ravel(), runs), 7)
    target = functools.partial(returns.lambda_return, gamma=GAMMA, lambda_=0.0)

    @functools.partial(jax.jit, static_argnums=0)
    def solve(gradient):
        return jax.lax.scan(lambda w, _: (w - gradient(table, w, data, target), None), jnp.zeros(7), length=300)[0]

    np.testing.assert_allclose(solve(prediction.semi_gradient)[1:-1], V[1:-1], atol=0.02)
    assert np.abs(solve(prediction.residual_gradient) - V)[1:-1].max() > 0.1


class Small(nn.Module):
    """Two layers."""

    @nn.compact
    def __call__(self, obs):
        return nn.Dense(1)(nn.tanh(nn.Dense(16)(obs)))[..., 0]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "target",
    [
        functools.partial(returns.n_step_return, gamma=GAMMA, n=3),
        functools.partial(returns.lambda_return, gamma=GAMMA, lambda_=0.9),
    ],
)
@pytest.mark.parametrize("of", ["v", "q"])
def test_a_network_comes_to_the_linear_solve(runs, target, of):
    stream = jax.tree.map(lambda x: x[:2].ravel(), runs)
    size = 7 if of == "v" else 14
    data = one_hot(stream if of == "v" else prediction.pairs(stream, 2), size)
    network, adam = Small(), optax.adam(0.01)
    params = network.init(jax.random.key(0), data.obs)

    def update(carry, _):
        params, opt_state = carry
        grads = prediction.semi_gradient(network.apply, params, data, target)
        updates, opt_state = adam.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(update, carry, length=250))((params, adam.init(params)))
    got = network.apply(params, jnp.eye(size)).reshape(7, -1)[1:-1]
    expected = (V[:, None] if of == "v" else exact.action_values(WALK, V, GAMMA))[1:-1]
    np.testing.assert_allclose(got, expected, atol=0.06)
