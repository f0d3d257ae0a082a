"""Networks written in flax.nnx, through the adapter; and what cannot be a network."""

from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from toys import TINY, tiny

import purejaxrl_ext as prx
from purejaxrl_ext import networks

KEY = jax.random.key(0)
SIZES = {k: v for k, v in TINY.items() if k in ("num_envs", "num_steps", "num_epochs", "num_minibatches")}


class Mine(nnx.Module):
    """A policy and a value for CartPole."""

    def __init__(self, rngs):
        self.actor_hidden, self.critic_hidden = (nnx.Linear(4, 6, rngs=rngs) for _ in range(2))
        self.actor_head, self.critic_head = nnx.Linear(6, 2, rngs=rngs), nnx.Linear(6, 1, rngs=rngs)

    def __call__(self, obs):
        logits = self.actor_head(jnp.tanh(self.actor_hidden(obs)))
        value = self.critic_head(jnp.tanh(self.critic_hidden(obs)))[..., 0]
        return prx.Output(policy=prx.Categorical(logits), value=value)


class Noisy(nnx.Module):
    """One with variables that are no parameters."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, obs):
        return prx.Output(policy=prx.Categorical(self.norm(obs)[..., :2]), value=obs[..., 0])


def test_the_adapter_says_what_the_module_says():
    network, obs = networks.Nnx(Mine), jax.random.normal(KEY, (5, 4))
    params = network.init(KEY, obs)
    module = Mine(nnx.Rngs(KEY))
    np.testing.assert_allclose(network.apply(params, obs).policy.logits, module(obs).policy.logits, rtol=1e-6)
    assert set(params["params"]) == {"actor_hidden", "critic_hidden", "actor_head", "critic_head"}
    # Other parameters, other output; and the first ones are as they were.
    zeros = jax.tree.map(jnp.zeros_like, params)
    np.testing.assert_array_equal(jax.jit(network.apply)(zeros, obs).value, 0.0)
    np.testing.assert_allclose(network.apply(params, obs).value, module(obs).value, rtol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"separate_optimizers": True, "critic_learning_rate": 1e-2}])
def test_it_trains(settings):
    algorithm = prx.make("ppo", "CartPole-v1", network=networks.Nnx(Mine), **SIZES, **settings)
    again = prx.make(**algorithm.settings)
    assert again.loop is algorithm.loop
    states = jax.vmap(algorithm.init)(jax.random.split(KEY, 2))
    after, logged = jax.jit(jax.vmap(algorithm.step, in_axes=(prx.State.axes(), None), out_axes=(prx.State.axes(), 0)))(
        states.replace(update=jnp.zeros((), jnp.int32)), algorithm.hparams
    )
    assert np.isfinite(logged["loss"]).all()
    moved = jax.tree.map(lambda x, y: (x != y).any(), states.params, after.params)
    assert all(jax.tree.leaves(moved))
    assert not np.allclose(*(after.params["params"]["actor_head"]["kernel"][i] for i in (0, 1)))


def test_other_variables_are_refused():
    with pytest.raises(ValueError, match=r"nnx.Param alone, not with BatchStat"):
        prx.make("ppo", "CartPole-v1", network=networks.Nnx(Noisy))


class WithList(nn.Module):
    """Linen makes tuples of lists, but not of what is in an array."""

    table: Any = None

    def __call__(self, obs):
        return prx.Output()


@dataclass(frozen=True)
class Plain:
    sizes: list = field(default_factory=lambda: [8])

    def init(self, key, obs):
        return {}

    def apply(self, params, obs):
        return prx.Output()


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Mine(nnx.Rngs(0)), r"Mine is an nnx.Module.*networks.Nnx\(make\)"),
        (networks.ActorCritic, "a module, not a class"),
        (object(), "it has no init and no apply"),
        (Plain(), "network Plain must be hashable.*its fields sizes are not"),
        (WithList(table=np.zeros(3)), "network WithList must be hashable.*table"),
    ],
    ids=["nnx", "class", "object", "list", "array"],
)
def test_what_is_no_network(network, words):
    with pytest.raises(ValueError, match=words):
        prx.make("ppo", "CartPole-v1", network=network)


def test_an_activation_is_a_name(monkeypatch):
    for made in (lambda: tiny(activation=jax.nn.mish), lambda: networks.Torso((4,), activation=jax.nn.mish)):
        with pytest.raises(ValueError, match=r"activation.*mish.*ACTIVATIONS\[name\] = function"):
            made()
    with pytest.raises(ValueError, match=r"activation 'rellu'. Did you mean 'relu'"):
        networks.Torso((4,), activation="rellu")
    monkeypatch.setitem(networks.ACTIVATIONS, "mish", jax.nn.mish)
    assert tiny(activation="mish").config.activation == "mish"
