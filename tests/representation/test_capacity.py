"""Probes: what they fit and find, on models whose answers are known, and on the weights of real networks."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext.representation import probes
from purejaxrl_ext.sweeps.probes import Probe, metric_names

KEY = jax.random.key(0)
HPARAMS = SimpleNamespace(learning_rate=0.1, adam_b1=0.9, adam_b2=0.999, adam_eps=1e-8)


class Linear:
    """value = x w."""

    def apply(self, params, obs):
        return prx.Output(value=obs @ params)


def fitted(params, num_steps):
    obs = jax.random.normal(KEY, (8, 3))
    target = prx.Output(value=obs @ jnp.array([1.0, -1.0, 0.5]))
    algorithm, indices = SimpleNamespace(network=Linear()), jnp.tile(jnp.arange(8), (num_steps, 1))
    return probes.fit(algorithm, params, HPARAMS, obs, target, indices, probes.value_error), obs, target


def test_the_error_is_the_last_minibatchs_before_its_step():
    first, obs, target = fitted(jnp.zeros(3), 1)
    np.testing.assert_allclose(first, np.square(target.value).mean(), rtol=1e-6)
    # Adam's first step is the learning rate along each sign: the second error is the one there.
    grad = np.asarray(obs.T @ (obs @ jnp.zeros(3) - target.value))
    second, _, _ = fitted(jnp.zeros(3), 2)
    np.testing.assert_allclose(second, np.square(obs @ (-0.1 * np.sign(grad)) - target.value).mean(), rtol=1e-4)
    assert fitted(jnp.zeros(3), 200)[0] < 1e-3 * first
    assert fitted(jnp.array([1.0, -1.0, 0.5]), 5)[0] < 1e-10


def test_minibatches_are_whole_and_each_epochs_own():
    orders = jnp.array([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    np.testing.assert_array_equal(probes.batches(orders, 2), [[0, 1], [2, 3], [4, 3], [2, 1]])
    with pytest.raises(ValueError, match=r"batch_size=6.*at most the number of samples, 5"):
        probes.batches(orders, 6)


def test_the_eigenvalue_of_largest_size_has_its_sign():
    rotation = jnp.linalg.qr(jax.random.normal(KEY, (4, 4)))[0]
    matrix = rotation @ jnp.diag(jnp.array([3.0, -5.0, 1.0, 0.5])) @ rotation.T

    def slope(params):
        flat = matrix @ jnp.concatenate([params["a"], params["b"]])
        return {"a": flat[:1], "b": flat[1:]}

    params = {"a": jnp.zeros(1), "b": jnp.zeros(3)}
    np.testing.assert_allclose(probes.largest_eigenvalue(slope, params, KEY, 60), -5.0, rtol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_tangent_kernel_of_a_linear_model_has_the_rank_of_its_inputs(rank):
    obs = jnp.eye(3)[jnp.arange(6) % rank]
    got = probes.ntk_rank(lambda params, x: (x @ params)[None], jnp.ones(3), obs)
    assert got == rank


@functools.cache
def capacity():
    algorithm = tiny("ppo", shared_torso=True, activation="relu", learning_rate=1e-2, initializer="fan_in")
    probe = probes.CapacityLoss(num_samples=64, batch_size=16, num_epochs=16)
    return algorithm, jax.jit(lambda state, key: probe(algorithm, state, key, algorithm.hparams))


def test_capacity_loss_is_zero_for_the_network_to_be_learned_and_large_for_one_that_is_dead():
    """With a shared torso, which each fit has for itself; the data and targets are no matter of the run's."""
    algorithm, loss = capacity()
    first = algorithm.init(KEY)
    taught = first.replace(params=algorithm.loop.net.init(jax.random.split(jax.random.key(0), 3)[1]))
    dead = first.replace(params=jax.tree.map(lambda x: jnp.full(x.shape, -1e-3), first.params))
    got = {name: loss(state, KEY) for name, state in {"first": first, "taught": taught, "dead": dead}.items()}
    for name in ("actor_capacity_loss", "critic_capacity_loss"):
        # Not 0: Adam makes steps of rounding errors.
        assert got["taught"][name] < 0.1 * got["first"][name]
    assert got["dead"]["critic_capacity_loss"] > 2 * got["first"]["critic_capacity_loss"]
    later = loss(first.replace(update=jnp.int32(7)), jax.random.key(5))
    assert later == got["first"]


ALL = (probes.CapacityLoss(32, 16, 1), probes.TargetFit(32, 16, 1), probes.Curvature(2), probes.TangentKernel(4))


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (
            "ppo",
            {"normalize_observations": True},
            {"actor_capacity_loss", "critic_ntk_rank", "hessian_norm", "target_error"},
        ),
        ("pqn", {}, {"critic_capacity_loss", "critic_ntk_rank", "hessian_norm", "target_error"}),
        ("dqn", {}, {"critic_capacity_loss", "critic_ntk_rank", "target_error"}),
    ],
)
def test_what_is_probed_of_each_kind(kind, settings, expected):
    """Traced alone, as a sweep does to learn their names."""
    algorithm, found = tiny(kind, **settings), set()
    for probe in ALL:
        if kind == "dqn" and isinstance(probe, probes.Curvature):
            with pytest.raises(ValueError, match=r"Curvature.*on-policy"):
                metric_names(Probe("curvature", probe, 1), algorithm)
        else:
            found |= set(metric_names(Probe(type(probe).__name__, probe, 1), algorithm))
    assert expected <= found
    assert ("actor_capacity_loss" in found) == (kind == "ppo")


def test_a_state_alone_says_nothing_to_a_memory():
    algorithm = tiny("ppo", memory="gru", memory_size=4)
    with pytest.raises(ValueError, match=r"RecurrentActorCritic.*without a memory"):
        metric_names(Probe("capacity", ALL[0], 1), algorithm)
