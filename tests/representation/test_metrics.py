"""Representation metrics against matrices whose answers are known, and against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import equations

import purejaxrl_ext as prx
from purejaxrl_ext.representation import metrics


def with_singular_values(sigma, num_samples, seed=0):
    """A matrix [N, F] whose singular values are ``sigma``."""
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.normal(size=(num_samples, len(sigma))))
    v, _ = np.linalg.qr(rng.normal(size=(len(sigma), len(sigma))))
    return ((u * np.asarray(sigma)) @ v.T).astype(np.float32)


@functools.lru_cache
def all_of(num_samples, width):
    def compute(features):
        part = prx.Representation(features, (features,), "tanh")
        return metrics.representation_metrics(part)

    return jax.jit(compute).lower(jax.ShapeDtypeStruct((num_samples, width), jnp.float32)).compile()


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_ranks_of_equal_singular_values(rank):
    """k equal singular values: every measure but the 99% rules' rounding says k, and they say it too."""
    sigma = np.where(np.arange(8) < rank, 5.0, 0.0)
    got = all_of(40, 8)(jnp.asarray(with_singular_values(sigma, 40)))
    for name in metrics.RANKS:
        np.testing.assert_allclose(got[name], rank, rtol=2e-4, err_msg=name)


def test_each_measure_by_its_definition():
    """Geometric singular values tell the five measures apart."""
    sigma = 10.0 * 0.5 ** np.arange(8)
    features = with_singular_values(sigma, 40)
    got = {k: float(v) for k, v in all_of(40, 8)(jnp.asarray(features)).items()}
    share2, share = np.cumsum(sigma**2) / (sigma**2).sum(), np.cumsum(sigma) / sigma.sum()
    p = sigma / sigma.sum()
    assert got["rank"] == 1 + np.argmax(share2 >= 0.99) == 4
    assert got["srank"] == 1 + np.argmax(share >= 0.99) == 7
    np.testing.assert_allclose(got["effective_rank"], np.exp(-(p * np.log(p)).sum()), rtol=1e-4)
    assert got["feature_rank"] == (sigma / np.sqrt(40) > 0.01).sum() == 8
    assert got["numerical_rank"] == np.linalg.matrix_rank(features) == 8
    np.testing.assert_allclose(got["preactivation_norm"], np.linalg.norm(features, axis=-1).mean(), rtol=1e-5)


def test_feature_rank_counts_against_the_number_of_samples():
    sigma = jnp.array([1.0, 0.11, 0.09, 0.0])
    assert metrics.feature_rank(sigma, 100) == 2


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_numerical_rank_is_numpys(rank):
    """Also for features with noise at the precision of float32, which ΦᵀΦ would turn into a tail."""
    rng = np.random.default_rng(rank)
    features = (rng.normal(size=(60, rank)) @ rng.normal(size=(rank, 8))).astype(np.float32)
    assert np.linalg.matrix_rank(features) == rank
    assert all_of(60, 8)(jnp.asarray(features))["numerical_rank"] == rank


def test_features_are_not_centred():
    """A constant feature vector has rank 1, not 0."""
    got = all_of(40, 8)(jnp.ones((40, 8)))
    assert got["rank"] == 1
    assert all_of(40, 8)(jnp.zeros((40, 8)))["rank"] == 0


def test_singular_values_are_numpys():
    features = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    expected = np.linalg.svd(features, compute_uv=False)
    np.testing.assert_allclose(metrics.singular_values(jnp.asarray(features)), expected, rtol=1e-5)


def test_ranks_mean_nothing_with_fewer_samples_than_features():
    features = jnp.ones((4, 8))
    got = metrics.representation_metrics(prx.Representation(features, (features,), "relu"))
    assert all(np.isnan(got[name]) for name in metrics.RANKS)
    assert got["dead_units"] == 0
    np.testing.assert_allclose(got["preactivation_norm"], np.sqrt(8.0), rtol=1e-6)


def test_factorisations_are_not_batched_under_vmap():
    """jaxlib 0.10.2 can hang in batched QR on few cores (pitfalls 13)."""
    jaxpr = jax.make_jaxpr(jax.vmap(metrics.singular_values))(jnp.ones((3, 10, 4))).jaxpr
    found = [e for e in equations(jaxpr) if e.primitive.name in ("geqrf", "qr", "householder_product", "svd")]
    assert found
    assert all(v.aval.ndim <= 2 for e in found for v in e.invars)


@pytest.mark.parametrize(
    ("activation", "dead"),
    [
        # Columns: always 0; 0 but once; always −1; −1 but once 1; tiny spread; constant 0.7.
        ("relu", 1),
        ("leaky_relu", 1),
        ("tanh", 4),
    ],
)
def test_dead_units(activation, dead):
    rows = 50
    columns = np.zeros((rows, 6), np.float32)
    columns[0, 1] = 0.5
    columns[:, 2] = -1.0
    columns[:, 3] = -1.0
    columns[0, 3] = 1.0
    columns[:, 4] = 1e-4 * np.arange(rows) / rows
    columns[:, 5] = 0.7
    assert metrics.dead_units(jnp.asarray(columns), activation) == dead


def test_output_metrics_take_the_last_layer_of_each_network():
    rng = np.random.default_rng(0)
    first, last, other = (jnp.asarray(rng.normal(size=(20, 4)) * s, jnp.float32) for s in (1.0, 10.0, 100.0))
    output = prx.Output(
        policy=prx.Categorical(jnp.asarray(rng.normal(size=(20, 3)), jnp.float32)),
        actor=prx.Representation(jnp.tanh(last), (first, last), "tanh"),
        critic=prx.Representation(jnp.tanh(other), (first, other), "tanh"),
    )
    got = metrics.output_metrics(output)
    for name, layer in (("actor", last), ("critic", other)):
        expected = np.linalg.norm(layer, axis=-1).mean()
        np.testing.assert_allclose(got[f"{name}_preactivation_norm"], expected, rtol=1e-5)
    p = np.asarray(jax.nn.softmax(output.policy.logits))
    np.testing.assert_allclose(got["policy_variance"], p.var(0).mean(), rtol=1e-4)
