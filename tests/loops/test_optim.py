"""The optimiser: what it clips by, what it counts in, and Adam itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_ext.loops import optim
from purejaxrl_ext.rules import ppo
from purejaxrl_ext.rules.schedules import anneal

HPARAMS = ppo.PPOHparams(max_grad_norm=1.0)


def tree(actor, critic):
    return {"params": {"actor_head": {"w": jnp.asarray(actor)}, "critic_head": {"w": jnp.asarray(critic)}}}


ZEROS = tree([0.0, 0.0], [0.0])


def step(grads, hparams, optimizer=optim.adam, separate=False, params=ZEROS):
    opt_state = optim.init(optimizer, hparams, params, separate)
    return optim.apply(optimizer, grads, opt_state, params, hparams, 0.1, separate)


def first_moments(opt_state):
    """Adam's first moment over 1 − b1: after one step, the gradient that Adam was given."""
    moments = jax.tree.map(lambda m: m / 0.1, opt_state[0].mu)
    return moments.get("params", moments)


@pytest.mark.parametrize("limit", [1.0, 100.0, float("inf")])
def test_clipping_is_by_global_norm(limit):
    """The direction stays and the whole gradient's norm becomes the limit; element-wise clipping would do neither."""
    grads = tree([3.0, 0.5], [4.0])
    norm = np.sqrt(9 + 0.25 + 16)
    hparams = dataclasses.replace(HPARAMS, max_grad_norm=limit)
    _, opt_state, norms = step(grads, hparams)
    given = first_moments(opt_state)
    factor = min(1.0, limit / norm)
    np.testing.assert_allclose(given["actor_head"]["w"], np.array([3.0, 0.5]) * factor, rtol=1e-4)
    np.testing.assert_allclose(given["critic_head"]["w"], np.array([4.0]) * factor, rtol=1e-4)
    np.testing.assert_allclose(norms["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(norms["critic_grad_norm"], 4.0, rtol=1e-5)


def test_separate_optimisers_clip_each_by_its_own_norm():
    grads = tree([3.0, 4.0], [0.5])
    new, opt_state, norms = step(grads, HPARAMS, separate=True)
    assert opt_state.keys() == {"actor", "critic"}
    np.testing.assert_allclose(first_moments(opt_state["actor"])["actor_head"]["w"], [0.6, 0.8], rtol=1e-4)
    np.testing.assert_allclose(first_moments(opt_state["critic"])["critic_head"]["w"], [0.5], rtol=1e-4)
    np.testing.assert_allclose(norms["grad_norm"], np.sqrt(25.25), rtol=1e-5)
    assert jax.tree.structure(new) == jax.tree.structure(ZEROS)
    assert all((np.asarray(leaf) < 0).all() for leaf in jax.tree.leaves(new))


def test_apply_is_adam():
    rng = np.random.default_rng(0)
    b1, b2, eps, lr = 0.8, 0.95, 1e-3, 0.05
    hparams = ppo.PPOHparams(max_grad_norm=float("inf"), adam_b1=b1, adam_b2=b2, adam_eps=eps)
    params, opt_state = ZEROS, optim.init(optim.adam, hparams, ZEROS, False)
    x, m, v = np.zeros(2), np.zeros(2), np.zeros(2)
    for t in range(1, 5):
        g = rng.normal(size=2).astype(np.float32)
        params, opt_state, _ = optim.apply(optim.adam, tree(g, [1.0]), opt_state, params, hparams, lr, False)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        x = x - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    np.testing.assert_allclose(params["params"]["actor_head"]["w"], x, rtol=1e-4)


@pytest.mark.parametrize(("env_steps", "share"), [(0, 1.0), (250, 0.75), (1000, 0.0), (5000, 0.0)])
def test_annealing_ends_at_zero(env_steps, share):
    got = anneal(jnp.float32(0.5), jnp.float32(1000.0), jnp.float32(env_steps))
    np.testing.assert_allclose(got, 0.5 * share, rtol=1e-6)


def test_no_annealing_is_constant():
    assert anneal(jnp.float32(0.5), jnp.float32(0.0), jnp.float32(1e9)) == 0.5


def test_the_state_holds_arrays_only():
    """An optimiser made of a traced learning rate must not be in what a jitted step returns."""
    made = jax.jit(lambda h: optim.init(optim.adam, h, ZEROS, True))(HPARAMS)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(made))


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("name", sorted(optim.OPTIMIZERS))
def test_every_optimiser_steps_against_the_gradient(name, separate):
    new, _, _ = step(tree([1.0, -1.0], [2.0]), HPARAMS, optim.OPTIMIZERS[name], separate)
    np.testing.assert_array_equal(np.sign(new["params"]["actor_head"]["w"]), [-1.0, 1.0])
    assert (new["params"]["critic_head"]["w"] < 0).all()


@pytest.mark.parametrize("separate", [False, True])
def test_adamw_decays_past_the_gradient(separate):
    """Also with an optimiser for each network, which must be shown its parameters."""
    hparams, params = dataclasses.replace(HPARAMS, weight_decay=0.5), tree([2.0, -2.0], [4.0])
    new, _, _ = step(tree([0.0, 0.0], [0.0]), hparams, optim.adamw, separate, params)
    np.testing.assert_allclose(new["params"]["actor_head"]["w"], [1.9, -1.9], rtol=1e-6)
    np.testing.assert_allclose(new["params"]["critic_head"]["w"], [3.8], rtol=1e-6)


@pytest.mark.parametrize("separate", [False, True])
def test_the_critic_has_a_learning_rate_of_its_own(separate):
    """In the ratio of both, so that they are annealed together; what both share goes at the actor's."""
    hparams = dataclasses.replace(HPARAMS, learning_rate=0.2, critic_learning_rate=0.6)
    new, _, _ = step(tree([1.0, 1.0], [1.0]), hparams, separate=separate)
    plain, _, _ = step(tree([1.0, 1.0], [1.0]), HPARAMS, separate=separate)
    np.testing.assert_array_equal(new["params"]["actor_head"]["w"], plain["params"]["actor_head"]["w"])
    np.testing.assert_allclose(new["params"]["critic_head"]["w"], 3.0 * plain["params"]["critic_head"]["w"], rtol=1e-5)


def test_separate_optimisers_need_networks_told_apart():
    with pytest.raises(ValueError, match=r"separate_optimizers=True.*actor_\.\.\. and critic_"):
        optim.init(optim.adam, HPARAMS, {"params": {"body": jnp.zeros(2)}}, True)
