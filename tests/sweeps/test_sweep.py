"""Sweeps: layout, exactness, measured updates, divergence, evaluation, states and files.

All sweeps here of the same algorithm have four rows on the devices, so they share one compiled program.
"""

import importlib
import json
import math

import jax
import numpy as np
import pytest
from toys import Clock, Poison, equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.loops.train import is_measured
from purejaxrl_ext.sweeps import program, states
from purejaxrl_ext.sweeps.progress import Progress

# The package's attribute of this name is the function.
wave_module = importlib.import_module("purejaxrl_ext.sweeps.wave")
plan_module = importlib.import_module("purejaxrl_ext.sweeps.plan")
run_module = importlib.import_module("purejaxrl_ext.sweeps.run")
UPDATES = 22
PER_UPDATE = 16
SEEDS = [7, 3, 5]


@pytest.fixture(scope="module")
def algorithm():
    return tiny("ppo")


def run(algorithm, **settings):
    settings = {"seeds": SEEDS, "total_steps": UPDATES * PER_UPDATE, "progress": False} | settings
    return prx.sweep(algorithm, **settings)


@pytest.fixture(scope="module")
def dataset(algorithm):
    return run(algorithm, keep_states=True)


@pytest.fixture(scope="module")
def grid(algorithm):
    """Two learning rates, one of which is far too large, times two seeds."""
    with pytest.warns(RuntimeWarning, match="not finite") as caught:
        ds = run(algorithm, seeds=[4, 9], grid={"learning_rate": [1e-3, 1e30]}, keep_states=True)
    return ds, [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)]


def same(a, b):
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# --- layout ----------------------------------------------------------------------------------------------------------


def test_dimensions_and_coordinates(dataset):
    assert dataset["loss"].dims == ("arm", "seed", "update")
    assert dataset["arm"].values.tolist() == ["ppo"]
    assert dataset["seed"].values.tolist() == SEEDS
    np.testing.assert_array_equal(dataset["env_step"].sel(arm="ppo"), PER_UPDATE * (1 + np.arange(UPDATES)))
    assert np.isfinite(dataset["loss"]).all()
    assert np.isnan(dataset["diverged_at"]).all()


def test_dimensions_of_a_grid(grid):
    ds, _ = grid
    assert ds["loss"].dims == ("arm", "learning_rate", "seed", "update")
    assert ds["learning_rate"].values.tolist() == [1e-3, 1e30]
    assert ds["loss"].shape == (1, 2, 2, UPDATES)


def test_steps_that_the_rollout_does_not_divide_are_rounded_up(algorithm):
    assert algorithm.num_updates(1) == 1
    assert algorithm.num_updates(PER_UPDATE) == 1
    assert algorithm.num_updates(PER_UPDATE + 1) == 2
    # Beyond int32.
    assert algorithm.num_updates(10**12) == math.ceil(10**12 / PER_UPDATE)


def test_shorter_arms_are_padded_with_nan():
    arms = {"a": tiny("ppo"), "b": tiny("ppo", num_steps=16)}
    plan = plan_module.Plan(arms, {}, [0], 1, {}, None, total_steps=48, eval_every=0, eval_episodes=1)
    ds = plan.blank()
    assert ds["env_step"].dims == ("arm", "update")
    np.testing.assert_array_equal(ds["env_step"], [[16.0, 32.0, 48.0], [32.0, 64.0, np.nan]])


# --- exactness -------------------------------------------------------------------------------------------------------


@pytest.mark.optimized
def test_the_same_again_is_bit_for_bit_and_compiles_nothing(algorithm, dataset, compilations):
    again = run(algorithm)
    assert not compilations
    same(again, dataset)


@pytest.mark.optimized
def test_another_length_compiles_nothing_and_its_updates_are_the_same(algorithm, dataset, compilations):
    shorter = run(algorithm, total_steps=9 * PER_UPDATE)
    assert not compilations
    for name in ("loss", "episode_return", "entropy"):
        np.testing.assert_array_equal(shorter[name], dataset[name][..., :9], err_msg=name)


def test_an_equal_algorithm_made_again_compiles_nothing(dataset, compilations):
    same(run(tiny("ppo")), dataset)
    assert not compilations


def test_other_hparams_compile_nothing(dataset, compilations):
    other = run(tiny("ppo", learning_rate=5e-3, entropy_coef=0.0, max_grad_norm=10.0))
    assert not compilations
    assert not np.array_equal(other["loss"], dataset["loss"])


