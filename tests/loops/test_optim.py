"""The optimiser: what it clips by, what it counts in, and Adam itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_ext.loops import optim
from purejaxrl_ext.rules import ppo

HPARAMS = ppo.PPOHparams(max_grad_norm=1.0)


def tree(actor, critic):
    return {"params": {"actor_head": {"w": jnp.asarray(actor)}, "critic_head": {"w": jnp.asarray(critic)}}}


ZEROS = tree([0.0, 0.0], [0.0])


def first_moments(opt_state):
    """Adam's first moment over 1 − b1: after one step, the gradient that Adam was given."""
    moments = jax.tree.map(lambda m: m / 0.1, opt_state[1].mu)
    return moments.get("params", moments)


@pytest.mark.parametrize("limit", [1.0, 100.0, float("inf")])
def test_clipping_is_by_global_norm(limit):
    """The direction stays and the whole gradient's norm becomes the limit; element-wise clipping would do neither."""
    grads = tree([3.0, 0.5], [4.0])
    norm = np.sqrt(9 + 0.25 + 16)
    hparams = dataclasses.replace(HPARAMS, max_grad_norm=limit)
    _, opt_state, logged = optim.apply(grads, optim.init(hparams, ZEROS, False), ZEROS, hparams, 0.1, False)
    given = first_moments(opt_state)
    factor = min(1.0, limit / norm)
    np.testing.assert_allclose(given["actor_head"]["w"], np.array([3.0, 0.5]) * factor, rtol=1e-4)
    np.testing.assert_allclose(given["critic_head"]["w"], np.array([4.0]) * factor, rtol=1e-4)
    np.testing.assert_allclose(logged, norm, rtol=1e-5)


def test_separate_optimisers_clip_each_by_its_own_norm():
    grads = tree([3.0, 4.0], [0.5])
    opt_state = optim.init(HPARAMS, ZEROS, True)
    assert opt_state.keys() == {"actor", "critic"}
    new, opt_state, norm = optim.apply(grads, opt_state, ZEROS, HPARAMS, 0.1, True)
    np.testing.assert_allclose(first_moments(opt_state["actor"])["actor_head"]["w"], [0.6, 0.8], rtol=1e-4)
    np.testing.assert_allclose(first_moments(opt_state["critic"])["critic_head"]["w"], [0.5], rtol=1e-4)
    np.testing.assert_allclose(norm, np.sqrt(25.25), rtol=1e-5)
    assert jax.tree.structure(new) == jax.tree.structure(ZEROS)
    assert all((np.asarray(leaf) < 0).all() for leaf in jax.tree.leaves(new))


def test_apply_is_adam():
    rng = np.random.default_rng(0)
    b1, b2, eps, lr = 0.8, 0.95, 1e-3, 0.05
    hparams = ppo.PPOHparams(max_grad_norm=float("inf"), adam_b1=b1, adam_b2=b2, adam_eps=eps)
    params, opt_state = ZEROS, optim.init(hparams, ZEROS, False)
    x, m, v = np.zeros(2), np.zeros(2), np.zeros(2)
    for t in range(1, 5):
        g = rng.normal(size=2).astype(np.float32)
        params, opt_state, _ = optim.apply(tree(g, [1.0]), opt_state, params, hparams, lr, False)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        x = x - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    np.testing.assert_allclose(params["params"]["actor_head"]["w"], x, rtol=1e-4)


@pytest.mark.parametrize(("env_steps", "share"), [(0, 1.0), (250, 0.75), (1000, 0.0), (5000, 0.0)])
def test_annealing_ends_at_zero(env_steps, share):
    got = optim.anneal(jnp.float32(0.5), jnp.float32(1000.0), jnp.float32(env_steps))
    np.testing.assert_allclose(got, 0.5 * share, rtol=1e-6)


def test_no_annealing_is_constant():
    assert optim.anneal(jnp.float32(0.5), jnp.float32(0.0), jnp.float32(1e9)) == 0.5


def test_the_state_holds_arrays_only():
    """An optimiser made of a traced learning rate must not be in what a jitted step returns."""
    made = jax.jit(lambda h: optim.init(h, ZEROS, True))(HPARAMS)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(made))
