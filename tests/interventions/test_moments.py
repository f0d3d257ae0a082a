"""Optimiser states taken apart: which leaves belong to parameters, and an Adam in which every parameter counts its own steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import equal_trees

from purejaxrl_ext.interventions import moments
from purejaxrl_ext.loops import optim
from purejaxrl_ext.rules import ppo

HPARAMS = jax.tree.map(jnp.float32, ppo.PPOHparams(max_grad_norm=float("inf"), adam_eps=1e-8))
PARAMS = {
    "params": {
        "actor_head": {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "bias": jnp.array([0.5, -0.5])},
        "critic_head": {"kernel": jnp.array([[1.0], [2.0]])},
        "shared_torso": {"kernel": jnp.array([[1.0], [-1.0]])},
    }
}
# One unit's: a column of the kernel and its bias.
UNIT = jax.tree.map(lambda x: jnp.zeros(x.shape, bool), PARAMS)
UNIT["params"]["actor_head"] = {"kernel": jnp.array([[True, False], [True, False]]), "bias": jnp.array([True, False])}


def optimizers():
    aged = {f"aged {name}": moments.aged(optim.OPTIMIZERS[name]) for name in ("adam", "adamw")}
    return optim.OPTIMIZERS | aged


def stepped(optimizer, count, separate=False, seed=0):
    """A state and parameters after some steps on random gradients."""
    opt_state, params = optim.init(optimizer, HPARAMS, PARAMS, separate), PARAMS
    rng = np.random.default_rng(seed)
    step = jax.jit(functools.partial(optim.apply, optimizer, separate=separate))
    for _ in range(count):
        grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), PARAMS)
        params, opt_state, _ = step(grads, opt_state, params, HPARAMS, jnp.float32(0.1))
    return params, opt_state


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(("name", "number"), [("adam", 2), ("adamw", 2), ("radam", 2), ("rmsprop", 1), ("sgd", 0)])
def test_the_moments_are_those_of_the_parameters(name, number, separate):
    _, opt_state = stepped(optim.OPTIMIZERS[name], 1, separate)
    found = moments.moments(opt_state, PARAMS)
    assert len(found) == number * (2 if separate else 1)
    doubled = moments.map_moments(lambda m, p: m + p, opt_state, PARAMS, PARAMS)
    of_shared = [tree.get("params", tree)["shared_torso"]["kernel"] for tree in found]
    after = [tree.get("params", tree)["shared_torso"]["kernel"] for tree in moments.moments(doubled, PARAMS)]
    for before, now in zip(of_shared, after, strict=True):
        np.testing.assert_allclose(now - before, PARAMS["params"]["shared_torso"]["kernel"], rtol=1e-5)


def test_aged_adam_is_adam_bit_for_bit():
    for name in ("adam", "adamw"):
        plain, aged = optim.OPTIMIZERS[name], moments.aged(optim.OPTIMIZERS[name])
        for separate in (False, True):
            equal_trees(stepped(plain, 4, separate)[0], stepped(aged, 4, separate)[0])


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("name", ["adam", "adamw", "aged adam", "aged adamw", "radam", "rmsprop", "sgd"])
def test_a_restart_zeroes_what_belongs_to_it_alone(name, separate):
    _, opt_state = stepped(optimizers()[name], 3, separate)
    after = moments.restart(opt_state, PARAMS, UNIT)
    assert jax.tree.structure(after) == jax.tree.structure(opt_state)
    for before, now in zip(moments.moments(opt_state, PARAMS), moments.moments(after, PARAMS), strict=True):
        before, now = (tree.get("params", tree) for tree in (before, now))
        if "actor_head" in now:
            kernel, old = now["actor_head"]["kernel"], before["actor_head"]["kernel"]
            assert (kernel[:, 0] == 0).all()
            assert now["actor_head"]["bias"][0] == 0
            np.testing.assert_array_equal(kernel[:, 1], old[:, 1])
        equal_trees(
            {k: v for k, v in before.items() if k != "actor_head"}, {k: v for k, v in now.items() if k != "actor_head"}
        )


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_parameter_that_begins_anew_steps_as_at_the_start(name, separate):
    """Its next steps are those of a fresh Adam, the others' as if nothing had been: here on the same gradients throughout."""
    optimizer = moments.aged(optim.OPTIMIZERS[name])
    params, opt_state = stepped(optimizer, 20, separate)
    states = {"restarted": moments.restart(opt_state, PARAMS, UNIT), "old": opt_state}
    states["fresh"] = optim.init(optimizer, HPARAMS, PARAMS, separate)
    rng, at = np.random.default_rng(1), dict.fromkeys(states, params)
    for _ in range(3):
        grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), PARAMS)
        for key in states:
            step = optim.apply(optimizer, grads, states[key], at[key], HPARAMS, jnp.float32(0.1), separate)
            at[key], states[key] = step.params, step.opt_state
    expected = jax.tree.map(lambda unit, fresh, old: jnp.where(unit, fresh, old), UNIT, at["fresh"], at["old"])
    for x, y in zip(jax.tree.leaves(at["restarted"]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5)
    assert not np.allclose(at["old"]["params"]["actor_head"]["bias"][0], expected["params"]["actor_head"]["bias"][0])


def test_without_its_own_count_the_first_step_is_three_times_too_long():
    """What optax's one count does to a unit whose moments are reset, and what the aged one mends."""
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    lengths = {}
    for name, optimizer in {"plain": optim.adam, "aged": moments.aged(optim.adam)}.items():
        params, opt_state = stepped(optimizer, 200)
        opt_state = moments.restart(opt_state, PARAMS, UNIT)
        after = optim.apply(optimizer, grads, opt_state, params, HPARAMS, jnp.float32(0.1), False).params
        lengths[name] = float(
            jnp.abs(after["params"]["actor_head"]["bias"] - params["params"]["actor_head"]["bias"])[0]
        )
    np.testing.assert_allclose(lengths["aged"], 0.1, rtol=1e-3)
    assert lengths["plain"] > 0.13  # and 0.32 in the end


@pytest.mark.parametrize("separate", [False, True])
def test_counts_alone_begin_anew(separate):
    for optimizer in (optim.adam, moments.aged(optim.adam)):
        _, opt_state = stepped(optimizer, 3, separate)
        after = moments.restart_counts(opt_state, PARAMS)
        integers = [x for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.integer)]
        assert integers
        assert all((x == 0).all() for x in integers)
        equal_trees(moments.moments(after, PARAMS), moments.moments(opt_state, PARAMS))


def test_one_without_adam_inside_stays_itself():
    assert moments.aged(optim.rmsprop) is optim.rmsprop
    assert moments.aged(optim.sgd) is optim.sgd


def test_what_is_no_count_is_left_alone():
    """A scale kept in the state, as of ``inject_hyperparams``, is neither a moment nor a count."""
    transform = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
    after = moments.restart_counts(transform.init(PARAMS), PARAMS)
    assert after.hyperparams["learning_rate"] == jnp.float32(0.1)