@pytest.mark.optimized
@pytest.mark.parametrize(("capacity", "seconds"), [(1, 1.0), (7, 1e9)])
def test_chunks_of_another_length_give_the_same_bits(algorithm, dataset, monkeypatch, capacity, seconds):
    """Neither one update a chunk nor seven, which do not divide the run."""
    monkeypatch.setattr(wave_module, "CAPACITY", capacity)
    monkeypatch.setattr(wave_module, "CHUNK_SECONDS", seconds)
    again = run(algorithm, keep_states=True)
    same(again, dataset)
    for seed in SEEDS:
        equal_trees(prx.load_state(again, seed=seed), prx.load_state(dataset, seed=seed))


@pytest.mark.optimized
def test_seeds_are_who_they_are_in_any_order(algorithm, dataset):
    """Seed s is ``jax.random.key(s)``, wherever it stands."""
    other = run(algorithm, seeds=[5, 11, 7])
    for seed in (5, 7):
        np.testing.assert_array_equal(other["loss"].sel(seed=seed), dataset["loss"].sel(seed=seed))


# --- measured updates ------------------------------------------------------------------------------------------------


def test_measured_updates_are_the_first_the_last_and_every_kth(dataset):
    due = (np.arange(UPDATES) % 4 == 0) | (np.arange(UPDATES) == UPDATES - 1)
    for name in ("actor_rank", "critic_dead_units_end", "actor_preactivation_norm", "policy_variance", "kl"):
        found = np.isfinite(dataset[name].values)
        assert (found == due).all(), name


def test_is_measured():
    got = [bool(is_measured(np.int32(i), 9, 4)) for i in range(10)]
    assert got == [True, False, False, False, True, False, False, False, True, True]


# --- divergence ------------------------------------------------------------------------------------------------------


def test_a_cell_that_diverges_is_named_and_marked(grid):
    ds, messages = grid
    assert len(messages) == 2, "each run once"
    for seed in (4, 9):
        (message,) = [m for m in messages if f"seed={seed}" in m]
        assert "'ppo'" in message
        assert "learning_rate=1e+30" in message
    bad = ds["diverged_at"].sel(arm="ppo", learning_rate=1e30)
    assert np.isfinite(bad).all()
    first = (~np.isfinite(ds["loss"].sel(arm="ppo", learning_rate=1e30))).argmax("update")
    np.testing.assert_array_equal(bad, first)
    assert np.isnan(ds["diverged_at"].sel(learning_rate=1e-3)).all()


@pytest.mark.optimized
def test_a_cell_that_diverges_leaves_the_others_alone(algorithm, grid):
    healthy = run(algorithm, seeds=[4, 9], grid={"learning_rate": [1e-3, 2e-3]})
    for name in healthy.data_vars:
        a, b = (ds[name].sel(learning_rate=1e-3) for ds in (healthy, grid[0]))
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.optimized
def test_nan_in_one_seed_is_reported_by_seed_and_touches_no_other():
    """The same program with and without the poisoned seed among its four."""
    poisoned_env = Poison()
    algorithm = tiny("ppo", poisoned_env, metrics_every=0, num_epochs=1)
    starts = jax.vmap(lambda s: algorithm.init(jax.random.key(s)).env.env_state)(np.arange(40))
    is_bad = (np.asarray(starts)[..., 0] < poisoned_env.share).any(1)
    good, bad = np.flatnonzero(~is_bad)[:4].tolist(), int(np.flatnonzero(is_bad)[0])
    healthy = run(algorithm, seeds=good, total_steps=6 * PER_UPDATE)
    with pytest.warns(RuntimeWarning) as caught:
        poisoned = run(algorithm, seeds=[*good[:2], bad, good[3]], total_steps=6 * PER_UPDATE)
    (message,) = [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)]
    assert f"seed={bad}:" in message
    assert "update 0" in message
    assert poisoned["diverged_at"].sel(seed=bad) == 0
    for seed in (good[0], good[1], good[3]):
        assert np.isnan(poisoned["diverged_at"].sel(seed=seed))
        for name in set(healthy.data_vars) - {"diverged_at"}:
            np.testing.assert_array_equal(poisoned[name].sel(seed=seed), healthy[name].sel(seed=seed), err_msg=name)


# --- states ----------------------------------------------------------------------------------------------------------


