"""Trained states follow their labels, whatever is selected from the dataset, and wherever it is written to."""

import copy
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from toys import Clock, equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.analysis import names
from purejaxrl_ext.sweeps import checkpoints, saving, states

SEEDS = [4, 1, 3]
GRID = {"gamma": [0.9, 0.99]}


@pytest.fixture(scope="module", params=["memory", "disk"])
def swept(request, tmp_path_factory):
    """Two arms, two values of a setting, three seeds; one update."""
    arms = {"a": tiny("ppo"), "b": tiny("ppo", learning_rate=0.1)}
    where = {"keep_states": True}
    if request.param == "disk":
        where = {"out": tmp_path_factory.mktemp("runs") / "x"}
    return prx.sweep(arms, seeds=SEEDS, grid=GRID, total_steps=16, progress=False, **where)


def state_of(source, arm="a", seed=3, gamma=0.99):
    return prx.load_state(source, arm=arm, seed=seed, gamma=gamma)


@pytest.mark.parametrize(
    "select",
    [
        lambda ds: ds.sel(seed=[1, 3]),
        lambda ds: ds.isel(seed=[2, 0]),
        lambda ds: ds.sel(seed=3),
        lambda ds: ds.sortby("seed"),
        lambda ds: ds.sel(arm=["b", "a"], gamma=[0.99, 0.9]),
        lambda ds: ds.sel(arm="a", gamma=0.99, seed=[3]),
        lambda ds: ds.isel(gamma=1, drop=True),
        lambda ds: ds.mean("seed"),
        lambda ds: ds[["episode_return"]].isel(update=0),
        lambda ds: ds.copy(deep=True).sel(seed=[3]),
        lambda ds: xr.concat([ds.sel(seed=[3]), ds.sel(seed=[1])], "seed"),
    ],
)
def test_a_selection_has_its_own_runs_states(swept, select):
    """By its place in what was left, seed 3's was another's."""
    equal_trees(state_of(select(swept)), state_of(swept))


def test_states_differ_between_runs(swept):
    """Else the test above shows nothing."""
    leaves = [
        np.asarray(jax.tree.leaves(state_of(swept, arm, seed, gamma).params)[0]).tobytes()
        for arm in "ab"
        for seed in SEEDS
        for gamma in (0.9, 0.99)
    ]
    assert len(set(leaves)) == len(leaves)


def test_what_a_selection_has_one_of_may_be_left_out(swept):
    sub = swept.sel(arm="b", gamma=[0.9])
    equal_trees(prx.load_state(sub, seed=1), state_of(swept, "b", 1, 0.9))
    policy = prx.policy(sub, seed=1)
    assert policy.algorithm.hparams.learning_rate == 0.1
    assert policy.hparams.gamma == 0.9


def test_the_best_of_a_selection_is_a_run_of_it(swept):
    sub = swept.sel(seed=[1, 3], arm="b").fillna({"episode_return": 1.0})
    where = prx.best(sub).where
    assert where["arm"] == "b" and where["seed"] in (1, 3)
    equal_trees(prx.policy(sub, **where).state, state_of(swept, **where))


@pytest.mark.parametrize(
    ("select", "wanted", "words"),
    [
        (lambda ds: ds.sel(seed=[1, 3]), {"seed": 4}, r"seed=4.*one of \[1, 3\]"),
        (lambda ds: ds.sel(seed=3), {"seed": 1}, r"seed=1.*one of \[3\]"),
        (lambda ds: ds.assign_coords(seed=[7, 8, 9]), {"seed": 7}, r"seed=7.*one of \[4, 1, 3\]"),
        (lambda ds: ds.sel(arm="b"), {"arm": "a"}, "arm='a'.*one of 'b'"),
        (lambda ds: ds.sel(gamma=[0.9]), {"gamma": 0.99}, r"gamma=0.99.*one of \[0.9\]"),
        (lambda ds: ds, {"gamma": None}, r"gamma=None.*one of \[0.9, 0.99\]"),
        (lambda ds: ds, {"gama": 1.0}, "unknown swept setting 'gama'.*'gamma'"),
        (lambda ds: xr.concat([ds, ds], "again"), {}, "dimension again"),
    ],
)
def test_a_run_that_is_not_in_the_selection_is_an_error(swept, select, wanted, words):
    with pytest.raises(ValueError, match=words):
        prx.load_state(select(swept), **({"arm": "a", "seed": 3, "gamma": 0.99} | wanted))


