"""All that ship together: in every algorithm and kind of network, on several devices, swept, stopped and resumed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.interventions import moments
from purejaxrl_ext.networks import structure
from purejaxrl_ext.sweeps import program

INF = float("inf")
KEY = jax.random.key(0)
# What asks for LayerNorm, PPO's loss or a network in which nobody looks at layers is in test_interventions.GROUPS.
NAMES = tuple(n for n in prx.INTERVENTIONS if n not in ("normalize_project", "plasticity_injection", "spo", "trac"))
# So strong that each shows after two updates; ReDo's alone of what begins units anew, so that its zeros can be counted.
STRONG = {
    "l2_init_mean_coef": 0.1,
    "l2_init_norm_coef": 0.1,
    "wasserstein_init_coef": 0.01,
    "parseval_coef": 0.01,
    "spectral_coef": 0.01,
    "soft_shrink_perturb_noise": 0.01,
    "layer_reset_every": INF,
    "continual_backprop_rate": 0.0,
    "continual_backprop_maturity": 0.0,
    "snr_eta": 0.0,
    "regrama_every": INF,
    "regrama_tau": 0.7,
    "l2_coef": 0.01,
    "l2_init_coef": 0.01,
    "weight_decay_coef": 1.0,
    "shrink_perturb_every": 1.0,
    "redo_every": 2.0,
    "redo_tau": 0.7,
    "adam_reset_every": 3.0,
    "adam_rel_every": 2.0,
    "weight_clipping_kappa": 1.0,
    "chain_coef": 1.0,
}
# Algorithms and kinds of network that are another code path.
KINDS = {
    "pfo, shared torso, an optimiser each": ("pfo", {"shared_torso": True, "separate_optimizers": True}),
    "ppo, an optimiser each": ("ppo", {"separate_optimizers": True, "optimizer": "adamw", "layer_norm": True}),
    "ppo gru, continuous": ("ppo", {"memory": "gru", "memory_size": 4, "env": "Pendulum-v1", "optimizer": "radam"}),
    "pqn": ("pqn", {"optimizer": "rmsprop"}),
    "dqn": ("dqn", {"dueling": True, "prioritized": True}),
    "ppo, images": ("ppo", {"env": "Breakout-MinAtar", "conv_layers": ((2, 3, 2),)}),
}


def everything(algorithm="ppo", **settings):
    return tiny(algorithm, interventions=NAMES, **{"metrics_every": 0, "initializer": "fan_in"} | STRONG | settings)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_all_at_once_everywhere(kind):
    """One trace; the second update's end resets units, whose outgoing weights, moments and ages are 0; all weights clipped at
    the last step; nothing is lost of the State's structure."""
    name, settings = KINDS[kind]
    algorithm = everything(name, **settings)
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(algorithm.loop.step, n=1))
    hparams = jax.tree.map(jnp.float32, algorithm.hparams)
    # Shrink and perturb comes before ReDo, whose zeros stay.
    state = first = jax.jit(algorithm.init)(KEY)
    for _ in range(2):
        state, logged = step(state, hparams)
    assert jax.tree.structure(state) == jax.tree.structure(first)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, state.opt_state, state.memory)))
    assert {"l2_penalty", "l2_init_penalty", "chain_penalty", "redo_units", "value_churn", "weight_norm"} <= set(logged)
    found, total = structure.layers(algorithm.network, state.params), 0
    for layer in found:
        width = structure.get(state.params, layer.kernel).shape[-1]
        rows = [structure.outgoing_rows(structure.get(state.params, path), width) for path in layer.outgoing]
        silent = np.all([(x == 0).all((0, 2)) for x in rows], axis=0)
        total += silent.sum()
        for tree in moments.moments(state.opt_state, state.params):
            top = tree.get("params", tree)
            if layer.kernel[1] in top:
                assert (structure.get({"params": top}, layer.kernel)[..., silent] == 0).all()
    assert logged["redo_units"] == total > 0
    equal_trees(state.memory["l2_init"], first.params)


@pytest.mark.thorough
@pytest.mark.skipif(jax.local_device_count() < 2, reason="one device")
def test_all_devices_do_the_same():
    algorithm = everything("ppo", data_parallel=2, num_envs=4)
    state, logged = jax.jit(algorithm.init)(KEY), {}
    for _ in range(2):
        state, logged = jax.jit(algorithm.loop.step)(state, algorithm.hparams)
    assert logged["redo_units"] > 0
    held = [leaf.addressable_shards for leaf in jax.tree.leaves((state.params, state.opt_state, state.memory))]
    for shards in held:
        np.testing.assert_array_equal(*(np.asarray(shard.data) for shard in shards))


