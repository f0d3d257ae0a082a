"""Networks: the convolution against flax's, initial weights, shared and separate torsos."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import equations

import purejaxrl_ext as prx
from purejaxrl_ext import networks

KEY = jax.random.key(0)


def actor_critic(policy="categorical", **settings):
    initializer = settings.get("initializer", "orthogonal")
    shared = settings.pop("shared_torso", False)
    torso = networks.Torso(**{"hidden_sizes": (7, 5), **settings})
    return networks.ActorCritic(3, policy, torso, shared_torso=shared, initializer=initializer)


@pytest.mark.parametrize(("size", "stride", "kernel"), [((10, 10), 1, 3), ((11, 8), 2, 3), ((20, 20), 4, 8)])
def test_patch_convolution_is_flaxs(size, stride, kernel):
    x = jax.random.normal(KEY, (2, *size, 3))
    init = networks.initializers("fan_in", kernel**2 * 3, 1.0)
    ours = networks.PatchConv(5, kernel, stride, **init)
    flaxs = nn.Conv(5, (kernel, kernel), stride, padding="VALID", precision="highest")
    params = ours.init(KEY, x)
    expected = jax.tree.map(lambda leaf: leaf.shape, flaxs.init(KEY, x))
    assert jax.tree.map(lambda leaf: leaf.shape, params) == expected
    np.testing.assert_allclose(ours.apply(params, x), flaxs.apply(params, x), rtol=1e-4, atol=1e-5)


def test_boolean_planes_are_numbers_to_the_convolution():
    planes = jax.random.bernoulli(KEY, 0.3, (2, 6, 6, 4))
    torso = networks.Torso(hidden_sizes=(4,), conv_layers=((3, 3, 1),))
    params = torso.init(KEY, planes)
    a, b = torso.apply(params, planes), torso.apply(params, planes.astype(jnp.float32))
    np.testing.assert_array_equal(a.features, b.features)


def test_bytes_are_scaled_to_the_unit_interval():
    image = jax.random.randint(KEY, (2, 6, 6, 1), 0, 256).astype(jnp.uint8)
    torso = networks.Torso(hidden_sizes=(4,), conv_layers=((3, 3, 1),))
    params = torso.init(KEY, image)
    expected = torso.apply(params, image.astype(jnp.float32) / 255.0)
    np.testing.assert_allclose(torso.apply(params, image).features, expected.features, rtol=1e-5)


# Those that change the shape are looked at in test_blocks.
@pytest.mark.parametrize("activation", sorted(set(networks.ACTIVATIONS) - {"crelu", "hadamard"}))
def test_features_are_the_activated_last_preactivations(activation):
    """Every hidden layer is in the output, images flattened."""
    torso = networks.Torso(hidden_sizes=(6, 4), conv_layers=((3, 3, 2),), activation=activation)
    obs = jax.random.normal(KEY, (2, 7, 7, 2))
    got = torso.apply(torso.init(KEY, obs), obs)
    assert [p.shape for p in got.preactivations] == [(2, 3 * 3 * 3), (2, 6), (2, 4)]
    expected = networks.ACTIVATIONS[activation](got.preactivations[-1])
    np.testing.assert_allclose(got.features, expected, rtol=1e-6)
    assert not np.allclose(got.features, got.preactivations[-1])


def test_layer_norm_comes_before_the_activation():
    obs = 100.0 * jax.random.normal(KEY, (4, 3))
    torso = networks.Torso(hidden_sizes=(50,), layer_norm=True)
    last = torso.apply(torso.init(KEY, obs), obs).preactivations[-1]
    np.testing.assert_allclose(last.mean(-1), np.zeros(4), atol=1e-4)
    np.testing.assert_allclose(last.std(-1), np.ones(4), atol=1e-2)


def test_separate_torsos_share_nothing():
    network, obs = actor_critic(), jax.random.normal(KEY, (2, 4))
    params = network.init(KEY, obs)
    assert {networks.parameter_group(name) for name in params["params"]} == {"actor", "critic"}

    def grads(pick):
        return jax.grad(lambda p: pick(network.apply(p, obs)).sum())(params)["params"]

    value, policy = grads(lambda o: o.value), grads(lambda o: o.policy.logits)
    for name in params["params"]:
        moved = {"value": value, "policy": policy}
        zero = {k: all((leaf == 0).all() for leaf in jax.tree.leaves(g[name])) for k, g in moved.items()}
        assert zero == {"value": name.startswith("actor"), "policy": name.startswith("critic")}, name


def test_a_shared_torso_is_one_torso():
    network, obs = actor_critic(shared_torso=True), jax.random.normal(KEY, (2, 4))
    params = network.init(KEY, obs)
    assert set(params["params"]) == {"shared_torso", "actor_head", "critic_head"}
    output = network.apply(params, obs)
    np.testing.assert_array_equal(output.actor.features, output.critic.features)


def test_actor_and_critic_start_apart():
    network, obs = actor_critic(), jax.random.normal(KEY, (2, 4))
    output = network.apply(network.init(KEY, obs), obs)
    assert not np.allclose(output.actor.features, output.critic.features)


def test_orthogonal_initialisation():
    """Rows or columns of length √2; heads of 0.01 and 1; no biases."""
    params = actor_critic(hidden_sizes=(16, 5)).init(KEY, jnp.ones((2, 4)))["params"]
    for torso in ("actor_torso", "critic_torso"):
        first, second = params[torso]["Dense_0"]["kernel"], params[torso]["Dense_1"]["kernel"]
        np.testing.assert_allclose(first @ first.T, 2.0 * np.eye(4), atol=1e-5)
        np.testing.assert_allclose(second.T @ second, 2.0 * np.eye(5), atol=1e-5)
        assert (params[torso]["Dense_0"]["bias"] == 0).all()
    head = params["actor_head"]["kernel"]
    np.testing.assert_allclose(head.T @ head, 1e-4 * np.eye(3), atol=1e-8)
    np.testing.assert_allclose((params["critic_head"]["kernel"] ** 2).sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("shape", ["vector", "image"])
def test_fan_in_initialisation(shape):
    """±1/√fan_in, biases and heads too, and the whole range is used."""
    conv = ((8, 3, 1),) if shape == "image" else ()
    obs = jnp.ones((2, 6, 6, 4)) if conv else jnp.ones((2, 9))
    network = actor_critic(initializer="fan_in", hidden_sizes=(64,), conv_layers=conv)
    params = network.init(KEY, obs)["params"]["actor_torso"]
    head = network.init(KEY, obs)["params"]["actor_head"]
    flat = 4 * 4 * 8 if conv else 9
    layers = [(params["Dense_0"], flat), (head, 64)]
    if conv:
        layers.append((params["PatchConv_0"], 3 * 3 * 4))
    for layer, fan_in in layers:
        bound = 1 / np.sqrt(fan_in)
        kernel = np.abs(layer["kernel"])
        assert kernel.max() <= bound
        assert kernel.max() > 0.9 * bound
        np.testing.assert_allclose(kernel.mean(), bound / 2, rtol=0.15)
        assert np.abs(layer["bias"]).max() <= bound
        assert (layer["bias"] != 0).all()


def test_gaussian_scale_is_a_parameter_and_tanh_gaussians_depends_on_the_state():
    obs = 5.0 * jax.random.normal(KEY, (3, 4))
    gaussian = actor_critic("gaussian")
    params = gaussian.init(KEY, obs)
    np.testing.assert_array_equal(gaussian.apply(params, obs).policy.scale, np.ones((3, 3)))
    squashed = actor_critic("tanh_gaussian", initializer="fan_in")
    scale = squashed.apply(squashed.init(KEY, obs), obs).policy.scale
    assert (scale > 0).all()
    assert np.std(scale, axis=0).min() > 0


def test_distinct_keys_give_distinct_weights():
    network, obs = actor_critic(), jnp.ones((2, 4))
    a, b = (network.init(jax.random.key(s), obs)["params"] for s in (0, 1))
    for name in ("actor_torso", "critic_torso"):
        assert not np.allclose(a[name]["Dense_0"]["kernel"], b[name]["Dense_0"]["kernel"])


def test_orthogonal_under_vmap_is_unbatched_and_the_same():
    """jaxlib 0.10.2 can hang in batched QR on few cores (pitfalls 13)."""
    init = networks.orthogonal(1.0)
    keys = jax.random.split(KEY, 3)

    def draw(key):
        return init(key, (6, 4))

    found = [e for e in equations(jax.make_jaxpr(jax.vmap(draw))(keys).jaxpr) if "qr" in e.primitive.name]
    assert found
    assert all(v.aval.ndim <= 2 for e in found for v in e.invars)
    many = jax.vmap(draw)(keys)
    for key, weights in zip(keys, many, strict=True):
        np.testing.assert_allclose(draw(key), weights, atol=1e-6)


class Linear(nn.Module):
    """A network of a user's own, without hidden layers."""

    @nn.compact
    def __call__(self, obs):
        return prx.Output(policy=prx.Categorical(nn.Dense(2)(obs)), value=nn.Dense(1)(obs)[..., 0])


def test_a_network_of_ones_own_trains():
    algorithm = prx.make(
        "ppo", "CartPole-v1", network=Linear(), num_envs=2, num_steps=4, num_minibatches=1, metrics_every=1
    )
    state = algorithm.init(KEY)
    after, logged = jax.eval_shape(algorithm.step, state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert "policy_variance" in logged
    assert "actor_rank" not in logged
