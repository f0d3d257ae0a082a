"""What every algorithm promises, whatever its rule and its loop."""

import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import equal_trees, tiny

import purejaxrl_ext as prx

KEY = jax.random.key(0)
UPDATES = 10


# Algorithms, and the settings that make them another code path.
KINDS: dict[str, dict] = {name: {} for name in prx.ALGORITHMS}
KINDS |= {f"{name} gru": {"memory": "gru", "memory_size": 4} for name in ("ppo", "pfo")}


@pytest.fixture(scope="module", params=KINDS)
def algorithm(request):
    return tiny(request.param.split()[0], **KINDS[request.param])


@pytest.fixture(scope="module")
def solo(algorithm):
    """Seed 1 alone."""
    return prx.train(algorithm, jax.random.key(1), UPDATES * algorithm.steps_per_update)


@pytest.fixture(scope="module")
def stepped(algorithm):
    """``step`` jitted and counted, a state, and what two steps make of it; no representation, to compile less."""
    algorithm = prx.make(**algorithm.settings | {"metrics_every": 0})
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(algorithm.loop.step, n=1))
    state = jax.jit(algorithm.init)(KEY)
    rows = []
    after = state
    for scale in (1.0, 0.5):
        hparams = jax.tree.map(lambda x: jnp.float32(scale * x), algorithm.hparams)  # noqa: B023
        after, logged = step(after, hparams)
        rows.append(logged)
    return state, after, rows


def kinds(tree):
    return jax.tree.structure(tree), [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def test_step_keeps_structure_shapes_and_dtypes(stepped):
    before, after, _ = stepped
    assert kinds(before) == kinds(after)


def test_one_trace_for_all_values_of_the_hparams(stepped):
    """The fixture's step fails when it is traced again; here, that the values had their effect at all."""
    _, after, rows = stepped
    assert after.update == 2
    assert rows[0].keys() == rows[1].keys()


def test_step_moves_the_parameters_and_the_key(stepped):
    before, after, rows = stepped
    moved = [
        not np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (before.params, after.params)), strict=True)
    ]
    assert any(moved)
    assert not np.array_equal(jax.random.key_data(before.key), jax.random.key_data(after.key))
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_metrics_are_scalars_with_the_common_names(stepped, solo):
    _, _, rows = stepped
    common = {"episode_return", "episode_length", "num_episodes", "value", "loss"}
    assert common <= rows[0].keys()
    assert all(x.shape == () for x in rows[0].values())
    critic = {f"critic_{name}{end}" for name in ("rank", "dead_units", "preactivation_norm") for end in ("", "_end")}
    assert critic <= solo[1].keys()
    assert not any("rank" in name for name in rows[0]), "measured where metrics_every is 0"


def test_a_state_is_arrays_that_can_be_pickled(stepped):
    """No function, no tracer: what a jitted step returned goes on in another process."""
    state = stepped[1]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert all(leaf.size for leaf in jax.tree.leaves(state)), "orbax refuses arrays without elements"
    assert jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)
    data = state.replace(key=jax.random.key_data(state.key))
    again = pickle.loads(pickle.dumps(jax.device_get(data)))
    equal_trees(again, jax.device_get(data))


def test_train_gives_one_row_per_update(algorithm, solo):
    state, logged = solo
    assert state.update == UPDATES
    assert {x.shape for x in logged.values()} == {(UPDATES,)}


def test_seeds_differ_from_the_first_parameters_on(algorithm):
    a, b = (algorithm.init(jax.random.key(s)) for s in (0, 1))
    kernels = [(x, y) for x, y in zip(*map(jax.tree.leaves, (a.params, b.params)), strict=True) if x.ndim > 1]
    assert kernels
    assert all(not np.allclose(x, y) for x, y in kernels)
    assert not np.array_equal(a.env.obs, b.env.obs)


def test_a_cell_of_a_sweep_is_the_solo_run(algorithm, solo):
    """Seed 1 of three, padded to whole devices, against itself alone: to rounding, over the first ten updates."""
    state, logged = solo
    total = UPDATES * algorithm.steps_per_update
    ds = prx.sweep(algorithm, num_seeds=3, total_steps=total, progress=False, keep_states=True)
    assert set(ds.data_vars) - {"diverged_at"} == set(logged)
    for name, x in logged.items():
        row = ds[name].sel(arm=algorithm.name, seed=1)
        np.testing.assert_allclose(row, x, rtol=1e-4, atol=1e-4, err_msg=name)
    kept = prx.load_state(ds, seed=1)
    assert kinds(kept) == kinds(state)
    for x, y in zip(jax.tree.leaves(kept.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)
    seeds = ds["loss"].values[0]
    assert not np.allclose(seeds[0], seeds[1])
    assert not np.allclose(seeds[1], seeds[2])


def test_evaluate_gives_a_return_per_episode(algorithm, solo):
    state, _ = solo
    greedy = prx.evaluate(algorithm, state, KEY, num_episodes=5)
    assert greedy.shape == (5,)
    # A CartPole that is not held falls after eight steps or more, and each is worth 1.
    assert (greedy >= 8).all()
    np.testing.assert_array_equal(greedy, prx.evaluate(algorithm, state, KEY, num_episodes=5))
