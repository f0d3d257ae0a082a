"""What is kept and measured along a run: states of chosen updates, probes, evaluations; one run replayed; arms of dimensions."""

import importlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from toys import Clock, equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.analysis import stats
from purejaxrl_ext.sweeps import dims, probes, program

wave_module = importlib.import_module("purejaxrl_ext.sweeps.wave")
UPDATES, PER_UPDATE = 12, 16
SEEDS = [7, 3, 5]
RATES = [1e-3, 2e-3]
CHOSEN = [0, 5, 10, UPDATES]


def norms(algorithm, state, key, hparams):
    """A probe: what the run is, and where."""
    first = jax.tree.leaves(state.params)[0]
    return {"norm": jnp.sqrt(jnp.sum(first**2)), "rate": hparams.learning_rate, "drawn": jax.random.uniform(key)}


def updates(algorithm, state, key, hparams):
    return {"at": state.update}


SETTINGS = {
    "seeds": SEEDS,
    "grid": {"learning_rate": RATES},
    "total_steps": UPDATES * PER_UPDATE,
    "progress": False,
    "wave_size": 2,
    "save_every": 5,
    "probes": [norms],
    "probe_every": 4,
    "eval_every": 6,
    "eval_episodes": 2,
}


@pytest.fixture(scope="module")
def algorithm():
    return tiny("ppo")


@pytest.fixture(scope="module")
def whole(algorithm, tmp_path_factory):
    path = tmp_path_factory.mktemp("along") / "x"
    return path, prx.sweep(algorithm, out=path, **SETTINGS)


@pytest.fixture(scope="module")
def held(algorithm):
    return prx.sweep(algorithm, keep_states=True, **SETTINGS)


def same(a, b):
    assert set(a.data_vars) == set(b.data_vars)
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# --- states of chosen updates ----------------------------------------------------------------------------------------


def test_states_of_chosen_updates_are_kept_beside_the_rolling_ones(whole, algorithm):
    path, _ = whole
    assert prx.saved_updates(path, "ppo") == prx.saved_updates(path) == CHOSEN
    first, last = prx.load_states(path, "ppo", update=0), prx.load_states(path)
    assert (first.update, last.update, int(last.state.update)) == (0, UPDATES, UPDATES)
    assert first.labels["seed"].tolist() == [*SEEDS, *SEEDS]
    assert first.labels["learning_rate"].tolist() == np.repeat(RATES, 3).tolist()
    for run, (rate, seed) in enumerate(zip(*(last.labels[n] for n in ("learning_rate", "seed")), strict=True)):
        kernel = jax.tree.leaves(algorithm.init(jax.random.key(seed)).params)[1]
        np.testing.assert_allclose(jax.tree.leaves(first.state.params)[1][run], kernel, atol=1e-6)
        one = jax.tree.map(lambda x, run=run: x[run], last.state.replace(update=())).replace(update=last.state.update)
        equal_trees(one, prx.load_state(path, seed=seed, learning_rate=rate))
    with pytest.raises(ValueError, match=r"update=3 .*\[0, 5, 10, 12\]"):
        prx.load_states(path, update=3)
    np.testing.assert_array_equal(last.hparams.learning_rate, np.float32(np.repeat(RATES, 3)))


def test_states_in_memory_are_those_on_disk(whole, held):
    same(held, whole[1])
    assert prx.saved_updates(held) == CHOSEN
    for update in CHOSEN:
        a, b = (prx.load_states(source, update=update) for source in (held, whole[1]))
        assert {k: v.tolist() for k, v in a.labels.items()} == {k: v.tolist() for k, v in b.labels.items()}
        equal_trees(a.state, b.state)
    with pytest.raises(ValueError, match=r"save_every=5 .*keep_states"):
        prx.sweep(tiny("ppo"), total_steps=16, save_every=5)


def test_a_run_that_was_stopped_ends_with_the_same_ones(algorithm, whole, tmp_path, monkeypatch):
    """Stopped after the first chosen update but the first, in the second wave; every chunk one update, none of it saved."""
    took = []
    take = wave_module.WaveRun._take

    def stop(self, *args):
        if len(took) == UPDATES + 8:
            raise InterruptedError
        took.append(take(self, *args))
        return took[-1]

    with monkeypatch.context() as patch:
        patch.setattr(wave_module, "CHUNK_SECONDS", 0.0)
        patch.setattr(wave_module.WaveRun, "_take", stop)
        with pytest.raises(InterruptedError):
            prx.sweep(algorithm, out=tmp_path / "x", **SETTINGS)
    assert prx.saved_updates(tmp_path / "x") == [0, 5]
    same(prx.resume(tmp_path / "x", progress=False), whole[1])
    assert prx.saved_updates(tmp_path / "x") == CHOSEN
    for update in CHOSEN:
        equal_trees(*(prx.load_states(path, update=update).state for path in (tmp_path / "x", whole[0])))


# --- probes ----------------------------------------------------------------------------------------------------------


