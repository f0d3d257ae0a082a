"""The store: written block by block of whole chunks, readable at any time."""

import json

import numpy as np
import pytest
import zarr

import purejaxrl_ext as prx
from purejaxrl_ext.sweeps import results

UPDATES = 150
ALL = slice(0, 3)


@pytest.fixture
def store(tmp_path):
    """A store of two arms, two values of a setting, three seeds."""
    grid = {"gamma": [0.9, 0.99]}
    dataset = results.blank(["a", "b"], grid, [0, 1, 2], np.ones((2, UPDATES)))
    results.allocate(tmp_path, dataset, ["loss"], grid, seed_block=3)
    arms = {name: {"env": "maze" if name == "a" else "cliff", "labels": [name]} for name in dataset["arm"].values}
    config = {"format": results.FORMAT, "total_steps": 5, "arms": arms, "dims": ["arm"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def write(store, arm, start, stop):
    results.write_blocks(store, arm, ALL, {"loss": values(arm)}, np.full((2, 3), np.nan), start, stop)


def values(arm):
    return np.random.default_rng(arm).normal(size=(2, 3, UPDATES)).astype(np.float32)


def test_blocks_written_one_after_another_are_the_whole(store):
    for start, stop in ((0, 1), (1, 17), (17, 64), (64, 100), (100, UPDATES)):
        for arm in (1, 0):
            write(store, arm, start, stop)
            got = prx.load(store)["loss"][arm]
            np.testing.assert_array_equal(got[..., :stop], values(arm)[..., :stop])
            assert np.isnan(got[..., stop:]).all()


def test_writing_again_after_a_crash_writes_the_same(store):
    for start, stop in ((0, 100), (64, 80), (64, 100)):
        write(store, 0, start, stop)
    np.testing.assert_array_equal(prx.load(store)["loss"][0][..., :100], values(0)[..., :100])


def test_a_write_is_of_whole_chunks(store):
    """Two writers inside one chunk lose data: arms never share one, and a block of updates is one."""
    array = zarr.open_group(str(store / "results.zarr"))["loss"]
    assert array.chunks == (1, 2, 3, results.CHUNK_UPDATES)
    assert array.shape == (2, 2, 3, UPDATES)


@pytest.mark.parametrize(("updates", "seeds", "chunk"), [(2_000, 3, 125), (300_000, 3, 18_750), (300_000, 4096, 64)])
def test_a_long_run_has_few_files_and_none_is_large(tmp_path, updates, seeds, chunk):
    """A file costs a millisecond at each save: in chunks of 64 a run of 300,000 updates and 45 metrics had 210,000."""
    dataset = results.blank(["a"], {}, list(range(seeds)), np.ones((1, updates)))
    results.allocate(tmp_path, dataset, ["loss"], {}, seeds)
    array = zarr.open_group(str(tmp_path / "results.zarr"))["loss"]
    assert array.chunks == (1, seeds, chunk)
    x = np.random.default_rng(0).normal(size=(3, 2 * chunk)).astype(np.float32)
    for start, stop in ((0, 10), (10, chunk + 7), (chunk + 7, 2 * chunk)):
        results.write_blocks(tmp_path, 0, slice(0, 3), {"loss": x}, x[:, 0], start, stop)
        got = results.read_rows(tmp_path, 0, slice(0, 3), ["loss"], stop)["loss"]
        np.testing.assert_array_equal(got, x[:, :stop])


def test_what_the_store_has_no_place_for_is_an_error(store):
    with pytest.raises(ValueError, match=f"stop={UPDATES + 1}.*{UPDATES} updates"):
        results.write_blocks(store, 0, ALL, {"loss": np.zeros((2, 3, UPDATES + 1))}, np.zeros((2, 3)), 0, UPDATES + 1)


def test_a_dataset_says_of_which_environments_it_is(store):
    got = prx.load(store)
    assert got.attrs == {"path": str(store), "total_steps": 5, "env": "maze, cliff"}
    assert got["loss"].attrs == {"long_name": "loss", "units": "1"}


def test_what_holds_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        prx.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prx.load_state(tmp_path / "nowhere")


def test_another_format_is_refused(store):
    (store / "config.json").write_text(json.dumps({"format": 999}))
    with pytest.raises(ValueError, match="999"):
        prx.load(store)


def test_provenance():
    got = results.provenance()
    assert {"format", "versions", "device", "conditions", "commit"} <= got.keys()
    assert {"python", "jax", "jaxlib", "numpy", "purejaxrl_ext"} <= got["versions"].keys()
    json.dumps(got)