def test_kept_states_are_those_of_their_seeds(algorithm, dataset):
    """Of three seeds on two devices, padded to four: none is another's, and the count is the run's."""
    states = {seed: prx.load_state(dataset, seed=seed) for seed in SEEDS}
    for seed, state in states.items():
        assert state.update == UPDATES
        first = algorithm.init(jax.random.key(seed)).params["params"]["actor_torso"]["Dense_0"]["kernel"]
        nearest = min(
            states, key=lambda s: np.abs(states[s].params["params"]["actor_torso"]["Dense_0"]["kernel"] - first).sum()
        )
        assert nearest == seed
    state, _ = jax.eval_shape(algorithm.step, states[3])
    assert jax.tree.structure(state) == jax.tree.structure(states[3])


def test_a_state_of_a_grid_is_asked_for_by_its_cell(grid, algorithm):
    ds, _ = grid
    for seed in (4, 9):
        good, bad = (prx.load_state(ds, seed=seed, learning_rate=x) for x in (1e-3, 1e30))
        start = algorithm.init(jax.random.key(seed))
        # One learned, the other keeps its last finite weights: those that it began with.
        assert not np.array_equal(jax.tree.leaves(good.params)[1], jax.tree.leaves(start.params)[1])
        equal_trees(bad.params, start.params)


def test_cells_that_are_small_numbers_are_told_apart():
    """Adam's eps: np.isclose with its default tolerance takes 1e-8 for 1e-10."""
    coords = {"adam_eps": [1e-8, 1e-10], "seed": [0]}
    assert [states.run_index(coords, 0, {"adam_eps": x})[0] for x in (1e-8, 1e-10)] == [(0, 0), (1, 0)]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"arm": "pfo"}, ["arm", "'pfo'", "'ppo'"]),
        ({"seed": 1}, ["seed=1", "[7, 3, 5]"]),
        ({"seed": 3, "gamma": 0.9}, ["gamma"]),
    ],
)
def test_a_state_that_is_not_there(dataset, wanted, words):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        prx.load_state(dataset, **wanted)
    for word in words:
        assert word in str(raised.value)


def test_without_kept_states_there_are_none(algorithm):
    with pytest.raises(ValueError, match="keep_states"):
        prx.load_state(run(algorithm, total_steps=PER_UPDATE), seed=3)


