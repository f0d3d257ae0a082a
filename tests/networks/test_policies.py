"""Policies: densities and entropies against Monte Carlo, actions within bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_ext as prx
from purejaxrl_ext.networks import policies

KEY = jax.random.key(0)


def test_categorical_frequencies_are_the_probabilities():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    noise = policies.noise(KEY, (100_000,), prx.Discrete(4))
    actions = policies.sample(prx.Categorical(jnp.broadcast_to(logits, (100_000, 4))), noise)
    assert actions.dtype == jnp.int32
    frequencies = np.bincount(np.asarray(actions), minlength=4) / 100_000
    np.testing.assert_allclose(frequencies, np.exp(logits), atol=0.006)


def test_no_noise_is_the_mode():
    assert policies.sample(prx.Categorical(jnp.array([[0.0, 2.0, 1.0]])), None)[0] == 1
    loc = jnp.array([[0.3, -4.0]])
    for kind in (prx.Gaussian, prx.TanhGaussian):
        np.testing.assert_array_equal(policies.sample(kind(loc, jnp.ones((1, 2))), None), loc)


def test_categorical_numbers():
    p = np.array([[0.7, 0.2, 0.1]], np.float32)
    q = np.array([[0.1, 0.4, 0.5]], np.float32)
    old, new = prx.Categorical(jnp.log(p)), prx.Categorical(jnp.log(q) + 3.0)
    np.testing.assert_allclose(policies.log_prob(new, jnp.array([2])), np.log([0.5]), rtol=1e-5)
    np.testing.assert_allclose(policies.entropy(old), -(p * np.log(p)).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(policies.kl_divergence(old, new), (p * np.log(p / q)).sum(-1), rtol=1e-4)


def test_gaussian_numbers():
    loc, scale = np.array([[0.5, -1.0]], np.float32), np.array([[0.4, 2.0]], np.float32)
    policy = prx.Gaussian(jnp.asarray(loc), jnp.asarray(scale))
    x = np.array([[0.1, 1.5]], np.float32)
    expected = (-0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(policies.log_prob(policy, jnp.asarray(x)), expected, rtol=1e-5)
    entropy = (0.5 * np.log(2 * np.pi * np.e) + np.log(scale)).sum(-1)
    np.testing.assert_allclose(policies.entropy(policy), entropy, rtol=1e-5)


def test_gaussian_samples_have_the_parameters_moments():
    noise = policies.noise(KEY, (100_000,), prx.Box((-1.0, -1.0), (1.0, 1.0)))
    loc, scale = jnp.array([[0.5, -1.0]]), jnp.array([[0.4, 2.0]])
    shape = (100_000, 2)
    x = policies.sample(prx.Gaussian(jnp.broadcast_to(loc, shape), jnp.broadcast_to(scale, shape)), noise)
    np.testing.assert_allclose(x.mean(0), loc[0], atol=0.03)
    np.testing.assert_allclose(x.std(0), scale[0], atol=0.03)


def test_tanh_gaussian_density_integrates_to_one():
    """The log-probability is of tanh(u): its integral over (−1, 1) is 1."""
    a = np.linspace(-1, 1, 200_001)[1:-1]
    u = jnp.asarray(np.arctanh(a)[:, None], jnp.float32)
    policy = prx.TanhGaussian(jnp.full(u.shape, 0.4), jnp.full(u.shape, 0.7))
    density = np.exp(np.asarray(policies.log_prob(policy, u), np.float64))
    np.testing.assert_allclose(density.sum() * (a[1] - a[0]), 1.0, atol=2e-3)


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (1.0, 0.3), (-2.0, 1.5)])
def test_tanh_gaussian_entropy_against_monte_carlo(loc, scale):
    policy = prx.TanhGaussian(jnp.full((1, 2), loc), jnp.full((1, 2), scale))
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (200_000, 2)), policy)
    u = policies.sample(many, jax.random.normal(KEY, (200_000, 2)))
    estimate = -np.asarray(policies.log_prob(many, u)).mean()
    np.testing.assert_allclose(policies.entropy(policy), estimate, atol=0.03)


def test_tanh_gaussian_entropy_has_a_gradient():
    """Widening a wide policy piles its actions up at the bounds: the entropy falls, which a Gaussian's does not."""

    def entropy(scale, kind):
        return policies.entropy(kind(jnp.zeros((1, 1)), jnp.full((1, 1), scale)))[0]

    assert jax.grad(entropy)(3.0, prx.TanhGaussian) < 0 < jax.grad(entropy)(3.0, prx.Gaussian)
    assert jax.grad(entropy)(0.1, prx.TanhGaussian) > 0


