"""What a tree of parameters is made of: where each unit's weights are, shown by changing them and looking at the output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_ext import networks
from purejaxrl_ext.networks import structure

KEY = jax.random.key(0)
VECTOR, IMAGE = (3, 4), (3, 7, 7, 2)


def torso(**settings):
    return networks.Torso(**{"hidden_sizes": (6, 5), **settings})


KINDS = {
    "separate": (networks.ActorCritic(3, "categorical", torso()), VECTOR),
    "shared": (networks.ActorCritic(3, "tanh_gaussian", torso(), shared_torso=True), VECTOR),
    "normed": (networks.ActorCritic(2, "gaussian", torso(layer_norm=True, activation="relu")), VECTOR),
    "images": (networks.ActorCritic(3, "categorical", torso(conv_layers=((3, 3, 1), (2, 2, 2)))), IMAGE),
    "q": (networks.QNetwork(3, torso(activation="relu")), VECTOR),
    "dueling images": (networks.QNetwork(3, torso(conv_layers=((3, 3, 1),)), dueling=True), IMAGE),
    "images, no dense layer": (networks.QNetwork(3, torso(hidden_sizes=(), conv_layers=((3, 3, 1),))), IMAGE),
    "crelu images": (
        networks.QNetwork(3, torso(hidden_sizes=(6, 4), activation="crelu", conv_layers=((4, 3, 1),))),
        IMAGE,
    ),
    "hadamard images": (networks.QNetwork(3, torso(activation="hadamard", conv_layers=((3, 3, 1),))), IMAGE),
    "multi_skip": (networks.ActorCritic(3, "categorical", torso(block="multi_skip", layer_norm=True)), VECTOR),
    "simba": (networks.QNetwork(3, torso(hidden_sizes=(5, 5), block="simba", activation="relu")), VECTOR),
    "memory": (networks.RecurrentActorCritic(3, "categorical", torso(), memory_size=4), VECTOR),
}


def made(kind):
    """A network, its parameters, and what it says of a batch."""
    network, shape = KINDS[kind]
    obs = jax.random.normal(KEY, shape)
    if not hasattr(network, "initial_carry"):
        return network, network.init(KEY, obs), jax.jit(lambda params: network.apply(params, obs))
    args = (obs[None], network.initial_carry(len(obs)), jnp.zeros((1, len(obs)), bool))

    def apply(params):
        return jax.tree.map(lambda x: x[0], network.apply(params, *args)[1])

    return network, network.init(KEY, *args), jax.jit(apply)


def told(output):
    """What a network says outwards."""
    return jax.tree.leaves((output.policy, output.value, output.q_values))


@pytest.mark.parametrize("kind", KINDS)
def test_outgoing_weights_are_all_there_are(kind):
    """With a unit's outgoing weights 0 nothing it says matters: its incoming weights may be anything. With them as they are, they
    may not."""
    network, params, apply = made(kind)
    found = structure.layers(network, params)
    assert found
    for i, layer in enumerate(found):
        width = structure.get(params, layer.kernel).shape[-1]
        chosen = [jnp.zeros(structure.get(params, x.kernel).shape[-1], bool) for x in found]
        chosen[i] = jnp.arange(width) == 1
        loud = jax.tree.map(lambda x: 3.0 + x, params)
        silenced = structure.replace_units(params, params, found, chosen)
        changed = structure.replace_units(silenced, loud, found, chosen)
        if not layer.scales:  # LayerNorm mixes the units of a layer.
            for x, y in zip(told(apply(silenced)), told(apply(changed)), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
        heard = structure.replace_units(params, loud, found, chosen, outgoing=1.0)
        pairs = zip(told(apply(params)), told(apply(heard)), strict=True)
        assert any(not np.allclose(x, y) for x, y in pairs), layer


@pytest.mark.parametrize("kind", KINDS)
def test_incoming_weights_are_a_units_alone(kind):
    """Other incoming weights of a unit change what it says, in its own layer, and no other unit there."""
    network, params, apply = made(kind)
    found = structure.layers(network, params)
    fresh = jax.tree.map(lambda x: x + 0.5, params)
    before = structure.unit_outputs(apply(params), found, params)
    for i, layer in enumerate(found):
        widths = [x.shape[-1] for x in before]
        chosen = [jnp.zeros(width, bool) for width in widths]
        chosen[i] = jnp.arange(widths[i]) == 1
        after = structure.unit_outputs(apply(structure.replace_units(params, fresh, found, chosen)), found, params)[i]
        assert not np.allclose(after[..., 1], before[i][..., 1]), layer
        if not layer.scales:
            others = np.arange(widths[i]) != 1
            np.testing.assert_array_equal(after[..., others], before[i][..., others])


def test_what_units_say_is_behind_the_activation_at_each_place():
    _, params, apply = made("images")
    network = KINDS["images"][0]
    found, output = structure.layers(network, params), apply(params)
    said = structure.unit_outputs(output, found, params)
    assert [x.shape for x in said[:4]] == [(3, 25, 3), (3, 4, 2), (3, 1, 6), (3, 1, 5)]
    np.testing.assert_array_equal(said[3][:, 0], output.actor.features)
    np.testing.assert_array_equal(said[-1][:, 0], output.critic.features)


def test_the_weights_of_units_are_what_replacing_them_changes():
    network, params, _ = made("images")
    found = structure.layers(network, params)
    chosen = [jnp.arange(structure.get(params, x.kernel).shape[-1]) == 1 for x in found]
    # All parameters differ from both: of fresh ones, and from the number.
    params = jax.tree.map(lambda x: jnp.full(x.shape, 2.0), params)
    after = structure.replace_units(params, jax.tree.map(jnp.ones_like, params), found, chosen)
    changed = jax.tree.map(lambda x, y: x != y, params, after)
    marked = structure.weights_of_units(params, found, chosen)
    for x, y in zip(jax.tree.leaves(changed), jax.tree.leaves(marked), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_weight_between_two_new_units_is_an_outgoing_one():
    network, params, _ = made("separate")
    found = structure.layers(network, params)
    chosen = [jnp.ones(structure.get(params, x.kernel).shape[-1], bool) for x in found]
    after = structure.replace_units(params, params, found, chosen)
    for layer in found:
        for path in layer.outgoing:
            assert (structure.get(after, path) == 0).all()


def test_kernels_are_weights_of_two_axes_or_more():
    params = made("images")[1]
    marked = structure.map_kernels(lambda w: jnp.full(w.shape, jnp.inf), params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(marked):
        assert jnp.isinf(leaf).all() == (path[-1].key == "kernel")


@pytest.mark.parametrize(("shape", "inputs"), [((4, 8), 4), ((3, 3, 2, 16), 18), ((5, 1), 5)])
def test_fan_in(shape, inputs):
    assert structure.fan_in(jnp.zeros(shape)) == inputs


def test_networks_are_told_apart_by_their_names():
    names = dict.fromkeys(("actor_torso", "actor_head", "critic_head", "shared_torso"), 0)
    assert structure.networks({"params": names}) == {
        "actor": ("shared_torso", "actor_torso", "actor_head"),
        "critic": ("shared_torso", "critic_head"),
    }
    assert structure.networks({"params": {"body": 0}}) == structure.networks({"w": 0}) == {}


def test_a_network_without_layers_is_told():
    with pytest.raises(ValueError, match=r"network Silent has no method layers"):
        structure.layers(type("Silent", (), {})(), {})
