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


def numerical_entropy(loc, scale):
    """That of tanh(N(loc, scale²)), by 20,001 trapezia over ±12 deviations, in float64."""
    z = np.linspace(-12.0, 12.0, 20_001)
    u, density = loc + scale * z, np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    slope = 2.0 * (np.log(2.0) - np.abs(u) - np.log1p(np.exp(-2.0 * np.abs(u))))
    return 0.5 * np.log(2.0 * np.pi * np.e) + np.log(scale) + (density * slope).sum()


def test_tanh_gaussian_entropy_and_its_slopes_are_those_of_numerical_integration():
    """For narrow and wide scales and locs far out; 16 quadrature nodes gave −0.004 for −0.159 at loc 1, scale 10."""
    loc, scale = (x.ravel() for x in np.meshgrid([0.0, 0.3, 1.0, -2.5, 20.0], [1e-4, 0.03, 0.5, 1.0, 3.0, 10.0, 100.0]))

    def entropy(loc, scale):
        return policies.entropy(prx.TanhGaussian(loc[None], scale[None]))

    got = jax.jit(jax.vmap(lambda *x: (entropy(*x), *jax.grad(entropy, (0, 1))(*x))))(
        jnp.asarray(loc, jnp.float32), jnp.asarray(scale, jnp.float32)
    )
    loc, scale = np.float64(np.float32(loc)), np.float64(np.float32(scale))
    step = 1e-4 * scale
    value = [numerical_entropy(m, s) for m, s in zip(loc, scale, strict=True)]
    by_loc, by_scale = (
        [
            (numerical_entropy(m + a * h, s + b * h) - numerical_entropy(m - a * h, s - b * h)) / (2 * h)
            for m, s, h in zip(loc, scale, step, strict=True)
        ]
        for a, b in ((1, 0), (0, 1))
    )
    np.testing.assert_allclose(got[0], value, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(got[1], by_loc, rtol=1e-5, atol=1e-5)
    # It rises as 1/scale where that is small.
    np.testing.assert_allclose(got[2], by_scale, rtol=1e-5, atol=1e-5)
    assert by_loc[np.argmax((loc == 1.0) & (scale == 10.0))] == pytest.approx(-0.159, abs=1e-3)


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
    prx.Box((5.0, -np.inf), (np.inf, -7.0)),
    prx.Box((-3.4e38,), (3.4e38,)),
]
NAMES = ["shifted", "two", "infinite", "one-sided", "float32's whole range"]


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
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


@pytest.mark.parametrize("space", [prx.Discrete(3), *SPACES], ids=["discrete", *NAMES])
def test_uniform_actions(space):
    a = np.asarray(policies.uniform_actions(KEY, (400, 5), space))
    assert a.shape == (400, 5, *space.shape)
    if isinstance(space, prx.Discrete):
        assert set(np.unique(a)) == {0, 1, 2}
        return
    low, high = np.array(space.low), np.array(space.high)
    assert ((a >= low) & (a <= high)).all()
    # A side without a bound is 2 from the one that has one; with neither they are ±1.
    has_low, has_high = np.abs(low) < 1e38, np.abs(high) < 1e38
    least = np.where(has_low, low, np.where(has_high, high - 2, -1))
    most = np.where(has_high, high, np.where(has_low, low + 2, 1))
    np.testing.assert_allclose(a.mean((0, 1)), (least + most) / 2, atol=0.3)
    assert ((a >= least) & (a <= most)).all()


def test_each_entry_of_an_action_is_scaled_by_its_own_bounds():
    """Also beside entries without one: (0.9, 0.9) in 100 … 200 and −∞ … ∞ is (195, 0.9)."""
    inf = np.inf
    space = prx.Box((100.0, -inf, 100.0, -inf), (200.0, inf, inf, -8.0))
    policy = prx.Gaussian(jnp.zeros((3, 4)), jnp.ones((3, 4)))
    u = jnp.broadcast_to(jnp.array([[0.9], [-1.0], [5.0]]), (3, 4))
    expected = [[195.0, 0.9, 101.9, -8.1], [100.0, -1.0, 100.0, -10.0], [200.0, 5.0, 106.0, -8.0]]
    np.testing.assert_allclose(policies.to_env(policy, u, space), expected, rtol=1e-6)
    squashed = policies.to_env(prx.TanhGaussian(policy.loc, policy.scale), jnp.arctanh(0.9 * u[:1]), space)
    np.testing.assert_allclose(squashed, [[190.5, 0.81, 101.81, -8.19]], rtol=1e-5)


def test_actions_of_a_box_bounded_on_one_side_can_be_learned():
    """What is counted from the bound at 100 moves with loc; clipped numbers would all be 100."""
    a = policies.to_env(prx.Gaussian(jnp.zeros((64, 1)), jnp.ones((64, 1))), jax.random.normal(KEY, (64, 1)),
                        prx.Box((100.0,), (np.inf,)))  # fmt: skip
    assert len(np.unique(a)) > 40


def test_variance_over_states():
    logits = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
    np.testing.assert_allclose(policies.variance(prx.Categorical(logits)), 0.04, rtol=1e-4)
    # Leading axes are all states; a policy that says the same everywhere has none.
    assert policies.variance(prx.Categorical(jnp.broadcast_to(logits[:1], (3, 4, 2)))) < 1e-12
    gaussian = prx.Gaussian(jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [1.0]]))
    np.testing.assert_allclose(policies.variance(gaussian), 0.5, rtol=1e-5)