def test_tanh_log_prob_is_finite_far_out():
    policy = prx.TanhGaussian(jnp.zeros((1, 1)), jnp.ones((1, 1)))
    assert np.isfinite(policies.log_prob(policy, jnp.array([[40.0]])))
    assert np.isfinite(policies.log_prob(policy, jnp.array([[-40.0]])))


def test_kl_of_tanh_gaussians_is_that_of_their_bases():
    a, b = (jnp.full((1, 2), 0.3), jnp.full((1, 2), 0.5)), (jnp.full((1, 2), -0.2), jnp.full((1, 2), 0.9))
    expected = 2 * (np.log(0.9 / 0.5) + (0.25 + 0.25) / (2 * 0.81) - 0.5)
    for kind in (prx.Gaussian, prx.TanhGaussian):
        np.testing.assert_allclose(policies.kl_divergence(kind(*a), kind(*b)), [expected], rtol=1e-4)


SPACES = [
    prx.Box((-2.0,), (4.0,)),
    prx.Box((-1.0, 0.0), (1.0, 10.0)),
    prx.Box((-np.inf, -0.5), (np.inf, 0.5)),
]


@pytest.mark.parametrize("space", SPACES, ids=["shifted", "two", "infinite"])
@pytest.mark.parametrize("kind", [prx.Gaussian, prx.TanhGaussian])
@pytest.mark.parametrize("lead", [(), (50,), (10, 5)])
def test_environment_actions_are_within_bounds(space, kind, lead):
    u = 3.0 * jax.random.normal(KEY, (*lead, *space.shape))
    a = np.asarray(policies.to_env(kind(u, jnp.ones_like(u)), u, space))
    assert a.shape == u.shape
    assert ((a >= np.array(space.low)) & (a <= np.array(space.high))).all()


def test_unit_actions_span_the_bounds():
    space = prx.Box((-2.0,), (4.0,))
    policy = prx.Gaussian(jnp.zeros((4, 1)), jnp.ones((4, 1)))
    got = policies.to_env(policy, jnp.array([[-1.0], [0.0], [1.0], [7.0]]), space)
    np.testing.assert_allclose(got[:, 0], [-2.0, 1.0, 4.0, 4.0])
    squashed = policies.to_env(prx.TanhGaussian(policy.loc, policy.scale), jnp.array([[np.arctanh(0.5)]]), space)
    np.testing.assert_allclose(squashed, [[-2.0 + 0.75 * 6.0]], rtol=1e-6)


@pytest.mark.parametrize("space", [prx.Discrete(3), *SPACES], ids=["discrete", "shifted", "two", "infinite"])
def test_uniform_actions(space):
    a = np.asarray(policies.uniform_actions(KEY, (400, 5), space))
    assert a.shape == (400, 5, *space.shape)
    if isinstance(space, prx.Discrete):
        assert set(np.unique(a)) == {0, 1, 2}
        return
    low, high = np.array(space.low), np.array(space.high)
    assert ((a >= low) & (a <= high)).all()
    finite = np.isfinite(low)
    centre = np.where(finite, (np.where(finite, low, 0) + np.where(finite, high, 0)) / 2, 0.0)
    np.testing.assert_allclose(a.mean((0, 1)), centre, atol=0.3)


def test_variance_over_states():
    logits = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
    np.testing.assert_allclose(policies.variance(prx.Categorical(logits)), 0.04, rtol=1e-4)
    # Leading axes are all states; a policy that says the same everywhere has none.
    assert policies.variance(prx.Categorical(jnp.broadcast_to(logits[:1], (3, 4, 2)))) < 1e-12
    gaussian = prx.Gaussian(jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [1.0]]))
    np.testing.assert_allclose(policies.variance(gaussian), 0.5, rtol=1e-5)
