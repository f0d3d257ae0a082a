"""What dense layers may be besides plain ones, and activations that change the shape: each against its formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_ext import networks

KEY = jax.random.key(0)
OBS = jax.random.normal(KEY, (3, 4))


def made(**settings):
    torso = networks.Torso(**{"hidden_sizes": (6, 6), "activation": "relu", "initializer": "fan_in"} | settings)
    params = torso.init(KEY, OBS)
    return jax.tree.map(np.asarray, params["params"]), torso.apply(params, OBS)


def linear(x, p):
    return x @ p["kernel"] + p.get("bias", 0.0)


def relu(x):
    return np.maximum(x, 0.0)


def normed(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def test_crelu_has_both_signs_of_half_as_many_units():
    p, got = made(activation="crelu")
    first = linear(np.asarray(OBS), p["Dense_0"])
    assert first.shape == (3, 3)
    second = linear(np.concatenate([relu(first), relu(-first)], -1), p["Dense_1"])
    np.testing.assert_allclose(got.preactivations[1], second, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.features, np.concatenate([relu(second), relu(-second)], -1), rtol=1e-5, atol=1e-6)


def test_hadamard_is_a_product_of_two():
    p, got = made(activation="hadamard")
    x = np.asarray(OBS)
    for i in range(2):
        x = np.tanh(linear(x, p[f"Dense_{i}"])) * np.tanh(linear(x, p[f"GateDense_{i}"]))
    np.testing.assert_allclose(got.features, x, rtol=1e-5, atol=1e-6)


def test_multi_skip_shows_every_layer_what_the_first_was_given():
    p, got = made(block="multi_skip")
    first = relu(linear(np.asarray(OBS), p["Dense_0"]))
    second = linear(first, p["Dense_1"]) + linear(np.asarray(OBS), p["Skip_1"])
    np.testing.assert_allclose(got.features, relu(second), rtol=1e-5, atol=1e-6)
    assert set(p["Skip_1"]) == {"kernel"}


def test_simba_adds_normalised_blocks_to_a_stream():
    p, got = made(block="simba")
    x = linear(np.asarray(OBS), p["Dense_0"])
    for i in range(2):
        b = p[f"SimbaBlock_{i}"]
        inner = linear(normed(x, b["LayerNorm_0"]), b["Dense_0"])
        assert inner.shape == (3, 24)
        np.testing.assert_allclose(got.preactivations[i], inner, rtol=1e-4, atol=1e-5)
        x = x + linear(relu(inner), b["Dense_1"])
    np.testing.assert_allclose(got.preactivations[-1], x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.features, normed(x, p["LayerNorm_0"]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "crelu", "hidden_sizes": (5,)}, r"hidden_sizes=\(5,\).*even"),
        ({"activation": "hadamard", "layer_norm": True}, "layer_norm=True.*hadamard"),
        ({"block": "multi_skip", "hidden_sizes": (6,)}, r"hidden_sizes=\(6,\).*two or more"),
        ({"block": "multi_skip", "activation": "hadamard"}, "block='multi_skip'.*plain"),
        ({"block": "simba", "layer_norm": True}, "block='simba'.*plain"),
        ({"block": "simba", "hidden_sizes": (6, 5)}, r"hidden_sizes=\(6, 5\).*one width"),
        ({"block": "residual"}, "block='residual'.*'multi_skip'"),
    ],
)
def test_what_does_not_go_together_is_said(settings, message):
    with pytest.raises(ValueError, match=message):
        networks.Torso(**{"hidden_sizes": (6, 6), **settings})


def test_half_of_a_crelus_features_cannot_be_silent():
    x = jnp.array([[-1.0, 2.0]])
    np.testing.assert_array_equal(networks.ACTIVATIONS["crelu"](x), [[0.0, 2.0, 1.0, 0.0]])