def test_probes_are_metrics_of_the_updates_at_which_they_ran(whole, held):
    _, ds = whole
    for name, due in {"norm": [3, 7, 11], "rate": [3, 7, 11], "eval_return": [5, 11]}.items():
        assert (np.isfinite(ds[name].values[0]) == np.isin(np.arange(UPDATES), due)).all(), name
    np.testing.assert_array_equal(ds["rate"].isel(arm=0, update=3, seed=0), np.float32(RATES))
    last = prx.load_states(held)
    for run, (rate, seed) in enumerate(zip(*(last.labels[n] for n in ("learning_rate", "seed")), strict=True)):
        found = ds["norm"].sel(arm="ppo", learning_rate=rate, seed=seed)[-1]
        want = np.sqrt(np.sum(np.asarray(jax.tree.leaves(last.state.params)[0][run]) ** 2))
        np.testing.assert_allclose(found, want, rtol=1e-5)
    drawn = ds["drawn"].isel(arm=0, update=[3, 7, 11])
    assert len(np.unique(drawn.isel(learning_rate=0))) == 9, "a key of its own for each seed and update"
    np.testing.assert_array_equal(*(drawn.isel(learning_rate=i) for i in (0, 1)))


def test_probes_change_nothing_else(whole, algorithm):
    plain = prx.sweep(algorithm, **SETTINGS | {"probes": None, "eval_every": 0, "save_every": 0, "probe_every": 0})
    same(plain, whole[1][list(plain.data_vars)])


def test_a_probe_that_cannot_be_imported_has_to_be_given_again(algorithm, tmp_path):
    def local(algorithm, state, key, hparams):
        return {"one": jnp.ones(())}

    settings = {"seeds": SEEDS, "grid": {"learning_rate": RATES}, "total_steps": 16, "progress": False, "wave_size": 2}
    prx.sweep(algorithm, out=tmp_path / "x", probes=[local], **settings)
    with pytest.raises(ValueError, match=r"probes=None.*'local'.*cannot be imported"):
        prx.resume(tmp_path / "x", total_steps=32, progress=False)
    with pytest.raises(ValueError, match=r"probes\[.local.\]"):
        prx.resume(tmp_path / "x", probes={"local": updates}, progress=False)
    grown = prx.resume(tmp_path / "x", total_steps=32, probes=[local], progress=False)
    assert (grown["one"].values == 1.0).all()


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"a": jnp.ones(3)}, r"probes\['mine'\]: the shape of 'a'=\(3,\)"),
        (jnp.ones(()), r"probes\['mine'\]=.*dict of scalars"),
        ({"loss": jnp.ones(())}, r"probes\['mine'\]='loss' .*another name: it is the sweep's own"),
        ({"seed": jnp.ones(())}, "another name"),
        ({"eval_return": jnp.ones(())}, r"another name: it is that of probes\['evaluation'\]"),
    ],
)
def test_a_probe_that_is_none_is_named(algorithm, result, words):
    mine = {"mine": lambda *args: result}
    with pytest.raises(ValueError, match=words):
        prx.sweep(algorithm, total_steps=16, probes=mine, eval_every=1)


class Origin(Clock):
    """One-step episodes whose return is where they began."""

    def step(self, key, env_state, action):
        after = super().step(key, env_state, action)
        return after._replace(reward=env_state[0], terminated=jnp.ones((), bool))


def test_an_evaluation_is_one_number_of_a_run(monkeypatch):
    """The mean of its episodes: statistics are over seeds (pitfalls 17)."""
    monkeypatch.setattr(probes, "evaluate", lambda *_, **__: jnp.array([1.0, 2.0, 6.0]))
    assert probes.GreedyReturn(3)(None, None, None, None)["eval_return"] == 3.0


@pytest.mark.parametrize("common", [False, True])
def test_evaluations_have_initial_states_of_their_own(common):
    """Each seed, and each update; common ones are an option."""
    algorithm = tiny("ppo", Origin(), reset_pool_size=16)
    runs = program.lay_out(algorithm, [0, 1], {})
    state = jax.vmap(algorithm.init, out_axes=prx.State.axes())(runs.keys)
    probe = probes.Probe("evaluation", probes.GreedyReturn(4, common), 1)
    measure = probes.compiled(probe, algorithm, program.side_by_side(algorithm, runs))
    at = [
        measure(state.replace(update=jnp.int32(u)), runs.keys, runs.hparams)["eval_return"].tolist() for u in (1, 2, 1)
    ]
    assert at[0] == at[2]
    assert len({*at[0], *at[1]}) == (1 if common else 4)


