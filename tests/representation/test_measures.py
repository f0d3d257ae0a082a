"""Measures of an update against cases made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext.networks.structure import Layer
from purejaxrl_ext.representation import churn, collapse, measures

# h = relu(x W), policy = softmax(h V), value = h U: one representation for both.
PARAMS = {
    "params": {
        "shared_torso": {"kernel": jnp.array([[1.0, -1.0, 0.0], [0.0, -1.0, 0.1]])},
        "actor_head": {"kernel": jnp.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])},
        "critic_head": {"kernel": jnp.array([[1.0], [2.0], [3.0]])},
    }
}
OBS = jnp.array([[1.0, 2.0], [3.0, 1.0]])
LAYER = Layer("shared", 0, ("params", "shared_torso", "kernel"), (), (("params", "actor_head", "kernel"),), "relu")


def evaluate(params, samples):
    p = params["params"]
    pre = OBS @ p["shared_torso"]["kernel"]
    h = jax.nn.relu(pre)
    part = prx.Representation(h, (pre,), "relu")
    policy, value = prx.Categorical(h @ p["actor_head"]["kernel"]), (h @ p["critic_head"]["kernel"])[:, 0]
    return prx.Output(policy=policy, value=value, actor=part, critic=part), None


NET = prx.Net(None, evaluate, None, lambda params: (LAYER,), None)


def changed(**more):
    return {"params": {**PARAMS["params"], **{k: {"kernel": v} for k, v in more.items()}}}


def test_units_that_hardly_speak_and_units_that_are_always_on():
    """They say 1 and 3, nothing, and 0.2 and 0.1: scores 2.79, 0 and 0.209."""
    got = measures.units(NET, None, PARAMS, None, None)
    np.testing.assert_allclose(got["shared_dormant_025"], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(got["shared_dormant_100"], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(got["shared_linearised"], 2 / 3, rtol=1e-6)
    length = np.linalg.norm([[1.0, 0.2], [3.0, 0.1]], axis=-1).mean()
    np.testing.assert_allclose(got["actor_feature_norm"], length, rtol=1e-6)
    faint = changed(shared_torso=jnp.array([[1.0, -1.0, 0.0], [0.0, -1.0, 0.03]]))
    got = measures.units(NET, None, faint, None, None)
    np.testing.assert_allclose((got["shared_dormant_025"], got["shared_dormant_100"]), (1 / 3, 2 / 3), rtol=1e-6)


@pytest.mark.parametrize(
    ("activation", "expected"), [("relu", [1, 0, 0]), ("leaky_relu", [1, 1, 0]), ("tanh", [np.nan] * 3)]
)
def test_a_unit_is_linear_where_it_stays_on_one_side(activation, expected):
    said = jnp.array([[1.0, -0.1, 1.0], [2.0, -0.2, -0.1]])[:, None]
    np.testing.assert_array_equal(measures.linearised(said, activation), expected)


def test_weights_far_from_orthogonal_and_their_largest_singular_value():
    got = measures.weights(NET, None, PARAMS, None, None)
    w = np.asarray(PARAMS["params"]["shared_torso"]["kernel"])
    np.testing.assert_allclose(got["shared_0_orthogonality"], np.linalg.norm(w.T @ w - np.eye(3)), rtol=1e-5)
    np.testing.assert_allclose(got["shared_0_spectral_norm"], np.linalg.norm(w, 2), rtol=1e-4)
    rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (5, 3)))[0]
    got = measures.weights(NET, None, changed(shared_torso=rotation), None, None)
    np.testing.assert_allclose(got["shared_0_orthogonality"], 0.0, atol=1e-5)


def test_churn_of_a_head_alone_and_of_features_alone():
    head = changed(
        actor_head=jnp.array([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0]]), critic_head=jnp.array([[2.0], [2.0], [3.0]])
    )
    features = changed(shared_torso=jnp.array([[1.0, 1.0, 0.0], [0.5, -1.0, 0.1]]))
    for after, whose, others in ((head, "_head", "_features"), (features, "_features", "_head")):
        got = churn.update_churn(NET, PARAMS, after, None, None)
        for name in ("update_policy_churn", "update_value_churn"):
            assert got[f"{name}{whose}"] == got[name] > 0
            assert got[f"{name}{others}"] == 0
    np.testing.assert_allclose(
        churn.update_churn(NET, PARAMS, head, None, None)["update_value_churn"], (1 + 9) / 2, rtol=1e-6
    )


def test_they_are_measured_in_training():
    """By PPO on torsos of their own, from what the loop gives; nothing is compiled."""
    functions = (measures.units, measures.weights, churn.update_churn)
    algorithm = tiny("ppo", metrics=functions)
    logged = jax.eval_shape(lambda key: algorithm.step(algorithm.init(key))[1], jax.random.key(0))
    for network in ("actor", "critic"):
        assert {f"{network}_dormant_025", f"{network}_linearised", f"{network}_0_spectral_norm"} <= set(logged)
    assert "update_policy_churn_features" in logged


# --- whole curves ------------------------------------------------------------------------------------------------------


def test_the_excess_ratio_is_of_the_last_window_with_enough_updates():
    above, below = np.full(400, np.nan), np.full(400, np.nan)
    above[:200], below[:200] = 1.5, 0.75
    above[200:300], below[200:300] = 1.2, 0.8
    # The last 100 have neither: the last 5% with 10 of both are 290 − 20 + 10 … 300.
    np.testing.assert_allclose(collapse.excess_ratio(above, below), 1.5)
    above[300:], below[300:] = 1.8, 0.6
    np.testing.assert_allclose(collapse.excess_ratio(np.stack([above, above]), np.stack([below, below])), [3.0, 3.0])
    assert np.isnan(collapse.excess_ratio(np.full(400, np.nan), below))


def test_ratios_are_bounded_before_they_are_divided():
    np.testing.assert_allclose(collapse.excess_ratio(np.full(40, 1e30), np.full(40, 1e-30), least=1), 1e24)


def test_a_run_has_collapsed_where_it_stays_so_to_the_end():
    rank = np.array([[30, 2, 30, 2, 2, np.nan], [2, 2, 2, 2, 30, np.nan], [2, 2, 2, np.nan, 2, 1]], float)
    dead, variance = np.full(rank.shape, 64.0), np.zeros(rank.shape)
    np.testing.assert_array_equal(collapse.collapsed_since(rank, dead, variance, 64), [3.0, np.nan, 0.0])
    np.testing.assert_array_equal(collapse.collapsed_since(rank, dead - 1, variance, 64), [np.nan] * 3)
    np.testing.assert_array_equal(collapse.collapsed_since(rank, dead, variance + 1e-3, 64), [np.nan] * 3)
    # 2% of many features are more than 2.
    assert collapse.collapsed_since(rank[0] + 8, dead[0] * 8, variance[0], 512) == 3