def test_arms_of_several_dimensions_are_found_by_their_parts():
    one = tiny("ppo")
    state = jax.tree.map(lambda x: jnp.asarray(x)[None], one.init(jax.random.key(0)).replace(update=()))
    kept = {label: state.replace(update=jnp.int32(i)) for i, label in enumerate([("ppo", 4), ("ppo", 8), ("pfo", 8)])}
    record = states.States(kept, dict.fromkeys(kept, one), {"seed": [5]}, ("algorithm", "num_epochs"))
    coords = {"algorithm": ["ppo", "pfo"], "num_epochs": [4, 8], "seed": [5]}
    ds = xr.Dataset(coords=coords, attrs={"states": record.kept()})
    assert prx.load_state(ds, arm=("pfo", 8), seed=5).update == 2
    assert prx.load_state(ds.sel(num_epochs=4), seed=5).update == 0
    assert prx.load_state(ds.sel(algorithm="ppo"), ("ppo", 8), seed=5).update == 1
    with pytest.raises(ValueError, match=r"arm=\('pfo', 4\).*\('ppo', 4\), \('ppo', 8\), \('pfo', 8\)"):
        prx.load_state(ds, arm=("pfo", 4), seed=5)


# --- written down ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["netcdf", "zarr", "pickle"])
def test_a_dataset_can_be_written_and_says_where_its_states_are(swept, tmp_path, way):
    if way == "netcdf":
        swept.to_netcdf(tmp_path / "x.nc")
        again = xr.load_dataset(tmp_path / "x.nc")
    elif way == "zarr":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the type of the arms' names
            swept.to_zarr(tmp_path / "x.zarr")
        again = xr.open_zarr(tmp_path / "x.zarr").load()
    else:
        again = pickle.loads(pickle.dumps(swept))
    xr.testing.assert_equal(again, swept)
    assert again.attrs == swept.attrs
    if "path" in swept.attrs:
        equal_trees(state_of(again), state_of(swept))
    else:
        with pytest.raises(ValueError, match="has no states any more: it held the trained states of a, b"):
            state_of(again)


def test_states_live_as_long_as_a_dataset_that_has_them():
    record = states.States({}, {}, {"seed": [0]})
    kept = record.kept()
    assert copy.deepcopy(kept) is kept and copy.copy(kept) is kept
    assert type(pickle.loads(pickle.dumps(kept))) is str


def test_variables_say_what_they_are(swept):
    assert swept.attrs["env"] == "CartPole-v1"
    for name, variable in swept.variables.items():
        assert variable.attrs["long_name"], name
    assert swept["env_step"].attrs["units"] == "steps"
    assert swept["actor_rank_end"].attrs == {
        "long_name": "PCA rank of the actor's features, after the update's epochs",
        "units": "dimensions",
    }
    assert [name for name in swept.data_vars if "units" not in swept[name].attrs] == []
    assert names.described("my_own_end") == {"long_name": "my own end"}


# --- what a State may hold ---------------------------------------------------------------------------------------------


class Keyed(Clock):
    """Its state has a typed key of its own, and numbers of a type that NumPy lacks."""

    def reset(self, key):
        obs = super().reset(key)[0]
        return (obs, key, jnp.ones(3, jnp.bfloat16)), obs

    def step(self, key, env_state, action):
        after = super().step(key, env_state[0], action)
        return after._replace(state=(after.state, *env_state[1:]))


@pytest.mark.thorough
def test_every_typed_key_in_a_state_is_saved(tmp_path):
    algorithm = tiny("ppo", Keyed(time_limit=5))
    settings = {"seeds": SEEDS, "total_steps": 32, "progress": False}
    kept = prx.sweep(algorithm, keep_states=True, **settings)
    prx.sweep(algorithm, out=tmp_path / "x", **settings | {"total_steps": 16})
    prx.resume(tmp_path / "x", total_steps=32, progress=False)
    equal_trees(prx.load_state(tmp_path / "x", seed=3), prx.load_state(kept, seed=3))


def test_the_generator_of_a_key_is_stored(tmp_path):
    """Two have as many words: the bits of one are no key of the other."""

    def saved(impl):
        key = jax.random.key(0, impl=impl)
        return checkpoints.as_data({"key": key, "half": jnp.ones(2, jnp.bfloat16), "x": jnp.arange(3)})

    handler = saving.ArraysHandler()
    tree = jax.tree.map(np.array, saved("rbg"))
    with open(tmp_path / checkpoints.FILE, "wb") as file:
        np.savez(file, **checkpoints.entries(tree))
    back = handler.restore(tmp_path, saving.Arrays(tree))
    equal_trees(checkpoints.with_keys(back), checkpoints.with_keys(tree))
    other = jax.tree.map(np.array, saved("unsafe_rbg"))
    with pytest.raises(
        checkpoints.MismatchError, match=r"uint32\[4\] of rbg as .*key.*and not uint32\[4\] of unsafe_rbg"
    ):
        handler.restore(tmp_path, saving.Arrays(other))