# --- replay ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [3, 5])
def test_one_run_again_is_bit_for_bit_what_is_stored(whole, seed):
    """Also the seed of the second wave, which has one; with a further probe, evaluations and states."""
    path, ds = whole
    before = sorted(p.relative_to(path) for p in path.rglob("*"))
    again = prx.replay(path, seed=seed, learning_rate=2e-3, probes=[updates], save_every=6, progress=False)
    where = {"seed": [seed], "learning_rate": [2e-3]}
    same(again.drop_vars("at"), ds.sel(where))
    np.testing.assert_array_equal(
        again["at"].values.squeeze(), ds["rate"].isel(arm=0, seed=0, learning_rate=0) / 1e-3 * (np.arange(UPDATES) + 1)
    )
    assert prx.saved_updates(again) == [0, 6, UPDATES]
    assert prx.load_states(again).labels["seed"].tolist() == [seed]
    equal_trees(*(prx.load_state(source, seed=seed, learning_rate=2e-3) for source in (again, path)))
    assert sorted(p.relative_to(path) for p in path.rglob("*")) == before


def test_a_replay_elsewhere_warns(whole, tmp_path, monkeypatch):
    path = shutil.copytree(whole[0], tmp_path / "x")
    config = json.loads((path / "config.json").read_text())
    config["device"]["count"] = 64
    (path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(importlib.import_module("purejaxrl_ext.sweeps.replay"), "in_memory", None)
    with pytest.warns(RuntimeWarning, match="numbers will differ: count 64 →"), pytest.raises(TypeError):
        prx.replay(path, seed=3, learning_rate=2e-3)


# --- arms of several dimensions --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arms():
    return {("slow", 4): tiny("ppo"), ("slow", 2): tiny("ppo", gamma=0.5), ("fast", 4): tiny("ppo", learning_rate=0.1)}


def test_arms_of_dimensions(arms, tmp_path):
    settings = {"seeds": [7, 3], "total_steps": 16, "progress": False}
    labels = ("kind", "size")
    ds = prx.sweep(arms, dims=labels, keep_states=True, **settings)
    stored = prx.sweep(arms, dims=labels, out=tmp_path / "x", **settings)
    assert ds["loss"].dims == ("kind", "size", "seed", "update")
    assert (ds["kind"].values.tolist(), ds["size"].values.tolist()) == (["slow", "fast"], [4, 2])
    assert ds["env_step"].dims == ("kind", "size", "update")
    assert np.isnan(ds["loss"].sel(kind="fast", size=2)).all()
    assert int(np.isfinite(ds["loss"]).sum()) == 6
    flat = prx.sweep(arms["slow", 2], **settings)
    np.testing.assert_array_equal(ds["loss"].sel(kind="slow", size=2), flat["loss"].sel(arm="ppo"))
    ds.to_netcdf(tmp_path / "x.nc")
    for other in (stored, prx.load(tmp_path / "x"), xr.load_dataset(tmp_path / "x.nc")):
        same(other, ds)
        np.testing.assert_array_equal(other["env_step"], ds["env_step"])
        assert stats.arm_dims(other) == list(labels)
    equal_trees(prx.load_state(ds.sel(size=[2], seed=[3]), seed=3), prx.load_state(ds, arm=("slow", 2), seed=3))
    assert (tmp_path / "x" / "checkpoints" / "slow-2").is_dir()
    ways: list = [{"arm": ("slow", 2)}, {"kind": "slow", "size": 2}]
    states = [prx.load_state(source, seed=3, **way) for source in (ds, tmp_path / "x") for way in ways]
    for state in states[1:]:
        equal_trees(state, states[0])
    equal_trees(prx.load_states(ds, ("fast", 4)).state, prx.load_states(tmp_path / "x", ("fast", 4)).state)
    assert prx.policy(tmp_path / "x", kind="fast", size=4, seed=3).hparams.learning_rate == 0.1
    with pytest.raises(ValueError, match=r"arm=\('fast', 2\).*\('slow', 4\), \('slow', 2\), \('fast', 4\)"):
        prx.load_state(tmp_path / "x", arm=("fast", 2))
    more = prx.resume(tmp_path / "x", arms={("fast", 2): tiny("ppo", learning_rate=0.2)}, progress=False)
    assert np.isfinite(more["loss"]).all()
    same(more.sel(kind=["slow"]), ds.sel(kind=["slow"]))


def test_labels_named_algorithm(arms):
    """The one dimension whose name ``load_state`` has for something else."""
    ds = prx.sweep(
        {"a": arms["slow", 4], "b": arms["slow", 2]},
        dims="algorithm",
        seeds=[7, 3],
        total_steps=16,
        progress=False,
        keep_states=True,
    )
    assert ds["loss"].dims == ("algorithm", "seed", "update")
    equal_trees(prx.load_state(ds, algorithm="b", seed=3), prx.load_state(ds, arm="b", seed=3))


def test_a_spread_dataset_keeps_its_attributes_and_types():
    flat = xr.Dataset({"x": (("arm", "seed"), np.ones((2, 1), np.float32), {"units": "1"})}, {"arm": ["a-1", "b-2"]})
    ds = dims.spread(flat, ("k", "n"), [("a", 1), ("b", 2)])
    assert (ds["x"].dtype, ds["x"].attrs, ds.attrs["dims"]) == (np.float32, {"units": "1"}, "k, n")
    np.testing.assert_array_equal(np.isfinite(ds["x"].values[..., 0]), np.eye(2, dtype=bool))