SETTINGS = {"seeds": [3, 8], "progress": False}
STEPS = 16  # of an update
GRIDS = {
    "strengths": {
        "l2_coef": [0.0, 0.1],
        "l2_init_coef": [0.0, 0.1],
        "chain_coef": [0.0, 50.0],
        "weight_decay_coef": [0.0, 10.0],
        "weight_clipping_kappa": [0.5, INF],
    },
    "more strengths": {
        "l2_init_mean_coef": [0.0, 1.0],
        "l2_init_norm_coef": [0.0, 1.0],
        "wasserstein_init_coef": [0.0, 0.1],
        "parseval_coef": [0.0, 0.1],
        "spectral_coef": [0.0, 0.1],
        "soft_shrink_perturb_noise": [0.0, 0.1],
        "continual_backprop_rate": [0.0, 1.0],
    },
    "periods": {
        f"{name}_every": [1.0, INF]
        for name in ("redo", "adam_reset", "adam_rel", "shrink_perturb", "layer_reset", "regrama")
    }
    | {"snr_eta": [0.9, 0.0]},
}


@pytest.mark.thorough
@pytest.mark.parametrize("kind", GRIDS)
def test_each_is_swept_in_one_program(kind):
    """Each setting changes what is learned, whatever the others are."""
    grid = GRIDS[kind]
    off = {"redo_every": INF, "adam_reset_every": INF, "adam_rel_every": INF, "shrink_perturb_every": INF}
    algorithm = everything(**off)
    before = program.program.cache_info().misses
    ds = prx.sweep(algorithm, grid=grid, total_steps=3 * STEPS, seeds=[3], progress=False, keep_states=True)
    assert program.program.cache_info().misses == before + 1
    assert (ds["diverged_at"].isnull()).all()
    # All others off.
    at_first = {name: values[kind == "periods"] for name, values in grid.items()}
    for name, values in grid.items():
        one, other = (prx.load_state(ds, seed=3, **at_first | {name: value}) for value in values)
        assert any(
            not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (one.params, other.params)), strict=True)
        )


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_a_stopped_run_goes_on_as_if_it_had_not(kind, tmp_path):
    """With all that they keep and when they are due: bit for bit the run that was never stopped."""
    algorithm = everything(kind)
    steps = algorithm.steps_per_update
    grid = {"redo_tau": [0.5, 1.0]}
    prx.sweep(algorithm, grid=grid, total_steps=3 * steps, out=tmp_path / "x", **SETTINGS)
    resumed = prx.resume(tmp_path / "x", total_steps=6 * steps, progress=False)
    whole = prx.sweep(algorithm, grid=grid, total_steps=6 * steps, out=tmp_path / "y", **SETTINGS)
    assert (whole["redo_units"].isel(update=1) > 0).any()
    for name in whole.data_vars:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
    for tau in grid["redo_tau"]:
        equal_trees(*(prx.load_state(tmp_path / run, seed=8, redo_tau=tau) for run in "xy"))


REST = {
    "losses and steps": (("normalize_project", "spo", "trac"), {"spo_share": [0.0, 1.0], "trac_scale": [1e-3, 0.1]}),
    "injection": (("plasticity_injection",), {"plasticity_injection_at": [2.0, INF]}),
}


@pytest.mark.parametrize("kind", REST)
def test_the_rest_is_swept_in_one_program_and_goes_on(kind, tmp_path):
    names, grid = REST[kind]
    algorithm = tiny("ppo", interventions=names, metrics_every=0, layer_norm=kind != "injection", learning_rate=3e-3)
    before = program.program.cache_info().misses
    prx.sweep(algorithm, grid=grid, total_steps=2 * STEPS, out=tmp_path / "x", seeds=[3], progress=False)
    resumed = prx.resume(tmp_path / "x", total_steps=4 * STEPS, progress=False)
    whole = prx.sweep(algorithm, grid=grid, total_steps=4 * STEPS, seeds=[3], progress=False, keep_states=True)
    assert program.program.cache_info().misses == before + 1
    for name in whole.data_vars:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
    for setting, (one, other) in grid.items():
        others = {name: values[1] for name, values in grid.items() if name != setting}
        ends = [prx.load_state(whole, seed=3, **others, **{setting: value}).params for value in (one, other)]
        assert any(not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, ends), strict=True))


def test_a_run_that_diverges_keeps_what_its_interventions_kept_too():
    """As of its last finite update, like its weights: what a later look computes from it is finite."""
    algorithm = tiny("ppo", interventions=("chain",), metrics_every=0, initializer="fan_in")
    grid = {"learning_rate": [1e-3, 1e30]}
    with pytest.warns(RuntimeWarning, match="not finite"):
        ds = prx.sweep(algorithm, grid=grid, total_steps=4 * STEPS, **SETTINGS, keep_states=True)
    assert ds["diverged_at"].sel(learning_rate=1e30).notnull().all()
    assert ds["diverged_at"].sel(learning_rate=1e-3).isnull().all()
    for value in grid["learning_rate"]:
        state = prx.load_state(ds, seed=3, learning_rate=value)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.memory))