# --- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.optimized
def test_evaluation_every_so_many_updates_changes_nothing_else(algorithm, dataset):
    ds = run(algorithm, eval_every=5, eval_episodes=4)
    due = np.isin(np.arange(UPDATES), [4, 9, 14, 19, UPDATES - 1])
    assert (np.isfinite(ds["eval_return"].values[0]) == due[None]).all()
    assert (ds["eval_return"].values[..., due] >= 8).all()
    for name in dataset.data_vars:
        np.testing.assert_array_equal(ds[name], dataset[name], err_msg=name)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(algorithm, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "x"
    return path, run(algorithm, out=path)


def test_results_on_disk_are_those_in_memory(dataset, stored):
    path, returned = stored
    loaded = prx.load(path)
    assert set(loaded.data_vars) == set(dataset.data_vars)
    for ds in (returned, loaded):
        same(dataset, ds)
        for name in ("arm", "seed", "update", "env_step"):
            np.testing.assert_array_equal(ds[name], dataset[name], err_msg=name)


def test_config_says_what_was_run(stored):
    path, _ = stored
    config = json.loads((path / "config.json").read_text())
    assert config["seeds"] == SEEDS
    assert config["total_steps"] == UPDATES * PER_UPDATE
    arm = config["arms"]["ppo"]
    assert (arm["steps_per_update"], arm["num_updates"]) == (PER_UPDATE, UPDATES)
    assert arm["settings"]["learning_rate"] == 1e-3
    assert arm["settings"]["hidden_sizes"] == [8]
    assert config["versions"]["jax"] == jax.__version__


def test_states_on_disk_are_those_kept(dataset, stored):
    path, returned = stored
    for seed in SEEDS:
        for source in (path, returned):
            equal_trees(prx.load_state(source, arm="ppo", seed=seed), prx.load_state(dataset, seed=seed))


def test_states_of_a_grid_on_disk(algorithm, grid, tmp_path):
    with pytest.warns(RuntimeWarning, match="not finite"):
        run(algorithm, seeds=[4, 9], grid={"learning_rate": [1e-3, 1e30]}, out=tmp_path / "g")
    same(prx.load(tmp_path / "g"), grid[0])
    for rate in (1e-3, 1e30):
        a, b = (prx.load_state(source, seed=9, learning_rate=rate) for source in (tmp_path / "g", grid[0]))
        equal_trees(a, b)


def test_another_run_is_never_written_over(algorithm, dataset, stored, compilations):
    path, _ = stored
    with pytest.raises(FileExistsError, match="x"):
        run(algorithm, seeds=[1, 2], out=path)
    assert not compilations
    same(dataset, prx.load(path))


def test_other_files_are_never_written_over(algorithm, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        run(algorithm, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


class Stopped(Exception):
    pass


def test_a_run_that_was_stopped_can_be_loaded_as_far_as_it_came(algorithm, dataset, tmp_path, monkeypatch):
    """One update a chunk, saved each time, stopped at the seventh: what was done is there, the rest is NaN."""
    advance = Progress.advance
    calls = []

    def stop(self, *args):
        calls.append(args)
        if len(calls) == 7:
            raise Stopped
        advance(self, *args)

    monkeypatch.setattr(wave_module, "CAPACITY", 1)
    monkeypatch.setattr(Progress, "advance", stop)
    with pytest.raises(Stopped):
        run(algorithm, out=tmp_path / "x", checkpoint_seconds=1e-9)
    loaded = prx.load(tmp_path / "x")
    np.testing.assert_array_equal(loaded["loss"][..., :7], dataset["loss"][..., :7])
    assert loaded.sizes["update"] == UPDATES
    assert np.isnan(loaded["loss"][..., 7:]).all()
    # What fails while it is told has been kept.
    assert prx.load_state(tmp_path / "x", seed=5).update == 7


def test_progress_off_a_terminal_is_a_line_a_minute_and_one_at_the_end(capsys):
    """Also where an arm's seeds turn out to need more waves than it was to have."""
    bar = Progress(True, {"ppo": 100}, {"ppo": 1})
    bar.more_waves("ppo", 2)
    for _ in range(30):
        bar.advance("ppo", 10, 80, np.array([np.nan, 3.0]))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ppo: 300/300 steps") and line.endswith("return 3 (last 5 steps)")
    bar.printed -= 61.0
    bar.advance("ppo", 10, 80, np.array([np.nan]))
    assert capsys.readouterr().err.startswith("ppo: 310/300 steps")


def test_a_run_that_has_just_been_created_is_all_nan(algorithm, tmp_path, monkeypatch):
    def stop(*args):
        raise Stopped

    monkeypatch.setattr(wave_module.WaveRun, "run", stop)
    with pytest.raises(Stopped):
        run(algorithm, out=tmp_path / "x")
    loaded = prx.load(tmp_path / "x")
    assert np.isnan(loaded["loss"]).all()
    assert loaded["seed"].values.tolist() == SEEDS
    with pytest.raises(ValueError, match="not yet"):
        prx.load_state(tmp_path / "x", seed=5)


def test_an_environment_of_ones_own_has_to_be_given_again(tmp_path, monkeypatch):
    def stop(*args):
        raise Stopped

    monkeypatch.setattr(wave_module.WaveRun, "run", stop)
    with pytest.raises(Stopped):
        run(tiny("ppo", Clock(time_limit=3)), out=tmp_path / "x")
    with pytest.raises(ValueError, match="env"):
        prx.load_state(tmp_path / "x", seed=5)


@pytest.mark.parametrize("together", [1, 2])
def test_groups_of_runs_train_as_all_at_once(algorithm, monkeypatch, together):
    """Runs of a device in groups, a swept setting among them: the same numbers, to the last bits' amplification."""
    grid = {"learning_rate": [1e-3, 2e-3]}
    settings = {"num_seeds": 4, "grid": grid, "total_steps": 10 * algorithm.steps_per_update, "progress": False}
    widths = {}
    for width in (0, together):
        monkeypatch.setattr(program, "together", lambda _, width=width: width)
        widths[width] = prx.sweep(algorithm, keep_states=True, **settings)
    for name in ("loss", "value", "actor_rank"):
        np.testing.assert_allclose(widths[together][name], widths[0][name], atol=1e-4, rtol=1e-4, err_msg=name)
    states = [prx.load_state(widths[w], seed=3, learning_rate=2e-3) for w in (0, together)]
    assert int(states[0].update) == int(states[1].update) == 10
    for a, b in zip(*(jax.tree.leaves(s.params) for s in states), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
